use std::any::Any;
use std::fmt::{self, Debug};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use futures_util::FutureExt;
use futures_util::future::{AbortHandle, Abortable, BoxFuture};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::oneshot;

use crate::{LeaseId, Result, Revision};

/// Bytes in both directions: a TCP connection, a TLS session, a pipe.
pub trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> ByteStream for S {}

/// Accepts connections.
#[async_trait]
pub trait Listener: Debug + Send + 'static {
    /// The address that it listens on, with the port that was chosen.
    fn local_address(&self) -> String;

    /// The next connection, and the address of the peer. Cancel-safe.
    ///
    /// # Errors
    /// `Unavailable`; accepting may go on.
    async fn accept(&mut self) -> Result<(Box<dyn ByteStream>, String)>;
}

/// The one seam that a simulation replaces: everything beyond `tokio::time`, which is the clock.
///
/// Library and adapter code takes wall time, entropy, connections and tasks from here and from nowhere else,
/// so that one seed decides a whole run and a simulated node owns all that it started.
#[async_trait]
pub trait Environment: Debug + Send + Sync + 'static {
    /// Wall time: for records, and to notice that a machine was suspended. It may jump.
    fn wall_time(&self) -> SystemTime;

    /// The next number of the stream of this purpose. Purposes are independent: drawing one more number for
    /// one of them changes no other.
    fn random(&self, purpose: &'static str) -> u64;

    /// Listens on an address, such as `127.0.0.1:0`.
    ///
    /// # Errors
    /// `Unavailable` if it is taken, `Invalid` if it is none.
    async fn listen(&self, address: &str) -> Result<Box<dyn Listener>>;

    /// Connects to an address. Bounded only by the caller's own timeout.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn connect(&self, address: &str) -> Result<Box<dyn ByteStream>>;

    /// Starts a task. Must be called where the environment can run it (for tokio: inside a runtime).
    /// Implementations build the pair with [`Task::new`].
    fn spawn(&self, name: &'static str, task: BoxFuture<'static, ()>) -> Task;

    /// Starts a task that no busy pool may starve, such as the heartbeat of a lease. `start` is called, and
    /// its future polled, where the task lives: what it opens there, it owns there.
    fn spawn_vital(
        &self,
        name: &'static str,
        start: Box<dyn FnOnce() -> BoxFuture<'static, ()> + Send>,
    ) -> Task;

    /// Told what the component model does, as it happens: for checkers and metrics. Must return at once.
    fn observe(&self, _fact: &Fact) {}

    /// Is anybody told? If not, facts are not even put together. Always the same answer.
    fn is_observed(&self) -> bool {
        true
    }
}

/// What is handy, written once over the primitives.
pub trait EnvironmentExt: Environment {
    /// Starts a task of a plain future: [`Environment::spawn`] without the box.
    fn start(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) -> Task {
        self.spawn(name, Box::pin(task))
    }
}

impl<E: Environment + ?Sized> EnvironmentExt for E {}

/// Something that happened in the component model.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fact {
    /// The runtime stopped believing in its lease.
    LeaseLost {
        /// The runtime's instance id.
        instance: u64,
        /// The lease that was lost.
        lease: LeaseId,
    },
    /// The runtime has a lease (again).
    LeaseHeld {
        /// The runtime's instance id.
        instance: u64,
        /// The lease.
        lease: LeaseId,
        /// How often the runtime has had a lease, from 1.
        epoch: u64,
    },
    /// The runtime let go of its lease, held or lost: it was stopped, or dropped.
    LeaseReleased {
        /// The runtime's instance id.
        instance: u64,
        /// The newest lease.
        lease: LeaseId,
    },
    /// A served endpoint took a step in its life; every step is told.
    LifecycleChanged {
        /// The endpoint, as `namespace/component/endpoint`.
        endpoint: Arc<str>,
        /// The instance.
        instance: u64,
        /// The step, in lower case: `created`, `registered`, `running`, `healthy`, `stopping`, `deregistered`.
        step: &'static str,
    },
    /// A shared watcher's view changed.
    ViewChanged {
        /// The key prefix that is watched.
        prefix: String,
        /// The revision that the view is at.
        revision: Revision,
        /// How many instances it holds.
        instances: usize,
        /// What is different, in order: an instance, and the revision of its record; none if it is gone.
        changes: Vec<(u64, Option<Revision>)>,
    },
    /// A shared watcher began, for the first of its users.
    WatcherStarted {
        /// The key prefix that is watched.
        prefix: String,
    },
    /// A shared watcher ended, with its last user.
    WatcherStopped {
        /// The key prefix that was watched.
        prefix: String,
    },
    /// A reader of a shared watcher's view was told something.
    ViewRead {
        /// The key prefix that is watched.
        prefix: String,
        /// The reader; unique among those of the watcher.
        reader: u64,
        /// What it was told.
        told: Told,
    },
    /// A call was sent to an instance.
    RouteChosen {
        /// The endpoint, as `namespace/component/endpoint`.
        endpoint: Arc<str>,
        /// The instance chosen.
        instance: u64,
        /// The revision of the view it was chosen from.
        revision: Revision,
    },
    /// A call began.
    CallStarted {
        /// The endpoint, as `namespace/component/endpoint`.
        endpoint: Arc<str>,
        /// A number that is unique in its runtime.
        call: u64,
        /// How long it may take.
        deadline: Duration,
        /// May any instance serve it? Not if one is named, or if labels are asked for.
        any: bool,
    },
    /// A call ended.
    CallEnded {
        /// The call's number.
        call: u64,
        /// The code of its error; none if it went well.
        code: Option<&'static str>,
    },
    /// A call was accepted by an instance of this runtime.
    RequestAccepted {
        /// The endpoint, as `namespace/component/endpoint`.
        endpoint: Arc<str>,
        /// The instance.
        instance: u64,
        /// The epoch whose lease was valid then; none if it was not.
        epoch: Option<u64>,
    },
    /// A call that was accepted is over here, however it ended.
    RequestEnded {
        /// The endpoint, as `namespace/component/endpoint`.
        endpoint: Arc<str>,
        /// The instance.
        instance: u64,
    },
}

