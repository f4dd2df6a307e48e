use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use slipring_core::{Discovery, EnvironmentExt, Error, Key, ReadConsistency, Result, Txn};
use slipring_memory::store::Saved;
use tokio::time::{Instant, sleep, sleep_until};

use super::{BROKER, BURIED_AFTER, Node, World, lock};
use crate::fault::{Direction, Fault};
use crate::history::{Death, Event};
use crate::link::{Link, Server, Side};
use crate::network::Trouble;
use crate::schedule::{Schedule, Step};

/// What leases get beyond their time to live after a restart and under a new leader: etcd's election timeout.
const EXTENSION: Duration = Duration::from_secs(1);

/// How something ends that a fault began.
type End = Box<dyn FnOnce(&World) + Send>;

impl World {
    /// Has a fault strike now. What lasts ends by itself.
    ///
    /// # Errors
    /// `NotFound` for a node that never lived; `Unsupported` for [`Fault::StaleReads`] where the profile
    /// promises that reads are linearizable, and on turmoil for what goes wrong between nodes.
    pub fn apply(&self, fault: &Fault) -> Result<()> {
        let nodes = fault.nodes().into_iter().map(|name| self.known(name)).collect::<Result<Vec<Node>>>()?;
        let promised = self.shared.memory.profile().discovery.read;
        if matches!(fault, Fault::StaleReads { .. }) && promised == ReadConsistency::Linearizable {
            let hint = "the profile promises linearizable reads; give it `Sequential` ones";
            return Err(Error::unsupported("stale reads", hint));
        }
        let between_nodes = nodes.len() > 1 || matches!(fault, Fault::Isolate { .. });
        if between_nodes && self.shared.network.between_nodes().is_none() {
            return Err(Error::unsupported("a fault between nodes", "it strikes in a world in memory"));
        }
        self.tell(Event::Struck(fault.clone()));
        match (fault, &*nodes) {
            (fault, []) => self.strike_broker(fault),
            (fault, [node]) => self.strike_node(fault, node),
            (fault, _) => self.strike_network(fault),
        }
        Ok(())
    }

    /// Has the operations of a schedule given to their nodes and its faults strike, each at its time from now.
    /// Returns at once. What cannot be, because its node never lived, or is down and asked to do something, is a
    /// note in the history.
    pub fn play(&self, schedule: Schedule) {
        let (began, weak) = (Instant::now(), Arc::downgrade(&self.shared));
        lock(&self.shared.plays_until).replace(began + schedule.end());
        let play = async move {
            for step in schedule.steps() {
                sleep_until(began + step.at()).await;
                let Some(shared) = weak.upgrade() else { return };
                let world = World { shared };
                match step {
                    Step::Fault(timed) => {
                        if let Err(error) = world.apply(&timed.fault) {
                            world.note(format_args!("{timed}: {error}"));
                        }
                    }
                    Step::Operation(operation) => {
                        if let Err(error) = world.ask(&operation.node, &operation.what) {
                            world.note(format_args!("{operation}: {error}"));
                        }
                    }
                }
            }
        };
        self.shared.broker.start("schedule", play).detach();
    }

    /// Returns a moment after the [schedule](Self::play) is over: its last operation is given, and its last
    /// fault that ends has ended. At once if none is played.
    pub async fn calm(&self) {
        let until = *lock(&self.shared.plays_until);
        if let Some(until) = until {
            sleep_until(until + Duration::from_millis(1)).await;
        }
    }

    /// Gives a node an operation: its program finds it in [`Node::operation`].
    ///
    /// # Errors
    /// `NotFound` for a node that never lived; `Unavailable` for one that is down, or that has left
    /// [`OPERATIONS_MAX`](Self::OPERATIONS_MAX) operations lying.
    pub fn ask(&self, node: &str, what: &str) -> Result<()> {
        self.known(node)?.ask(what)
    }

    /// How many operations may lie before a node that does not take them.
    pub const OPERATIONS_MAX: usize = 1_024;

