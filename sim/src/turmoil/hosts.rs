//! The machines of a world: a host for each node, and the one of the broker, on which the story is told, too.

mod machine;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use slipring_core::{BoxFuture, Commit, Discovery, Environment, Messaging, Result, Txn};
use slipring_memory::{MemoryWorld, Profile};
use tokio::runtime::Handle;
use tokio::time::sleep;

use self::machine::{Blockade, Machine};
use super::orders::{Order, Orders, STEPS_TO_DIE, TICK};
use super::server::Server;
use super::wire::{Broker, Client, WireDiscovery, WireMessaging};
use crate::environment::SimEnvironment;
use crate::history::{Death, Event};
use crate::latency::Latency;
use crate::link::{self, Cable, Side};
use crate::network::Net;
use crate::random::Streams;
use crate::setup::Setup;
use crate::trace::Log;

/// The host of the broker, and the ports of its two servers.
pub(crate) const BROKER: &str = "broker";
const STORE_PORT: u16 = 2379;
const BUS_PORT: u16 = 4222;

/// All hosts of one simulation.
pub(crate) struct Hosts {
    orders: Orders,
    state: Mutex<State>,
}

struct State {
    streams: Streams,
    /// Of the nodes, by name.
    machines: BTreeMap<String, Machine>,
    /// Of the store and of the bus.
    servers: Vec<Server>,
    /// Tasks that outlived their lives, so far.
    stray: usize,
}

impl Hosts {
    pub(crate) fn new(seed: u64, orders: Orders) -> Arc<Self> {
        let streams = Streams::new(seed, "hosts");
        let state = State { streams, machines: BTreeMap::new(), servers: Vec::new(), stray: 0 };
        Arc::new(Self { orders, state: Mutex::new(state) })
    }

    /// Starts the servers, on this host.
    pub(crate) fn serve(
        &self,
        memory: &MemoryWorld,
        machine: &Arc<SimEnvironment>,
        (seed, log): (u64, &Log),
        setup: &Setup,
    ) {
        let bus = memory.clone();
        let (store, teller) = (BROKER.into(), log.clone());
        let broker = Broker {
            discovery: Arc::new(memory.discovery()),
            messaging: Arc::new(move || Arc::new(bus.messaging())),
            told: Arc::new(move |request, step| teller.add(&store, Event::Txn { request, step })),
        };
        let shuffled = setup.shuffled;
        let start = |name, port| {
            let log = log.clone();
            let process = move || {
                let process = SimEnvironment::in_world(name, seed, shuffled, log.clone(), Net::Turmoil);
                let process = process.on_a_host();
                process.arrive();
                process
            };
            Server::start(&format!("0.0.0.0:{port}"), broker.clone(), machine.clone(), process)
        };
        self.state().servers = vec![start("store server", STORE_PORT), start("bus server", BUS_PORT)];
    }

    /// Gives a new life of a node its host, as soon as may be, and its way to the broker.
    pub(crate) fn settle(
        self: &Arc<Self>,
        name: &str,
        environment: &Arc<SimEnvironment>,
        profile: &Profile,
    ) -> (Arc<dyn Discovery>, Arc<dyn Messaging>, Arc<dyn Cable>) {
        let host = host_of(name);
        let node: Arc<dyn Environment> = environment.clone();
        let [store, bus] =
            [STORE_PORT, BUS_PORT].map(|port| Client::start(&node, &format!("{BROKER}:{port}")));
        let mut state = self.state();
        let machine = state.machines.entry(host.to_owned()).or_default();
        machine.begin([store.clone(), bus.clone()], Arc::downgrade(environment));
        drop(state);
        let (hosts, environment) = (Arc::downgrade(self), environment.clone());
        let landing = move |host: &str| {
            if let Some(hosts) = hosts.upgrade() {
                hosts.land(host);
            }
            environment.arrive();
        };
        self.orders.give(Order::Begin { host: host.to_owned(), landing: Box::new(landing) });
        let store = Arc::new(WireDiscovery::new(store, profile.discovery));
        let cable = HostCable { hosts: Arc::downgrade(self), host: host.to_owned(), store: store.clone() };
        (store, Arc::new(WireMessaging::new(bus, profile.messaging)), Arc::new(cable))
    }

    /// Ends the servers, and with them what they keep for nodes of whose end they were not told.
    pub(crate) fn end(&self) {
        self.state().servers.iter().for_each(|server| server.set(link::Server::Down));
    }

    /// Waits until what was ended is gone, and counts the tasks that nobody owns.
    pub(crate) async fn stray_tasks(&self, broker: &SimEnvironment) -> usize {
        sleep(TICK * (STEPS_TO_DIE + 2)).await;
        let state = self.state();
        let here = Handle::current().metrics().num_alive_tasks();
        let served: usize = state.servers.iter().map(Server::tasks).sum();
        let on_hosts: usize = state.machines.values().map(Machine::stray_tasks).sum();
        state.stray + on_hosts + here.saturating_sub(broker.tasks() + served)
    }