/// What the reader of a view was told.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Told {
    /// All instances, each with the revision of its record.
    All(Vec<(u64, Revision)>),
    /// An instance is new, or its record was written again, at this revision.
    Put(u64, Revision),
    /// An instance is gone.
    Removed(u64),
    /// It was told everything, and waits.
    Latest,
}

/// How a task ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum TaskEnd {
    /// It finished.
    Finished,
    /// It was aborted, or whatever ran it went away.
    Aborted,
    /// It panicked with this message.
    Panicked(String),
}

/// A running task. Dropping it aborts the task, unless it was [detached](Self::detach).
pub struct Task {
    name: &'static str,
    abort: Option<AbortHandle>,
    told: oneshot::Receiver<TaskEnd>,
    end: Option<TaskEnd>,
}

impl Task {
    /// Makes a task of a future: a handle, and the future to run wherever the environment runs things.
    pub fn new(
        name: &'static str,
        task: BoxFuture<'static, ()>,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (abort, registration) = AbortHandle::new_pair();
        let (tell, told) = oneshot::channel();
        let mut tell = Tell(Some(tell));
        let guarded = Abortable::new(AssertUnwindSafe(task).catch_unwind(), registration);
        let run = async move {
            let end = match guarded.await {
                Ok(Ok(())) => TaskEnd::Finished,
                Ok(Err(panic)) => {
                    let message = panic_message(&*panic);
                    tracing::error!(task = name, panic = message, "task panicked");
                    TaskEnd::Panicked(message)
                }
                Err(_) => TaskEnd::Aborted,
            };
            tell.end(end);
        };
        (Self { name, abort: Some(abort), told, end: None }, run)
    }

    /// The name it was started under.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Stops the task at its next await point.
    pub fn abort(&self) {
        if let Some(abort) = &self.abort {
            abort.abort();
        }
    }

    /// Lets the task live on without this handle.
    pub fn detach(mut self) {
        self.abort = None;
    }

    /// Is it over?
    pub fn is_finished(&self) -> bool {
        self.end.is_some() || !self.told.is_empty()
    }

    /// Waits for its end. Cancel-safe; may be called again.
    pub async fn end(&mut self) -> TaskEnd {
        if let Some(end) = &self.end {
            return end.clone();
        }
        let end = (&mut self.told).await.unwrap_or(TaskEnd::Aborted);
        self.end.insert(end).clone()
    }
}

/// Tells a task's handle how the task ended. Whoever runs a task may also just drop it.
struct Tell(Option<oneshot::Sender<TaskEnd>>);

impl Tell {
    fn end(&mut self, end: TaskEnd) {
        if let Some(tell) = self.0.take() {
            // Without a handle nobody wants to know.
            let _ = tell.send(end);
        }
    }
}

impl Drop for Tell {
    fn drop(&mut self) {
        self.end(TaskEnd::Aborted);
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.abort();
    }
}

impl Debug for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Task").field("name", &self.name).field("finished", &self.is_finished()).finish()
    }
}

/// What a panic said.
pub(crate) fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message").to_owned()
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<E: Environment + ?Sized> Environment for Arc<E> {
    fn wall_time(&self) -> SystemTime {
        (**self).wall_time()
    }

    fn random(&self, purpose: &'static str) -> u64 {
        (**self).random(purpose)
    }

    async fn listen(&self, address: &str) -> Result<Box<dyn Listener>> {
        (**self).listen(address).await
    }

    async fn connect(&self, address: &str) -> Result<Box<dyn ByteStream>> {
        (**self).connect(address).await
    }

    fn spawn(&self, name: &'static str, task: BoxFuture<'static, ()>) -> Task {
        (**self).spawn(name, task)
    }

    fn spawn_vital(
        &self,
        name: &'static str,
        start: Box<dyn FnOnce() -> BoxFuture<'static, ()> + Send>,
    ) -> Task {
        (**self).spawn_vital(name, start)
    }

    fn observe(&self, fact: &Fact) {
        (**self).observe(fact);
    }

    fn is_observed(&self) -> bool {
        (**self).is_observed()
    }
}