    fn strike_node(&self, fault: &Fault, node: &Node) {
        match fault {
            Fault::Cut { lasts, .. } => self.window(fault, *lasts, |link, begins| link.refuse(begins)),
            Fault::Partition { lost, lasts, .. } => {
                let to_broker = *lost != Direction::FromBroker;
                let from_broker = *lost != Direction::ToBroker;
                self.window(fault, *lasts, move |link, begins| link.hold(to_broker, from_broker, begins));
            }
            Fault::Delay { by, lasts, .. } => {
                let by = *by;
                self.window(fault, *lasts, move |link, begins| link.delay(by, begins));
            }
            Fault::StallWatches { lasts, .. } => {
                self.window(fault, *lasts, |link, begins| link.stall(begins));
            }
            Fault::Isolate { node: name, lasts } => {
                self.disturb_network(*lasts, Trouble::Held, Some(name), None);
                self.disturb_network(*lasts, Trouble::Held, None, Some(name));
                self.window(fault, *lasts, |link, begins| link.hold(true, true, begins));
            }
            Fault::Latency { latency, .. } => node.link().set_latency(*latency),
            Fault::LoseRequest { .. } => node.link().lose_next_request(),
            Fault::LoseReply { .. } => node.link().lose_next_reply(),
            Fault::LoseHeartbeats { beats, executed, .. } => node.link().lose_heartbeats(*beats, *executed),
            Fault::LosePublish { .. } => node.link().lose_next_publish(),
            Fault::ResetWatches { .. } => node.link().reset_watches(),
            Fault::ResetBus { .. } => node.link().reset_bus(),
            Fault::Overload { lasts, .. } => {
                self.window(fault, *lasts, |link, begins| link.overload(begins));
            }
            Fault::StaleReads { lasts, .. } => {
                let content = self.shared.memory.entries();
                self.window(fault, *lasts, move |link, begins| {
                    link.go_stale(begins.then(|| content.clone()));
                });
            }
            Fault::Cancel { waits, .. } => node.cancel(*waits),
            Fault::Crash { down, .. } => self.kill(fault, node, Death::Crash, *down),
            Fault::PowerLoss { down, .. } => self.kill(fault, node, Death::PowerLoss, *down),
            Fault::Pause { lasts, suspended, .. } => {
                let (environment, suspended, lasts) = (node.environment(), *suspended, *lasts);
                environment.pause();
                self.heal(fault, lasts, move |_| {
                    if suspended {
                        environment.jump_forward(lasts);
                    }
                    environment.resume();
                });
            }
            Fault::WallClock { ahead_ms, .. } => {
                let by = Duration::from_millis(ahead_ms.unsigned_abs());
                let environment = node.environment();
                if *ahead_ms < 0 { environment.jump_back(by) } else { environment.jump_forward(by) }
            }
            _ => unreachable!("this fault names no node: {fault}"),
        }
    }

    fn strike_network(&self, fault: &Fault) {
        match fault {
            Fault::PartitionNodes { from, to, both_ways, lasts } => {
                self.disturb_network(*lasts, Trouble::Held, Some(from), Some(to));
                if *both_ways {
                    self.disturb_network(*lasts, Trouble::Held, Some(to), Some(from));
                }
                self.heal(fault, *lasts, |_| ());
            }
            Fault::CutNodes { from, to, lasts } => {
                self.disturb_network(*lasts, Trouble::Refused, Some(from), Some(to));
                self.heal(fault, *lasts, |_| ());
            }
            Fault::DelayNodes { from, to, by, lasts } => {
                self.disturb_network(*lasts, Trouble::Delayed(*by), Some(from), Some(to));
                self.heal(fault, *lasts, |_| ());
            }
            _ => unreachable!("this fault strikes no pair of nodes: {fault}"),
        }
    }

    fn strike_broker(&self, fault: &Fault) {
        match fault {
            Fault::CutAll { lasts } => {
                let names: Vec<String> = self.places().keys().cloned().collect();
                let set = move |world: &World, begins| {
                    let nodes = names.iter().filter_map(|name| world.known(name).ok());
                    nodes.for_each(|node| node.link().refuse(begins));
                };
                set(self, true);
                self.heal(fault, *lasts, move |world| set(world, false));
            }
            Fault::ClockRate { ppm } => self.shared.memory.set_clock_rate_ppm(*ppm),
            Fault::EndLease { from } => self.end_lease(from),
            Fault::PauseStore { lasts } => {
                let end = self.disturb(Side::Store, Server::Stopped, false);
                self.heal(fault, *lasts, end);
            }
            Fault::LeaderChange { lasts } => {
                let end = self.disturb(Side::Store, Server::Electing, true);
                self.heal(fault, *lasts, end);
            }
            Fault::RestartStore { down, ready } => {
                let end = self.disturb(Side::Store, Server::Down, true);
                let (again, ready) = (fault.clone(), *ready);
                self.after(*down, move |world| {
                    let starting = world.disturb(Side::Store, Server::Stopped, true);
                    end(world);
                    world.heal(&again, ready, starting);
                });
            }
            Fault::RestartBus { down } => {
                let end = self.disturb(Side::Bus, Server::Down, false);
                self.heal(fault, *down, end);
            }
            Fault::Compact => self.shared.memory.compact(),
            Fault::Save => *lock(&self.shared.saved) = Some(self.shared.memory.export()),
            Fault::Restore => {
                let saved = lock(&self.shared.saved).clone();
                self.restore(saved.unwrap_or_else(Saved::empty));
            }
            Fault::Empty => self.restore(Saved::empty()),
            Fault::DeleteKey { from } => self.delete_key(from),
            _ => unreachable!("this fault names a node: {fault}"),
        }
    }