    /// The machine is up: on it, and before anything else runs there.
    fn land(&self, host: &str) {
        let mut state = self.state();
        let (dark, lit) = (state.others(host, Machine::is_dark), state.others(host, Machine::is_up));
        let Some(machine) = state.machines.get_mut(host) else { return };
        let was_dark = machine.land(Handle::current());
        dark.iter().for_each(|other| turmoil::partition(host, other.as_str()));
        if was_dark {
            turmoil::repair(host, BROKER);
            lit.iter().for_each(|other| turmoil::repair(host, other.as_str()));
        }
        state.enforce(host);
    }

    /// A life is over; its host is told by and by, when its tasks are gone.
    fn die(&self, host: &str, death: Death) {
        let mut state = self.state();
        let others = state.others(host, Machine::is_known);
        let Some(machine) = state.machines.get_mut(host) else { return };
        let known = machine.is_known();
        let clients = machine.die(death);
        if known && death == Death::PowerLoss {
            // First: its connections are closed with its tasks, and nobody may learn of it.
            turmoil::partition(host, BROKER);
            others.iter().for_each(|other| turmoil::partition(host, other.as_str()));
        }
        drop(state);
        drop(clients);
        self.orders.give(Order::End { host: host.to_owned(), death });
    }

    /// The host ends what is left of a life: how much that is.
    pub(super) fn bury(&self, host: &str) {
        let mut state = self.state();
        let stray = state.machines.get(host).map_or(0, Machine::stray_tasks);
        state.stray += stray;
        if let Some(machine) = state.machines.get_mut(host) {
            machine.bury();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no code panics while it holds the lock")
    }
}

impl fmt::Debug for Hosts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hosts").finish_non_exhaustive()
    }
}

impl State {
    /// The other hosts that are such.
    fn others(&self, host: &str, are: impl Fn(&Machine) -> bool) -> Vec<String> {
        let others = self.machines.iter().filter(|(name, machine)| *name != host && are(machine));
        others.map(|(name, _)| name.clone()).collect()
    }

    /// Has the network do what the windows of a machine say. Where nothing passes either way, the seed decides
    /// whether what was sent is sent again afterwards, or the connections are lost.
    fn enforce(&mut self, host: &str) {
        let lossy = self.streams.next("partition").is_multiple_of(2);
        let Some(machine) = self.machines.get_mut(host).filter(|machine| machine.is_up()) else { return };
        let Some((before, now)) = machine.blockade(lossy) else { return };
        match before {
            Blockade::Open => {}
            // What is held goes on its way, if the way is open now.
            Blockade::Held if now == Blockade::Open => turmoil::release(host, BROKER),
            _ => turmoil::repair(host, BROKER),
        }
        match now {
            Blockade::Open => {}
            Blockade::ToBroker => turmoil::partition_oneway(host, BROKER),
            Blockade::FromBroker => turmoil::partition_oneway(BROKER, host),
            Blockade::Held => turmoil::hold(host, BROKER),
            Blockade::Lost => turmoil::partition(host, BROKER),
        }
    }
}

/// The way between a node and its broker, through the network of the simulation.
struct HostCable {
    hosts: Weak<Hosts>,
    host: String,
    /// The store, as the present life reaches it.
    store: Arc<WireDiscovery>,
}

impl HostCable {
    fn machine(&self, act: impl FnOnce(&mut Machine)) {
        let Some(hosts) = self.hosts.upgrade() else { return };
        let mut state = hosts.state();
        if let Some(machine) = state.machines.get_mut(&self.host) {
            act(machine);
        }
        state.enforce(&self.host);
    }

    fn tune(&self, act: impl FnOnce(&mut Machine)) {
        let mut latency = None;
        self.machine(|machine| {
            act(machine);
            latency = Some(machine.latency());
        });
        if let (Some(hosts), Some((min, max))) = (self.hosts.upgrade(), latency) {
            hosts.orders.give(Order::Tune { host: self.host.clone(), min, max });
        }
    }
}

impl Cable for HostCable {
    fn hold(&self, to_broker: bool, from_broker: bool, held: bool) {
        self.machine(|machine| machine.hold(to_broker, from_broker, held));
    }

    fn refuse(&self, refused: bool) {
        self.machine(|machine| machine.refuse(refused));
    }

    fn delay(&self, by: Duration, delayed: bool) {
        self.tune(|machine| machine.delay(by, delayed));
    }

    fn set_latency(&self, latency: Latency) {
        self.tune(|machine| machine.set_latency(latency));
    }

    fn set_server(&self, side: Side, server: link::Server) -> link::Server {
        if let Some(hosts) = self.hosts.upgrade() {
            hosts.state().servers[side as usize].set(server);
        }
        // Who has no leader answers all the same; what becomes of a call is up to the link.
        if server == link::Server::Electing { server } else { link::Server::Running }
    }

    fn commit(&self, request: u64, txn: Txn) -> BoxFuture<'static, Result<Commit>> {
        let store = self.store.clone();
        Box::pin(async move { store.commit_as(request, txn).await })
    }

    fn die(&self, death: Death) {
        if let Some(hosts) = self.hosts.upgrade() {
            hosts.die(&self.host, death);
        }
    }
}

/// The host of a life of a node: all of them have the same.
fn host_of(name: &str) -> &str {
    name.split_once('#').map_or(name, |(host, _life)| host)
}
