use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use slipring_core::{Discovery, EnvironmentExt, Error, Key, Result, Txn};
use slipring_memory::store::Saved;
use tokio::time::{Instant, sleep, sleep_until};

use super::{BROKER, BURIED_AFTER, Node, World, lock};
use crate::fault::{Direction, Fault};
use crate::history::{Death, Event};
use crate::link::{Link, Server, Side};
use crate::schedule::{Schedule, Step};

/// What leases get beyond their time to live after a restart and under a new leader: etcd's election timeout.
const EXTENSION: Duration = Duration::from_secs(1);

/// How something ends that a fault began.
type End = Box<dyn FnOnce(&World) + Send>;

impl World {
    /// Has a fault strike now. What lasts ends by itself.
    ///
    /// # Errors
    /// `NotFound` for a node that never lived.
    pub fn apply(&self, fault: &Fault) -> Result<()> {
        let node = fault.node().map(|name| self.known(name)).transpose()?;
        self.tell(Event::Struck(fault.clone()));
        match (fault, node) {
            (fault, Some(node)) => self.strike_node(fault, &node),
            (fault, None) => self.strike_broker(fault),
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
            Fault::Latency { latency, .. } => node.link().set_latency(*latency),
            Fault::LoseRequest { .. } => node.link().lose_next_request(),
            Fault::LoseReply { .. } => node.link().lose_next_reply(),
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

    fn strike_broker(&self, fault: &Fault) {
        match fault {
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
