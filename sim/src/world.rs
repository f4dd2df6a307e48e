mod faults;
mod ground;
mod node;
mod servers;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use slipring_core::{BoxFuture, Discovery, EnvironmentExt, Range, Start, Task};
use slipring_memory::MemoryWorld;
use slipring_memory::store::{Saved, StoreEvent};
use tokio::task::yield_now;
use tokio::time::{Instant, timeout};

pub(crate) use self::ground::Ground;
pub use self::node::Node;
use self::servers::Servers;
use crate::environment::SimEnvironment;
use crate::history::{Event, History, Moment, Rest};
use crate::link::{Link, Side, Wiring};
use crate::network::Net;
use crate::pulse::Pulse;
use crate::run::Report;
use crate::setup::Setup;
use crate::trace::{Log, Trace};

/// Nodes and their broker, under one seed. Clones are the same world.
///
/// It lives on one tokio runtime with a paused clock: that of [`run`](crate::run), or that of a test with
/// `start_paused = true`.
#[derive(Clone)]
pub struct World {
    shared: Arc<Shared>,
}

struct Shared {
    seed: u64,
    setup: Setup,
    log: Log,
    network: Net,
    ground: Ground,
    memory: MemoryWorld,
    /// By name.
    places: Mutex<BTreeMap<String, Place>>,
    servers: Mutex<Servers>,
    saved: Mutex<Option<Saved>>,
    /// The links of lives that lost power; the broker may not know yet.
    graves: Mutex<Vec<Link>>,
    broker: Arc<SimEnvironment>,
    clock: Mutex<Task>,
    /// When the schedule is over, if one is played.
    plays_until: Mutex<Option<Instant>>,
}

/// Where one node lives after the other.
struct Place {
    lives: usize,
    node: Node,
    program: Option<Program>,
}

/// What each life of a node runs.
type Program = Arc<dyn Fn(Node) -> BoxFuture<'static, ()> + Send + Sync>;

impl World {
    /// A world with the default setup. Must be made inside a runtime whose clock is paused.
    pub fn new(seed: u64) -> Self {
        Self::with(seed, Setup::new())
    }

    /// A world with this [`Setup`], or whose broker has this [`Profile`](slipring_memory::Profile).
    pub fn with(seed: u64, setup: impl Into<Setup>) -> Self {
        Self::on(Ground::Memory, seed, setup.into(), Pulse::default())
    }

    pub(crate) fn on(ground: Ground, seed: u64, setup: Setup, pulse: Pulse) -> Self {
        let (log, network) = ground.begin(seed, &setup, pulse);
        let broker = SimEnvironment::in_world(BROKER, seed, setup.shuffled, log.clone(), network.clone());
        let broker = ground.place(broker);
        let memory = MemoryWorld::observed(setup.profile.clone(), broker.clone(), {
            let (log, store) = (log.clone(), STORE.into());
            move |clock, event| log.add(&store, Event::Store { clock, event })
        });
        ground.serve(&memory, &broker, (seed, &log), &setup);
        let clock = Mutex::new(start_clock(&broker, &memory));
        Self {
            shared: Arc::new(Shared {
                seed,
                setup,
                log,
                network,
                ground,
                memory,
                places: Mutex::default(),
                servers: Mutex::default(),
                saved: Mutex::default(),
                graves: Mutex::default(),
                broker,
                clock,
                plays_until: Mutex::default(),
            }),
        }
    }

    /// The node of this name. The first call makes it; the first call after it died begins its next life,
    /// with nothing left of the one before.
    pub fn node(&self, name: &str) -> Node {
        if let Some(node) = self.living(name) {
            return node;
        }
        let program = self.places().get(name).and_then(|place| place.program.clone());
        self.begin(name, program)
    }

    /// A node that runs this program: once now, and once again in each further life. It is given its
    /// environment, and its ways to the store and the bus, and needs not know that they are simulated. A life
    /// that the name has is ended by a crash first.
    pub fn spawn_node<P, T>(&self, name: &str, program: P) -> Node
    where
        P: Fn(Node) -> T + Send + Sync + 'static,
        T: Future<Output = ()> + Send + 'static,
    {
        if let Some(node) = self.living(name) {
            node.crash();
        }
        self.begin(name, Some(Arc::new(move |node| Box::pin(program(node)))))
    }

    /// The node of this name, if it is alive.
    pub fn living(&self, name: &str) -> Option<Node> {
        self.places().get(name).map(|place| place.node.clone()).filter(Node::is_alive)
    }

    /// F39: puts the store back to a saved content; [`Saved::empty`] empties it.
    pub fn restore(&self, saved: Saved) {
        let Shared { memory, broker, clock, .. } = &*self.shared;
        memory.import(saved);
        // The old watch may be silent now.
        *lock(clock) = start_clock(broker, memory);
    }

    /// The broker's side: what is stored, and how many use it. To replace the content, use
    /// [`restore`](Self::restore), so that leases go on to end on time.
    pub fn memory(&self) -> &MemoryWorld {
        &self.shared.memory
    }

    /// Adds a line of the scenario's own to the trace.
    pub fn note(&self, what: impl fmt::Display) {
        self.shared.log.add(&"scenario".into(), Event::Note(what.to_string()));
    }

    /// Counts a rare situation that came about, as [`Node::sometimes`] does.
    pub fn sometimes(&self, name: impl fmt::Display) {
        self.shared.log.add(&"scenario".into(), Event::Sometimes(name.to_string()));
    }

    /// Adds what happened in a store that is not this world's own, so that the history can be judged as if it
    /// were.
    pub fn tell_store(&self, clock: Duration, event: StoreEvent) {
        self.shared.log.add(&STORE.into(), Event::Store { clock, event });
    }

