use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard};

use futures_util::FutureExt;
use slipring_core::{Discovery, Environment, Messaging, Task};
use slipring_memory::store::Saved;
use slipring_memory::{MemoryWorld, Profile};

use crate::environment::SimEnvironment;
use crate::link::Link;
use crate::network::Network;
use crate::record::Record;
use crate::trace::{Log, Trace};

/// Runs a scenario in a world of its own, on a runtime of its own whose clock is paused: time passes only
/// while everybody waits. Returns what happened; the same seed and scenario give the same bytes.
///
/// The promise holds for code that keeps to the rules: entropy, wall time, connections and tasks from the
/// node's environment, `select!` with `biased`, no `HashMap` order, and no `tokio::sync::watch` channel that
/// several tasks wait for (tokio wakes them in a random order).
///
/// # Panics
/// If the scenario does, with the seed and the end of the trace.
pub fn run(seed: u64, scenario: impl AsyncFnOnce(World)) -> Trace {
    run_with(seed, Profile::default(), scenario)
}

/// [`run`] on a broker with this profile.
///
/// # Panics
/// As [`run`].
pub fn run_with(seed: u64, profile: Profile, scenario: impl AsyncFnOnce(World)) -> Trace {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without I/O needs nothing from the system");
    runtime.block_on(async {
        let world = World::with(seed, profile);
        let run = AssertUnwindSafe(scenario(world.clone())).catch_unwind().await;
        if let Err(panic) = run {
            let (what, trace) = (panic_text(&*panic), world.trace());
            panic!("seed {seed}: {what}; the end of its trace:\n{}", trace.tail(TAIL_LINES));
        }
        world.settle().await;
        world.trace()
    })
}

/// The name of the task that writes the commits to the trace.
const RECORDING: &str = "record";

/// Lines of the trace in the message of a failed run.
const TAIL_LINES: usize = 40;

/// What a panic said.
pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

/// Nodes and their broker, under one seed. Clones are the same world.
///
/// It lives on one tokio runtime with a paused clock: that of [`run`], or that of a test with
/// `start_paused = true`.
#[derive(Clone)]
pub struct World {
    shared: Arc<Shared>,
}

struct Shared {
    seed: u64,
    log: Log,
    network: Network,
    memory: MemoryWorld,
    record: Arc<Record>,
    /// By name, each with the number of its lives.
    nodes: Mutex<BTreeMap<String, (usize, Node)>>,
    broker: Arc<SimEnvironment>,
    recording: Mutex<Task>,
}

impl World {
    /// A world with the default profile. Must be made inside a runtime whose clock is paused.
    pub fn new(seed: u64) -> Self {
        Self::with(seed, Profile::default())
    }

    /// A world whose broker has this profile.
    pub fn with(seed: u64, profile: Profile) -> Self {
        let (log, network) = (Log::new(), Network::default());
        let broker = Arc::new(SimEnvironment::in_world("broker", seed, log.clone(), network.clone()));
        let memory = MemoryWorld::with(profile, broker.clone());
        let record = Arc::new(Record::new(log.clone(), memory.discovery()));
        let recording = Mutex::new(broker.spawn(RECORDING, record.clone().keep()));
        let nodes = Mutex::default();
        Self { shared: Arc::new(Shared { seed, log, network, memory, record, nodes, broker, recording }) }
    }

    /// The node of this name. The first call makes it; the first call after it crashed makes its next life,
    /// with nothing left of the one before.
    pub fn node(&self, name: &str) -> Node {
        let mut nodes = self.nodes();
        let lives = match nodes.get(name) {
            Some((_, node)) if !node.environment.is_crashed() => return node.clone(),
            Some((lives, _)) => lives + 1,
            None => 1,
        };
        let node = self.make_node(if lives == 1 { name.to_owned() } else { format!("{name}#{lives}") });
        nodes.insert(name.to_owned(), (lives, node.clone()));
        node
    }

    /// F39: puts the store back to a saved content; [`Saved::empty`] empties it. The trace shows what was
    /// committed before, and begins anew with the content.
    pub async fn restore(&self, saved: Saved) {
        self.settle().await;
        let Shared { memory, broker, record, .. } = &*self.shared;
        memory.import(saved);
        let recording = broker.spawn(RECORDING, record.clone().keep());
        *self.shared.recording.lock().expect("no code panics while it holds the lock") = recording;
    }

    /// The broker's side: what is stored, and how many use it. To restore the store, use
    /// [`restore`](Self::restore): of an `import` the trace learns late.
    pub fn memory(&self) -> &MemoryWorld {
        &self.shared.memory
    }

    /// Adds a line of the scenario's own to the trace.
    pub fn note(&self, what: impl fmt::Display) {
        self.shared.log.line("scenario", what);
    }

    /// Waits until the trace shows the store as it is.
    pub async fn settle(&self) {
        self.shared.record.settle().await;
    }

    /// What happened so far.
    pub fn trace(&self) -> Trace {
        self.shared.log.trace()
    }

    fn make_node(&self, name: String) -> Node {
        let Shared { seed, log, network, memory, .. } = &*self.shared;
        let environment = SimEnvironment::in_world(&name, *seed, log.clone(), network.clone());
        let link = Link::observed({
            let (log, name) = (log.clone(), name.clone());
            move |what| log.line(&name, what)
        });
        Node {
            discovery: link.discovery(Arc::new(memory.discovery())),
            messaging: link.messaging(Arc::new(memory.messaging())),
            environment: Arc::new(environment),
            log: log.clone(),
            name,
            link,
        }
    }

    fn nodes(&self) -> MutexGuard<'_, BTreeMap<String, (usize, Node)>> {
        self.shared.nodes.lock().expect("no code panics while it holds the lock")
    }
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World").field("seed", &self.shared.seed).finish_non_exhaustive()
    }
}

/// One life of a process of the world, with its way to the broker. Clones are the same node.
#[derive(Debug, Clone)]
pub struct Node {
    name: String,
    log: Log,
    environment: Arc<SimEnvironment>,
    link: Link,
    discovery: Arc<dyn Discovery>,
    messaging: Arc<dyn Messaging>,
}

impl Node {
    /// Its name; from the second life on with the number of the life.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its environment; it owns the node's tasks.
    pub fn environment(&self) -> Arc<SimEnvironment> {
        self.environment.clone()
    }

    /// Its way to the broker.
    pub fn link(&self) -> &Link {
        &self.link
    }

    /// The store as this node reaches it.
    pub fn discovery(&self) -> Arc<dyn Discovery> {
        self.discovery.clone()
    }

    /// The broker as this node reaches it; all calls give the same handle.
    pub fn messaging(&self) -> Arc<dyn Messaging> {
        self.messaging.clone()
    }

    /// Adds a line in the name of this node to the trace.
    pub fn note(&self, what: impl fmt::Display) {
        self.log.line(&self.name, what);
    }

    /// Ends the process: all its tasks, and its connection. What it left in the store stays until its lease
    /// runs out.
    pub fn crash(&self) {
        self.note("crashed");
        self.environment.crash();
        self.link.cut();
    }
}
