mod tasks;

use std::fmt;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use futures_util::FutureExt;
use slipring_core::{
    BoxFuture, ByteStream, Effect, Environment, Error, Fact, Listener, Result, Task, async_trait,
};

use self::tasks::Tasks;
use crate::history::{Death, Event};
use crate::network::{Net, Network, Sockets};
use crate::pace::{Pace, Paced, Steps};
use crate::random::Streams;
use crate::run::panic_text;
use crate::trace::Log;

/// The wall time at which every simulation begins: 1 January 2026, 00:00 UTC.
const WALL_TIME_AT_START: Duration = Duration::from_secs(1_767_225_600);

/// [`WALL_TIME_AT_START`], for a simulation that has a wall time of its own.
#[cfg(feature = "turmoil")]
pub(crate) fn wall_time_at_start() -> SystemTime {
    SystemTime::UNIX_EPOCH + WALL_TIME_AT_START
}

/// An [`Environment`] out of one seed: for one node of a simulation, or for one test.
///
/// It must be made, and used, inside a tokio runtime whose clock is paused. It owns what is spawned through
/// it: [`crash`](Self::crash), or dropping the last handle, aborts all of it. Vital tasks are ordinary tasks.
/// `listen` and `connect` reach the nodes of the same world, by address, in memory.
///
/// # After a crash
/// What user code started past it, with a bare `tokio::spawn`, lives on, but reaches nothing: the connections
/// that it holds are reset, or silent for ever if the machine lost its power.
pub struct SimEnvironment {
    name: Arc<str>,
    log: Log,
    network: Net,
    sockets: Sockets,
    pace: Pace,
    state: Mutex<State>,
}

struct State {
    streams: Streams,
    /// What wall time adds to the monotonic clock.
    wall_at_start: SystemTime,
    /// The tasks that were started; none any more after a crash.
    tasks: Option<Tasks>,
}

impl SimEnvironment {
    /// An environment of its own, with a network of its own.
    pub fn new(seed: u64) -> Self {
        Self::in_world("node", seed, false, Log::new(), Network::default())
    }

    /// `shuffled`: the seed decides in which order tasks that are ready run.
    pub(crate) fn in_world(name: &str, seed: u64, shuffled: bool, log: Log, network: impl Into<Net>) -> Self {
        let mut streams = Streams::new(seed, name);
        let pace = Pace::new(shuffled.then(|| streams.next("scheduling")));
        let state = State {
            streams,
            wall_at_start: SystemTime::UNIX_EPOCH + WALL_TIME_AT_START,
            tasks: Some(Tasks::here()),
        };
        let network = network.into();
        Self { name: name.into(), log, network, sockets: Sockets::default(), pace, state: Mutex::new(state) }
    }

    /// Aborts everything that was started here, between two of its steps, and starts nothing any more: what
    /// is spawned afterwards is dropped, and nobody listens or connects. Its connections are reset. Again is
    /// no-op.
    pub fn crash(&self) {
        self.die(Death::Crash);
    }

    /// Has it crashed?
    pub fn is_crashed(&self) -> bool {
        self.state().tasks.is_none()
    }

    /// Moves wall time ahead; the monotonic clock does not notice. As after a machine was suspended.
    pub fn jump_forward(&self, by: Duration) {
        self.state().wall_at_start += by;
    }

    /// Moves wall time back; the monotonic clock does not notice.
    pub fn jump_back(&self, by: Duration) {
        self.state().wall_at_start -= by;
    }

    /// Sets wall time wrong by up to this much, either way, as the seed says.
    pub(crate) fn offset_wall_time(&self, max: Duration) {
        let millis = u64::try_from(max.as_millis()).unwrap_or(u64::MAX);
        if millis == 0 {
            return;
        }
        let drawn = self.state().streams.next("wall offset") % millis.saturating_mul(2).saturating_add(1);
        if drawn > millis {
            self.jump_forward(Duration::from_millis(drawn - millis));
        } else {
            self.jump_back(Duration::from_millis(millis - drawn));
        }
    }

    /// What the component model did here, in order; in a world whose history is
    /// [taken](crate::World::take_history), since that was done last.
    pub fn facts(&self) -> Vec<Fact> {
        self.log.facts(&self.name)
    }

