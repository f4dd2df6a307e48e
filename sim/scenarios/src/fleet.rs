//! Workers that serve and callers that call, on the nodes of a world, and what must be true of them in the end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use slipring::record::Record;
use slipring::{
    Client, Context, DistributedRuntime, Endpoint, Fault as Refusal, LeaseState, Serving, Settings,
    WatchState,
};
use slipring_core::{Environment, EnvironmentExt};
use slipring_memory::Profile;
use slipring_sim::check::Terms;
use slipring_sim::{Latency, Node, Setup, World};
use tokio::time::{Instant, sleep};

/// The time to live of the leases.
pub(crate) const TTL: Duration = Duration::from_secs(6);

/// The endpoint that the workers serve.
pub(crate) const WORK: &str = "fleet/worker/work";
/// One that is called almost the same.
const NEIGHBOUR: &str = "fleet/worker2/work";

/// How long it may take, when all faults are over, until everybody agrees on who is there: a lease that runs
/// out, a watch that is silent and has to be given up, and some failed attempts.
pub(crate) const AGREEMENT_MAX: Duration = Duration::from_secs(90);

/// How long it may take, when the bus is there again, until it routes to everybody.
const SUBSCRIPTIONS_MAX: Duration = Duration::from_secs(3);

/// How long a program waits before it tries again what failed.
const RETRY: Duration = Duration::from_millis(500);

/// A broker that behaves as etcd and NATS do, over a network with some latency, and an order of tasks that the
/// seed decides.
pub(crate) fn setup() -> Setup {
    let latency = Latency::between(Duration::ZERO, Duration::from_millis(50));
    Setup::from(Profile::etcd()).with_latency(latency).with_lasting_requests(true).with_shuffling(true)
}

/// What fleets are judged by. Calls have no excuse (M14) once the dead are not registered any more, and a watch
/// that is silent because its store was replaced was given up.
pub(crate) fn terms() -> Terms {
    let mut terms = Terms::new(setup().profile);
    terms.settled_within = 5 * TTL;
    terms
}

/// What the programs of a run have told its story. Clones are the same.
#[derive(Clone)]
pub(crate) struct Fleet {
    settings: Settings,
    /// How long callers wait between two calls, at most.
    pause_max: Duration,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// All that were ever started.
    names: BTreeSet<String>,
    workers: BTreeMap<String, Worker>,
    callers: BTreeMap<String, Caller>,
}

/// A life of a worker.
struct Worker {
    node: Node,
    runtime: DistributedRuntime,
    /// Does it serve [`WORK`]?
    serves: bool,
    /// Is it about to serve?
    joins: bool,
}

/// A life of a caller.
struct Caller {
    node: Node,
    runtime: DistributedRuntime,
    clients: Vec<Client<u64, u64>>,
    tally: Tally,
}

/// How calls ended.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tally {
    pub(crate) answered: u64,
    /// By the code of the error.
    pub(crate) failed: BTreeMap<&'static str, u64>,
}

impl Fleet {
    /// Nobody yet. All have these settings, with leases of [`TTL`].
    pub(crate) fn new(world: &World) -> Self {
        Self::with(world, |_| {})
    }

    /// [`new`](Self::new), with some settings changed.
    pub(crate) fn with(world: &World, change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = Settings::default();
        settings.lease_ttl = TTL;
        settings.mutation = world.setup().profile.mutation;
        change(&mut settings);
        Self { settings, pause_max: Duration::from_secs(1), state: Arc::default() }
    }

    /// With callers that wait up to this long between two calls.
    pub(crate) fn with_pause_max(mut self, pause: Duration) -> Self {
        self.pause_max = pause;
        self
    }

    /// Starts a worker in each life of a node: it serves [`WORK`], and answers with its instance id after as
    /// many milliseconds as it is told. Asked to `leave`, it stops serving; asked to `join`, it serves again.
    pub(crate) fn worker(&self, world: &World, name: &str) {
        let fleet = self.clone();
        self.state().names.insert(name.to_owned());
        world.spawn_node(name, move |node| fleet.clone().work(node, WORK));
    }

    /// A worker that serves another endpoint, whose name begins as that of [`WORK`] does.
    pub(crate) fn neighbour(&self, world: &World, name: &str) {
        let fleet = self.clone();
        self.state().names.insert(name.to_owned());
        world.spawn_node(name, move |node| fleet.clone().work(node, NEIGHBOUR));
    }

    /// Starts a caller in each life of a node. It calls whoever there is, again and again, one call at a time.
    /// Asked to `look`, it makes a client more, which shares its watcher; asked to `forget`, it drops one.
    pub(crate) fn caller(&self, world: &World, name: &str) {
        let fleet = self.clone();
        self.state().names.insert(name.to_owned());
        world.spawn_node(name, move |node| fleet.clone().call(node));
    }