    /// What happened so far and was not [taken](Self::take_history), as data.
    pub fn history(&self) -> History {
        self.catch_up();
        self.shared.log.snapshot()
    }

    /// What it is like.
    pub fn setup(&self) -> &Setup {
        &self.shared.setup
    }

    /// What it writes.
    pub(crate) fn log(&self) -> &Log {
        &self.shared.log
    }

    /// Virtual time since the world began.
    pub fn elapsed(&self) -> Duration {
        self.shared.log.elapsed()
    }

    /// What happened since this was last called, or since the beginning; the world forgets it. For long runs,
    /// which judge as they go and keep their memory small.
    pub fn take_history(&self) -> History {
        self.catch_up();
        self.shared.log.take()
    }

    /// What happened so far, as text.
    pub fn trace(&self) -> Trace {
        Trace::from(&self.history())
    }

    /// How many tasks are alive that no environment of this world owns: started past them, by a bare
    /// `tokio::spawn`, on the runtime of this world.
    pub async fn stray_tasks(&self) -> usize {
        // What was aborted is alive until the scheduler has come by.
        for _ in 0..REAPING_YIELDS {
            yield_now().await;
        }
        let nodes: Vec<Node> = self.places().values().map(|place| place.node.clone()).collect();
        self.shared.ground.stray_tasks(&self.shared.broker, &nodes).await
    }

    /// Ends all nodes, and gives what there is to tell.
    pub(crate) async fn finish(&self) -> Report {
        self.catch_up();
        let mut history = self.shared.log.finish();
        let nodes: Vec<Node> = self.places().values().map(|place| place.node.clone()).collect();
        for node in &nodes {
            node.crash();
            node.link().bury();
        }
        std::mem::take(&mut *lock(&self.shared.graves)).iter().for_each(Link::bury);
        self.shared.ground.end();
        let rest = self.rest().await;
        let (at, node) = (self.shared.log.elapsed(), BROKER.into());
        history.push(Moment { at, node, event: Event::Counted(rest) });
        Report { history, stray_tasks: rest.stray_tasks }
    }

    /// What is open at the broker, except the world's own clock, and who runs past it.
    async fn rest(&self) -> Rest {
        let stray_tasks = self.stray_tasks().await;
        let memory = &self.shared.memory;
        let watches = memory.watches().saturating_sub(1);
        Rest { watches, subscriptions: memory.messaging().subscriptions(), stray_tasks }
    }

    /// Lets what is due by now happen in the store.
    fn catch_up(&self) {
        self.shared.memory.leases();
    }

    /// Begins the next life of a node.
    fn begin(&self, name: &str, program: Option<Program>) -> Node {
        let node = {
            let mut places = self.places();
            let before = places.get(name);
            let lives = 1 + before.map_or(0, |place| place.lives);
            let full_name = if lives == 1 { name.to_owned() } else { format!("{name}#{lives}") };
            let node = self.make_node(&full_name, before.map(|place| place.node.link()));
            places.insert(name.to_owned(), Place { lives, node: node.clone(), program: program.clone() });
            node
        };
        if let Some(program) = program {
            node.run(program(node.clone()));
        }
        node
    }

    fn make_node(&self, name: &str, before: Option<&Link>) -> Node {
        let Shared { seed, setup, log, network, ground, memory, broker, .. } = &*self.shared;
        let environment = SimEnvironment::in_world(name, *seed, setup.shuffled, log.clone(), network.clone());
        environment.offset_wall_time(setup.wall_offset_max);
        let (environment, way) = ground.settle(name, environment, memory);
        let link = Link::wired(Wiring {
            seed: *seed,
            log: Some((log.clone(), name.into())),
            messages: setup.messages,
            // What was sent over a cable is on its way by itself.
            courier: (setup.lasting_requests && way.cable.is_none()).then(|| Arc::downgrade(broker)),
            yields_max: if setup.shuffled { YIELDS_MAX } else { 0 },
            cable: way.cable,
        });
        match before {
            Some(before) => link.inherit(before),
            None => link.set_latency(setup.latency),
        }
        for side in [Side::Store, Side::Bus] {
            link.set_server(side, lock(&self.shared.servers).state(side));
        }
        let (discovery, messaging) = (link.discovery(way.discovery), link.messaging(way.messaging));
        Node::new(name.into(), log.clone(), environment, link, discovery, messaging)
    }

    fn places(&self) -> MutexGuard<'_, BTreeMap<String, Place>> {
        lock(&self.shared.places)
    }
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World").field("seed", &self.shared.seed).finish_non_exhaustive()
    }
}

/// The names under which the servers stand in a history.
const BROKER: &str = "broker";
const STORE: &str = "store";

/// How often a message lets others run in a shuffled world, at most.
const YIELDS_MAX: u64 = 3;

/// After so many turns of the scheduler an aborted task is gone.
const REAPING_YIELDS: usize = 16;

/// Lets leases end when they are due, also when nobody looks.
fn start_clock(broker: &SimEnvironment, memory: &MemoryWorld) -> Task {
    let silence_max = memory.profile().discovery.watch_silence_max;
    let discovery = memory.discovery();
    let open = async move || discovery.watch(Range::All, Start::Snapshot).await;
    let first = open().now_or_never();
    broker.start("clock", async move {
        let mut watch = first;
        loop {
            let mut open = match watch.take() {
                Some(watch) => watch,
                None => open().await,
            }
            .expect("a store in memory is there");
            // A restored store may leave its watches silent.
            while let Ok(Some(Ok(_))) = timeout(silence_max, open.events.next()).await {}
        }
    })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no code panics while it holds the lock")
}

/// The time after which a dead machine's subscriptions leave the bus, which notices by its pings: 2 to 3
/// minutes with the defaults of NATS.
const BURIED_AFTER: Duration = Duration::from_secs(150);
