//! Calls over connections between nodes, directly and called home, under every fault.

mod ledger;
mod programs;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use slipring::record::Record;
use slipring::{Client, DistributedRuntime, LeaseState, WatchState};
use slipring_core::mutation::Mutated;
use slipring_sim::{Fault, Meter, Node, Scenario, Shape, World};
use tokio::time::{Instant, sleep};

use self::ledger::Ledger;
use self::programs::{ITEMS, Items, UNARY, Unary};
use crate::fleet::{AGREEMENT_MAX, TTL, setup, terms};

const LENGTH: Duration = Duration::from_secs(30);

const WORKERS: [&str; 3] = ["one", "two", "three"];
const CALLERS: [&str; 3] = ["left", "middle", "right"];

/// How often it is looked whether everybody agrees.
const LOOK: Duration = Duration::from_millis(500);
/// How long it may take, when the bus is there again, until it routes to everybody.
const SUBSCRIPTIONS_MAX: Duration = Duration::from_secs(3);
/// How long a program may take to stop, and what it leaves to end.
const REST_MAX: Duration = Duration::from_secs(60);

pub(crate) fn all() -> Vec<Scenario> {
    let shape = Shape::new(WORKERS.into_iter().chain(CALLERS), TTL, LENGTH)
        .with_operations(["leave", "join"], 8)
        .with_sure(|fault| {
            matches!(fault, Fault::PartitionNodes { .. } | Fault::CutNodes { .. } | Fault::DelayNodes { .. })
        })
        .with_sure(|fault| {
            matches!(fault, Fault::Crash { .. } | Fault::PowerLoss { .. } | Fault::Isolate { .. })
        });
    let shows = "Over connections, whatever goes wrong between nodes and at the broker, a call ends in time and \
                 says what became of it, none is executed twice, items come in order and are counted, and \
                 nothing is left";
    let scenario = Scenario::new("planes_under_faults", shows, shape, under_faults);
    vec![scenario.with_setup(setup()).with_terms(terms()).with_probes(programs::PROBES)]
}

async fn under_faults(world: World) {
    let fleet = Fleet { mutation: world.setup().profile.mutation, ..Fleet::default() };
    WORKERS.iter().for_each(|name| fleet.worker(&world, name));
    CALLERS.iter().for_each(|name| fleet.caller(&world, name));
    fleet.agrees(&world).await;
    fleet.everybody_is_reached().await;
    fleet.stops(&world).await;
    assert_eq!(fleet.ledger.wrong(), None);
    assert!(fleet.ledger.answered() > 0);
}

/// What the programs of a run have told its story. Clones are the same.
#[derive(Clone, Default)]
struct Fleet {
    /// A bug that is switched on, if one is.
    mutation: Mutated,
    ledger: Ledger,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    workers: BTreeMap<String, Worker>,
    callers: BTreeMap<String, Caller>,
    /// Of every life of every node.
    meters: Vec<(String, Meter)>,
}

/// A life of a worker.
struct Worker {
    node: Node,
    runtime: DistributedRuntime,
    serves: bool,
    /// Is it about to serve?
    joins: bool,
}

/// A life of a caller.
struct Caller {
    node: Node,
    unary: Client<Unary, u64>,
    items: Client<Items, u64>,
}

impl Fleet {
    fn worker(&self, world: &World, name: &str) {
        let fleet = self.clone();
        world.spawn_node(name, move |node| programs::work(fleet.clone(), node));
    }

    fn caller(&self, world: &World, name: &str) {
        let fleet = self.clone();
        world.spawn_node(name, move |node| programs::call(fleet.clone(), node));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no code panics while it holds the lock")
    }

    /// Waits until the faults are over, and then until what is registered is who serves, and all callers see that.
    async fn agrees(&self, world: &World) {
        world.calm().await;
        let began = Instant::now();
        loop {
            while let Some(difference) = self.difference(world) {
                let late = began.elapsed() >= AGREEMENT_MAX;
                assert!(!late, "{AGREEMENT_MAX:?} after the last fault {difference}");
                sleep(LOOK).await;
            }
            // Subscriptions come back a round trip after their server; who seemed to agree may only begin now.
            sleep(SUBSCRIPTIONS_MAX).await;
            if self.difference(world).is_none() {
                return;
            }
        }
    }