    /// F13: no task takes a step until [`resume`](Self::resume) was called as often as this. Time passes.
    pub fn pause(&self) {
        self.log.add(&self.name, Event::Paused);
        self.pace.pause();
    }

    /// Ends a [pause](Self::pause).
    pub fn resume(&self) {
        self.log.add(&self.name, Event::Resumed);
        self.pace.resume();
    }

    /// As [`crash`](Self::crash); after a power loss the far ends of its connections learn nothing.
    pub(crate) fn die(&self, death: Death) {
        // First: what the tasks hold is dropped with them.
        self.sockets.die(death);
        let tasks = self.state().tasks.take();
        drop(tasks);
    }

    /// The tasks that were started here and are not over.
    pub(crate) fn tasks(&self) -> usize {
        self.state().tasks.as_mut().map_or(0, Tasks::count)
    }

    /// As an environment in a world on turmoil: its tasks wait until its host is there.
    #[cfg(feature = "turmoil")]
    pub(crate) fn on_a_host(self) -> Self {
        self.state().tasks = Some(Tasks::on_a_host());
        self
    }

    /// Its host is the one that this is called on.
    #[cfg(feature = "turmoil")]
    pub(crate) fn arrive(&self) {
        if let Some(tasks) = &mut self.state().tasks {
            tasks.arrive(tokio::runtime::Handle::current());
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no code panics while it holds the lock")
    }

    /// The steps of a task.
    fn steps(&self, task: &'static str) -> Steps {
        Steps { log: self.log.clone(), node: self.name.clone(), task }
    }

    fn check(&self) -> Result<()> {
        if self.is_crashed() {
            return Err(Error::unavailable(&*self.name, "this node has crashed", Effect::None));
        }
        Ok(())
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Environment for SimEnvironment {
    fn wall_time(&self) -> SystemTime {
        self.state().wall_at_start + self.log.elapsed()
    }

    fn random(&self, purpose: &'static str) -> u64 {
        self.state().streams.next(purpose)
    }

    async fn listen(&self, address: &str) -> Result<Box<dyn Listener>> {
        self.check()?;
        self.network.listen(&self.sockets, &self.name, address).await
    }

    async fn connect(&self, address: &str) -> Result<Box<dyn ByteStream>> {
        self.check()?;
        self.network.connect(&self.sockets, &self.name, address).await
    }

    fn spawn(&self, name: &'static str, task: BoxFuture<'static, ()>) -> Task {
        let (log, node) = (self.log.clone(), self.name.clone());
        let traced = async move {
            if let Err(panic) = AssertUnwindSafe(task).catch_unwind().await {
                log.add(&node, Event::Panicked { task: name, message: panic_text(&*panic).to_owned() });
                resume_unwind(panic);
            }
        };
        let (task, run) = Task::new(name, Box::pin(traced));
        if let Some(tasks) = &mut self.state().tasks {
            tasks.spawn(Paced::new(self.pace.clone(), self.steps(name), Box::pin(run)));
        }
        task
    }

    fn spawn_vital(
        &self,
        name: &'static str,
        start: Box<dyn FnOnce() -> BoxFuture<'static, ()> + Send>,
    ) -> Task {
        self.spawn(name, Box::pin(async move { start().await }))
    }

    fn observe(&self, fact: &Fact) {
        self.log.add(&self.name, Event::Fact(fact.clone()));
    }

    fn is_observed(&self) -> bool {
        true
    }
}

impl Drop for SimEnvironment {
    fn drop(&mut self) {
        self.crash();
    }
}

impl fmt::Debug for SimEnvironment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let crashed = self.is_crashed();
        f.debug_struct("SimEnvironment")
            .field("name", &self.name)
            .field("crashed", &crashed)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::future;

    use slipring_core::{LeaseId, TaskEnd};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time;

    use super::*;

    /// The streams of numbers follow from the seed alone.
    #[tokio::test(start_paused = true)]
    async fn the_seed_decides_the_numbers() {
        let drawn = |seed| {
            let environment = SimEnvironment::new(seed);
            [environment.random("jitter"), environment.random("jitter"), environment.random("route")]
        };
        assert_eq!(drawn(7), drawn(7));
        assert_ne!(drawn(7), drawn(8));
    }

    /// F41: wall time follows the clock, and jumps where it is told to; the clock does not jump with it.
    #[tokio::test(start_paused = true)]
    async fn f41_wall_time_jumps_alone() {
        let environment = SimEnvironment::new(7);
        let (began, clock) = (environment.wall_time(), time::Instant::now());
        time::advance(Duration::from_secs(5)).await;
        assert_eq!(environment.wall_time(), began + Duration::from_secs(5));
        environment.jump_forward(Duration::from_secs(60));
        assert_eq!(environment.wall_time(), began + Duration::from_secs(65));
        environment.jump_back(Duration::from_secs(65));
        assert_eq!(environment.wall_time(), began);
        assert_eq!(clock.elapsed(), Duration::from_secs(5));
    }

    /// F1: after a crash no task takes another step, what the tasks held is dropped, and nothing starts.
    #[tokio::test(start_paused = true)]
    async fn f1_a_crash_ends_everything() {
        let environment = SimEnvironment::new(7);
        let (held, mut released) = tokio::sync::mpsc::channel::<()>(1);
        let wait = |held| {
            Box::pin(async move {
                future::pending::<()>().await;
                drop(held);
            })
        };
        let mut plain = environment.spawn("plain", wait(held.clone()));
        let future = wait(held);
        let mut vital = environment.spawn_vital("vital", Box::new(move || future));
        environment.spawn("detached", Box::pin(future::pending())).detach();
        tokio::task::yield_now().await;

        environment.crash();

        assert_eq!(plain.end().await, TaskEnd::Aborted);
        assert_eq!(vital.end().await, TaskEnd::Aborted);
        assert_eq!(released.recv().await, None);
        let mut late = environment.spawn("late", Box::pin(async { panic!("it ran") }));
        assert_eq!(late.end().await, TaskEnd::Aborted);
        assert_eq!(environment.connect("host:1").await.err().map(|error| error.code()), Some("unavailable"));
    }

    /// A task that is ready to run when its node crashes does not run.
    #[tokio::test(start_paused = true)]
    async fn a_task_that_was_woken_does_not_survive_a_crash() {
        let environment = SimEnvironment::new(7);
        let mut task = environment.spawn("ready", Box::pin(async { panic!("it ran") }));
        environment.crash();
        assert_eq!(task.end().await, TaskEnd::Aborted);
    }

    /// Facts are kept in their order.
    #[tokio::test(start_paused = true)]
    async fn facts_are_kept() {
        let environment = SimEnvironment::new(7);
        let facts = [1, 2].map(|lease| Fact::LeaseLost { instance: 1, lease: LeaseId(lease) });
        facts.iter().for_each(|fact| environment.observe(fact));
        assert_eq!(environment.facts(), facts);
    }

    /// Bytes flow between two nodes of a network in both directions, and an end that is dropped is seen.
    #[tokio::test(start_paused = true)]
    async fn nodes_connect_by_address() {
        let (log, network) = (Log::new(), Network::default());
        let server = SimEnvironment::in_world("server", 7, false, log.clone(), network.clone());
        let client = SimEnvironment::in_world("client", 7, false, log, network);
        let mut listener = server.listen("10.0.0.1:0").await.unwrap();
        let mut near = client.connect(&listener.local_address()).await.unwrap();
        let (mut far, peer) = listener.accept().await.unwrap();
        assert!(peer.starts_with("client:"), "{peer}");

        near.write_all(b"ping").await.unwrap();
        let mut read = [0; 4];
        far.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"ping");
        drop(near);
        assert_eq!(far.read(&mut read).await.unwrap(), 0);
    }

    /// What does not work is refused by kind: a taken address, an address of nobody, and no address at all.
    #[tokio::test(start_paused = true)]
    async fn bad_addresses_are_refused() {
        let environment = SimEnvironment::new(7);
        let listener = environment.listen("host:80").await.unwrap();
        let code = |result: Result<()>| result.unwrap_err().code();
        assert_eq!(code(environment.listen("host:80").await.map(drop)), "unavailable");
        assert_eq!(code(environment.connect("host:81").await.map(drop)), "unavailable");
        assert_eq!(code(environment.connect("host").await.map(drop)), "invalid");
        drop(listener);
        assert_eq!(code(environment.connect("host:80").await.map(drop)), "unavailable");
        environment.listen("host:80").await.unwrap();
    }
}