    /// Waits until the faults are over, and then until everybody agrees: what is registered is who serves, all
    /// callers see just that, and everybody answers everybody.
    ///
    /// # Panics
    /// If that takes longer than [`AGREEMENT_MAX`], or if a runtime gave itself up.
    pub(crate) async fn agrees(&self, world: &World) {
        world.calm().await;
        let began = Instant::now();
        // What was asked last may only begin now, and a silent watch agrees by chance with what goes on meanwhile.
        let mut agreed = false;
        while !agreed {
            while let Some(difference) = self.difference(world) {
                assert!(
                    began.elapsed() < AGREEMENT_MAX,
                    "{AGREEMENT_MAX:?} after the last fault {difference}"
                );
                sleep(RETRY).await;
            }
            // Subscriptions come back a round trip after their server.
            sleep(SUBSCRIPTIONS_MAX).await;
            agreed = self.difference(world).is_none();
        }
        self.everybody_answers(world).await;
        let state = self.state();
        let runtimes = state.workers.values().map(|worker| (&worker.node, &worker.runtime));
        let all = runtimes.chain(state.callers.values().map(|caller| (&caller.node, &caller.runtime)));
        for (node, runtime) in all {
            // A caller makes one call at a time.
            let calls = runtime.calls_in_flight();
            assert!(calls <= 1, "{} has {calls} calls under way", node.name());
            assert!(!runtime.stopping().get(), "{} stops by itself", node.name());
        }
    }

    /// How the calls of the callers' lives that are not over ended.
    pub(crate) fn tally(&self) -> Tally {
        let mut sum = Tally::default();
        for caller in self.state().callers.values() {
            sum.answered += caller.tally.answered;
            for (code, times) in &caller.tally.failed {
                *sum.failed.entry(code).or_default() += times;
            }
        }
        sum
    }

    /// The runtime of a worker's present or last life, once it serves.
    pub(crate) fn worker_runtime(&self, name: &str) -> Option<DistributedRuntime> {
        self.state().workers.get(name).map(|worker| worker.runtime.clone())
    }

    /// How many watches the callers' runtimes have.
    pub(crate) fn watchers(&self) -> Vec<usize> {
        self.state().callers.values().map(|caller| caller.runtime.registry().watchers()).collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no code panics while it holds the lock")
    }

    async fn work(self, node: Node, endpoint: &'static str) {
        let name = first_name(&node);
        let runtime = self.start(&node).await;
        let endpoint = runtime.endpoint(endpoint).expect("it is a reference");
        let mut serving = Some(serve(&node, &endpoint).await);
        let is_work = endpoint.path().reference().to_string() == WORK;
        let worker = Worker { node: node.clone(), runtime, serves: is_work, joins: false };
        self.state().workers.insert(name.clone(), worker);
        let tell = |serves, joins| {
            if let Some(worker) = self.state().workers.get_mut(&name) {
                (worker.serves, worker.joins) = (serves && is_work, joins);
            }
        };
        loop {
            match (&*node.operation().await, serving.take()) {
                ("leave", Some(old)) => {
                    tell(false, false);
                    let report = old.stop().await;
                    node.note(format_args!("left, clean: {}", report.is_clean()));
                }
                ("join", None) => {
                    tell(false, true);
                    serving = Some(serve(&node, &endpoint).await);
                    tell(true, false);
                }
                (_, as_before) => serving = as_before,
            }
        }
    }

    async fn call(self, node: Node) {
        let name = first_name(&node);
        let runtime = self.start(&node).await;
        let client = client(&node, &runtime).await;
        let (clients, tally) = (vec![client.clone()], Tally::default());
        let caller = Caller { node: node.clone(), runtime: runtime.clone(), clients, tally };
        self.state().callers.insert(name.clone(), caller);
        node.environment().start("looking", self.clone().look(node.clone(), runtime)).detach();
        loop {
            let environment = node.environment();
            let pause_ms = u64::try_from(self.pause_max.as_millis()).unwrap_or(u64::MAX).max(1);
            sleep(Duration::from_millis(environment.random("pause") % pause_ms)).await;
            let answer = client.call(&(environment.random("work") % 250)).await;
            if let Some(caller) = self.state().callers.get_mut(&name) {
                match answer {
                    Ok(_) => caller.tally.answered += 1,
                    Err(error) => *caller.tally.failed.entry(error.code()).or_default() += 1,
                }
            }
        }
    }