    /// A fault of a node's link, which outlives the node: its next life finds it.
    fn window(&self, fault: &Fault, lasts: Duration, set: impl Fn(&Link, bool) + Send + 'static) {
        let name = fault.node().expect("it is a fault of a link").to_owned();
        let set = move |world: &World, begins| {
            if let Ok(node) = world.known(&name) {
                set(node.link(), begins);
            }
        };
        set(self, true);
        self.heal(fault, lasts, move |world| set(world, false));
    }

    fn kill(&self, fault: &Fault, node: &Node, death: Death, down: Option<Duration>) {
        if !node.is_alive() {
            return;
        }
        node.die(death);
        if death == Death::PowerLoss {
            let link = node.link().clone();
            lock(&self.shared.graves).push(link.clone());
            self.after(BURIED_AFTER, move |_| link.bury());
        }
        let (Some(down), Some(name)) = (down, fault.node()) else { return };
        let name = name.to_owned();
        self.heal(fault, down, move |world| drop(world.node(&name)));
    }

    /// A server does less; the end of it. `revives`: as one that starts anew.
    fn disturb(&self, side: Side, server: Server, revives: bool) -> End {
        let number = {
            let mut servers = lock(&self.shared.servers);
            servers.revives |= revives;
            servers.open(side, server)
        };
        if side == Side::Store {
            self.shared.memory.pause();
        }
        self.tell_links(side);
        Box::new(move |world| {
            let revives = {
                let mut servers = lock(&world.shared.servers);
                servers.close(number);
                let runs = servers.state(side) == Server::Running;
                (side == Side::Store && runs).then(|| std::mem::take(&mut servers.revives))
            };
            match revives {
                Some(true) => world.shared.memory.revive(EXTENSION),
                Some(false) => world.shared.memory.resume(),
                None => {}
            }
            world.tell_links(side);
        })
    }

    fn tell_links(&self, side: Side) {
        let server = lock(&self.shared.servers).state(side);
        let links: Vec<Link> = self.places().values().map(|place| place.node.link().clone()).collect();
        links.iter().for_each(|link| link.set_server(side, server));
    }

    fn delete_key(&self, from: &str) {
        let entries = self.shared.memory.entries().entries;
        let keys = || entries.iter().map(|entry| &entry.key);
        let key: Option<&Key> = keys().find(|key| key.as_str() >= from).or_else(|| keys().next());
        if let Some(key) = key {
            let delete = self.shared.memory.discovery().commit(Txn::new().delete(key.clone())).now_or_never();
            assert!(matches!(delete, Some(Ok(_))), "a store in memory answers at once: {delete:?}");
        }
    }

    fn end_lease(&self, from: &str) {
        let entries = self.shared.memory.entries().entries;
        let leased = || entries.iter().filter_map(|entry| Some((&entry.key, entry.lease?)));
        let lease = leased().find(|(key, _)| key.as_str() >= from).or_else(|| leased().next());
        if let Some((_, lease)) = lease {
            let end = self.shared.memory.discovery().revoke(lease).now_or_never();
            assert!(matches!(end, Some(Ok(()))), "a store in memory answers at once: {end:?}");
        }
    }

    /// Something is wrong between nodes for a while.
    fn disturb_network(&self, lasts: Duration, trouble: Trouble, from: Option<&str>, to: Option<&str>) {
        let Some(network) = self.shared.network.between_nodes().cloned() else { return };
        let number = network.open(trouble, from, to);
        self.after(lasts, move |_| network.close(number));
    }

    /// Ends a fault at its time.
    fn heal(&self, fault: &Fault, lasts: Duration, end: impl FnOnce(&World) + Send + 'static) {
        let fault = fault.clone();
        self.after(lasts, move |world| {
            world.tell(Event::Healed(fault));
            end(world);
        });
    }

    fn after(&self, delay: Duration, act: impl FnOnce(&World) + Send + 'static) {
        let weak = Arc::downgrade(&self.shared);
        let later = async move {
            sleep(delay).await;
            if let Some(shared) = weak.upgrade() {
                act(&World { shared });
            }
        };
        self.shared.broker.start("fault", later).detach();
    }

    /// The present or last life of a node.
    fn known(&self, name: &str) -> Result<Node> {
        let places = self.places();
        let node = places.get(name).map(|place| place.node.clone());
        node.ok_or_else(|| Error::not_found(format!("node {name}"), places.keys().cloned().collect()))
    }

    fn tell(&self, event: Event) {
        self.shared.log.add(&BROKER.into(), event);
    }
}
