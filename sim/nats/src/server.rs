use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use slipring_core::{Environment, EnvironmentExt, Listener, Task};
use slipring_memory::ConnectionId;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::Options;
use crate::connection;
use crate::info::Info;
use crate::router::Router;

/// A NATS server in this process. Clones are the same one.
///
/// It has no task and no socket of its own: it is there while it is [served](Self::serve).
#[derive(Clone)]
pub struct Nats {
    shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) options: Options,
    pub(crate) environment: Arc<dyn Environment>,
    state: Mutex<State>,
    /// It goes on.
    resumed: Notify,
    /// All connections are to be closed.
    cut: Notify,
    /// A connection has ended.
    ended: Notify,
}

struct State {
    router: Router,
    is_paused: bool,
    /// How often all connections were to be closed.
    cuts: u64,
    /// How many connections there have been.
    connections: u64,
}

impl Nats {
    /// How long it waits before it listens again when accepting failed.
    const ACCEPT_PAUSE: Duration = Duration::from_millis(10);

    /// A server that behaves like this. What is random, such as which member of a queue group gets a message, comes
    /// from the environment, and its tasks run there.
    pub fn new(options: Options, environment: Arc<dyn Environment>) -> Self {
        let router = Router::new(options.clone(), environment.clone());
        let state = Mutex::new(State { router, is_paused: false, cuts: 0, connections: 0 });
        let (resumed, cut, ended) = (Notify::new(), Notify::new(), Notify::new());
        Self { shared: Arc::new(Shared { options, environment, state, resumed, cut, ended }) }
    }

    /// Serves whoever connects, until it is dropped: then connections are closed, and all of them are forgotten.
    /// [`cut`](Self::cut) tells when.
    pub async fn serve(self, mut listener: Box<dyn Listener>) {
        let shared = self.shared;
        let random = || shared.environment.random("nats server id");
        let info = Arc::new(Info::new(random, &listener.local_address()));
        let mut connections: Vec<Task> = Vec::new();
        let mut cuts = shared.state().cuts;
        loop {
            let cut = shared.cut.notified();
            let cuts_by_now = shared.state().cuts;
            if std::mem::replace(&mut cuts, cuts_by_now) != cuts_by_now {
                connections.clear();
            }
            let accept = async {
                // What connects meanwhile waits, as it does with the system of a server that stands still.
                shared.when_running(|_| ()).await;
                listener.accept().await
            };
            let accepted = tokio::select! {
                biased;
                () = cut => continue,
                accepted = accept => accepted,
            };
            connections.retain(|connection| !connection.is_finished());
            match accepted {
                Ok((stream, from)) => {
                    let from = (from, shared.next_number());
                    let connection = connection::converse(shared.clone(), info.clone(), stream, from);
                    connections.push(shared.environment.start("nats connection", connection));
                }
                Err(_) => tokio::time::sleep(Self::ACCEPT_PAUSE).await,
            }
        }
    }

    /// It stands still from now on: connections stay open, and nothing is said. Time goes on: what was due meanwhile
    /// happens when it goes on.
    pub fn pause(&self) {
        self.shared.state().is_paused = true;
    }

    /// It goes on. No-op if it was not paused.
    pub fn resume(&self) {
        self.shared.state().is_paused = false;
        self.shared.resumed.notify_waiters();
    }

    /// Ends all connections once; resolves when they have ended. New ones are accepted at once.
    pub async fn cut(&self) {
        let those: Vec<ConnectionId> = {
            let mut state = self.shared.state();
            state.cuts += 1;
            state.router.clients().collect()
        };
        self.shared.cut.notify_waiters();
        loop {
            let ended = self.shared.ended.notified();
            let are_gone = {
                let state = self.shared.state();
                let mut clients = state.router.clients();
                clients.all(|id| !those.contains(&id))
            };
            if are_gone {
                return;
            }
            ended.await;
        }
    }

    /// How many are connected.
    pub fn connections(&self) -> usize {
        self.shared.state().router.clients().count()
    }

    /// How many subscriptions there are.
    pub fn subscriptions(&self) -> usize {
        self.shared.state().router.subscriptions()
    }

    /// Is nothing kept of anybody? For leak tests.
    pub fn is_empty(&self) -> bool {
        self.shared.state().router.is_empty()
    }
}

impl fmt::Debug for Nats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Nats").field("options", &self.shared.options).finish_non_exhaustive()
    }
}

impl Shared {
    /// Does one thing to all that is known, as soon as the server does not stand still.
    pub(crate) async fn when_running<R>(&self, act: impl FnOnce(&mut Router) -> R) -> R {
        loop {
            let resumed = self.resumed.notified();
            {
                let mut state = self.state();
                if !state.is_paused {
                    return act(&mut state.router);
                }
            }
            resumed.await;
        }
    }

    /// Somebody comes; none if there are too many.
    pub(crate) fn connect(&self) -> Option<ConnectionId> {
        self.state().router.connect(Instant::now())
    }

    /// Somebody is gone.
    pub(crate) fn close(&self, id: ConnectionId) {
        self.state().router.close(id);
        self.ended.notify_waiters();
    }

    fn next_number(&self) -> u64 {
        let mut state = self.state();
        state.connections += 1;
        state.connections
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}
