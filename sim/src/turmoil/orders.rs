//! What can only be done to a simulation from outside, between two of its steps.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::future;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use turmoil::Sim;

use super::hosts::{BROKER, Hosts};
use crate::history::Death;

/// How long each host runs in a step.
pub(super) const TICK: Duration = Duration::from_millis(1);

/// After so many steps the tasks that were aborted are gone from their hosts, and what they said is on its way.
pub(super) const STEPS_TO_DIE: u32 = 3;

/// Orders in the order in which they were given. Clones are the same.
#[derive(Clone, Default)]
pub(crate) struct Orders(Arc<Mutex<VecDeque<Order>>>);

/// What happens on a host as soon as it is up.
type Landing = Box<dyn FnOnce(&str) + Send>;

pub(super) enum Order {
    /// A host begins anew; there it lands.
    Begin { host: String, landing: Landing },
    /// A life of a host ends; after a crash the machine stays on.
    End { host: String, death: Death },
    /// Messages between a host and the broker take between these times.
    Tune { host: String, min: Duration, max: Duration },
}

impl Orders {
    pub(super) fn give(&self, order: Order) {
        self.queue().push_back(order);
    }

    fn queue(&self) -> std::sync::MutexGuard<'_, VecDeque<Order>> {
        self.0.lock().expect("no code panics while it holds the lock")
    }
}

/// Who carries them out.
pub(super) struct Harbour {
    orders: Orders,
    hosts: Arc<Hosts>,
    /// What lands next on each host that turmoil knows.
    landings: BTreeMap<String, Rc<RefCell<Option<Landing>>>>,
    /// Steps since the order that is next was.
    waited: u32,
}

impl Harbour {
    pub(super) fn new(orders: Orders, hosts: Arc<Hosts>) -> Self {
        Self { orders, hosts, landings: BTreeMap::new(), waited: 0 }
    }

    /// Carries out what is due after a step.
    pub(super) fn settle(&mut self, sim: &mut Sim<'_>) {
        loop {
            let order = {
                let mut queue = self.orders.queue();
                if matches!(queue.front(), Some(Order::End { .. })) && self.waited < STEPS_TO_DIE {
                    self.waited += 1;
                    return;
                }
                queue.pop_front()
            };
            let Some(order) = order else { return };
            self.waited = 0;
            match order {
                Order::Begin { host, landing } => self.begin(sim, host, landing),
                Order::End { host, death } => self.end(sim, &host, death),
                Order::Tune { host, min, max } => {
                    // Both bounds at once, then the upper one: they never cross.
                    sim.set_link_latency(host.as_str(), BROKER, min);
                    sim.set_link_max_message_latency(host.as_str(), BROKER, max);
                }
            }
        }
    }

    fn begin(&mut self, sim: &mut Sim<'_>, host: String, landing: Landing) {
        if let Some(next) = self.landings.get(&host) {
            next.replace(Some(landing));
            sim.bounce(host);
            return;
        }
        let next = Rc::new(RefCell::new(Some(landing)));
        self.landings.insert(host.clone(), next.clone());
        let name = host.clone();
        sim.host(host, move || {
            let (name, landing) = (name.clone(), next.take());
            async move {
                if let Some(landing) = landing {
                    landing(&name);
                }
                // What runs here are the tasks of the node.
                future::pending().await
            }
        });
    }

    fn end(&mut self, sim: &mut Sim<'_>, host: &str, death: Death) {
        self.hosts.bury(host);
        match death {
            // A process that died leaves a machine that refuses connections.
            Death::Crash => sim.bounce(host),
            Death::PowerLoss => sim.crash(host),
        }
    }
}