    /// In what the store, the callers and the workers differ, if they do.
    fn difference(&self, world: &World) -> Option<String> {
        let state = self.state();
        let worker = |name: &str| state.workers.get(name).map(|worker| worker.node.name());
        let caller = |name: &str| state.callers.get(name).map(|caller| caller.node.name());
        for node in WORKERS.iter().chain(&CALLERS).filter_map(|name| world.living(name)) {
            let name = first_name(&node);
            if worker(name).or_else(|| caller(name)) != Some(node.name()) {
                return Some(format!("{} has not started", node.name()));
            }
        }
        let living = || state.workers.values().filter(|worker| worker.node.is_alive());
        if let Some(worker) = living().find(|worker| worker.joins) {
            return Some(format!("{} is about to serve", worker.node.name()));
        }
        // A lease that its store gave more time keeps the record of an owner who has lost it.
        let held = |worker: &&Worker| matches!(worker.runtime.lease().get(), LeaseState::Held { .. });
        if let Some(worker) = living().find(|worker| !held(worker)) {
            return Some(format!("{} has no lease", worker.node.name()));
        }
        let serve: BTreeSet<u64> =
            living().filter(|worker| worker.serves).map(|worker| worker.runtime.instance_id()).collect();
        for endpoint in [UNARY, ITEMS] {
            let stored = stored(world, endpoint);
            if stored != serve {
                return Some(format!("{stored:x?} are registered for {endpoint}, and {serve:x?} serve"));
            }
        }
        for Caller { node, unary, items, .. } in
            state.callers.values().filter(|caller| caller.node.is_alive())
        {
            for instances in [unary.instances(), items.instances()] {
                let seen: BTreeSet<u64> = instances.all().iter().map(|instance| instance.id()).collect();
                if seen != serve || !matches!(instances.state(), WatchState::Live(_)) {
                    let state = instances.state();
                    return Some(format!("{} sees {seen:x?}, {state:?}, and {serve:x?} serve", node.name()));
                }
            }
        }
        None
    }

    /// Every caller reaches every worker, on its planes.
    async fn everybody_is_reached(&self) {
        let callers: Vec<_> = {
            let state = self.state();
            let callers = state.callers.values().filter(|caller| caller.node.is_alive());
            callers.map(|caller| (caller.node.clone(), caller.unary.clone())).collect()
        };
        for (node, client) in callers {
            for instance in client.instances().all() {
                let number = self.ledger.ask();
                // A message that is to be lost may still wait for its turn: such a call is made again.
                let request = (number, 0);
                let call = client.request(&request).instance(instance.id()).idempotent();
                let answer = call.call().await;
                assert_eq!(answer, Ok(number), "{} called the instance {:x}", node.name(), instance.id());
            }
        }
    }

    /// Everybody stops, the callers first, and leaves nothing.
    async fn stops(&self, world: &World) {
        for names in [CALLERS, WORKERS] {
            names.iter().filter(|name| world.living(name).is_some()).for_each(|name| {
                world.ask(name, "quit").expect("it is alive and takes what it is asked");
            });
            let began = Instant::now();
            while let Some(name) = names.iter().find(|name| self.is_there(name)) {
                assert!(began.elapsed() < REST_MAX, "{name} does not stop");
                sleep(LOOK).await;
            }
        }
        let began = Instant::now();
        while let Some(left) = self.left() {
            assert!(began.elapsed() < REST_MAX, "{left} are left");
            sleep(LOOK).await;
        }
    }

    /// Is the present life of a node not over, and has not quit?
    fn is_there(&self, name: &str) -> bool {
        let state = self.state();
        let worker = state.workers.get(name).is_some_and(|worker| worker.node.is_alive());
        worker || state.callers.get(name).is_some_and(|caller| caller.node.is_alive())
    }

    fn left(&self) -> Option<String> {
        let state = self.state();
        let (node, meter) = state.meters.iter().find(|(_, meter)| !meter.is_zero())?;
        Some(format!("{meter} of {node}"))
    }
}

/// The instances of an endpoint that are registered in the store.
fn stored(world: &World, endpoint: &str) -> BTreeSet<u64> {
    let entries = world.memory().entries().entries;
    let records = entries.iter().filter_map(|entry| Record::decode(&entry.key, &entry.value).ok());
    let of_endpoint = records.filter(|record| record.endpoint().reference().to_string() == endpoint);
    of_endpoint.map(|record| record.instance.id()).collect()
}

/// The name that all lives of a node share.
fn first_name(node: &Node) -> &str {
    node.name().split('#').next().unwrap_or_default()
}