    /// Has as many clients as it is told.
    async fn look(self, node: Node, runtime: DistributedRuntime) {
        let name = first_name(&node);
        loop {
            let asked = node.operation().await;
            let more = if asked == "look" { Some(client(&node, &runtime).await) } else { None };
            let mut state = self.state();
            let Some(caller) = state.callers.get_mut(&name) else { continue };
            caller.clients.extend(more);
            if asked == "forget" && caller.clients.len() > 1 {
                caller.clients.pop();
            }
        }
    }

    /// A runtime on a node; whatever happens, it comes to be once the broker is there.
    async fn start(&self, node: &Node) -> DistributedRuntime {
        loop {
            let builder =
                DistributedRuntime::builder().discovery(node.discovery()).messaging(node.messaging());
            match builder.environment(node.environment()).settings(self.settings).build().await {
                Ok(runtime) => return runtime,
                Err(error) => failed(node, "start", &error).await,
            }
        }
    }

    /// In what the store, the callers and the workers differ, if they do.
    fn difference(&self, world: &World) -> Option<String> {
        let state = self.state();
        let known = |name: &String| {
            let worker = state.workers.get(name).map(|worker| &worker.node);
            worker.or_else(|| state.callers.get(name).map(|caller| &caller.node)).map(Node::name)
        };
        for living in state.names.iter().filter_map(|name| world.living(name)) {
            if known(&first_name(&living)) != Some(living.name()) {
                return Some(format!("{} has not started", living.name()));
            }
        }
        if let Some(worker) = state.workers.values().find(|worker| worker.joins && worker.node.is_alive()) {
            return Some(format!("{} is about to serve", worker.node.name()));
        }
        let serve: Vec<_> =
            state.workers.values().filter(|worker| worker.serves && worker.node.is_alive()).collect();
        // A lease that its store gave more time keeps the record of an owner who has lost it.
        let held = |worker: &Worker| matches!(worker.runtime.lease().get(), LeaseState::Held { .. });
        if let Some(worker) = serve.iter().find(|worker| !held(worker)) {
            return Some(format!("{} has no lease", worker.node.name()));
        }
        let serve: BTreeSet<u64> = serve.iter().map(|worker| worker.runtime.instance_id()).collect();
        let stored = stored(world);
        if stored != serve {
            return Some(format!("{stored:?} are registered, and {serve:?} serve"));
        }
        let callers = state.callers.iter().filter(|(_, caller)| caller.node.is_alive());
        for (name, caller) in callers {
            for client in &caller.clients {
                let seen = client.instances();
                let ids: BTreeSet<u64> = seen.all().iter().map(|instance| instance.id()).collect();
                if ids != serve || !matches!(seen.state(), WatchState::Live(_)) {
                    return Some(format!("{name} sees {ids:?}, {:?}, and {serve:?} serve", seen.state()));
                }
            }
        }
        None
    }

    async fn everybody_answers(&self, world: &World) {
        let callers: Vec<(String, Client<u64, u64>)> = {
            let state = self.state();
            let callers = state.callers.iter().filter(|(_, caller)| caller.node.is_alive());
            callers.map(|(name, caller)| (name.clone(), caller.clients[0].clone())).collect()
        };
        for (name, client) in callers {
            for instance in stored(world) {
                // A message that is to be lost may still wait for its turn: such a call is made again.
                let answer = client.request(&0).instance(instance).idempotent().call().await;
                assert_eq!(answer, Ok(instance), "{name} called the instance {instance:x}");
            }
        }
    }
}

/// The instances of [`WORK`] that are registered in the store.
pub(crate) fn stored(world: &World) -> BTreeSet<u64> {
    let entries = world.memory().entries().entries;
    let records = entries.iter().filter_map(|entry| Record::decode(&entry.key, &entry.value).ok());
    let of_work = records.filter(|record| record.endpoint().reference().to_string() == WORK);
    of_work.map(|record| record.instance.id()).collect()
}

/// The name that all lives of a node share.
fn first_name(node: &Node) -> String {
    node.name().split('#').next().unwrap_or_default().to_owned()
}

async fn serve(node: &Node, endpoint: &Endpoint) -> Serving {
    loop {
        match endpoint.serve_unary(answer).await {
            Ok(serving) => return serving,
            Err(error) => failed(node, "serve", &error).await,
        }
    }
}

async fn client(node: &Node, runtime: &DistributedRuntime) -> Client<u64, u64> {
    let endpoint = runtime.endpoint(WORK).expect("it is a reference");
    loop {
        match endpoint.client().await {
            Ok(client) => return client,
            Err(error) => failed(node, "client", &error).await,
        }
    }
}

async fn answer(takes_ms: u64, context: Context) -> Result<u64, Refusal> {
    sleep(Duration::from_millis(takes_ms)).await;
    Ok(context.instance())
}

async fn failed(node: &Node, what: &str, error: &slipring::Error) {
    node.note(format_args!("{what}: {}", error.code()));
    sleep(RETRY).await;
}
