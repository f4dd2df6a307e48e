use std::sync::Weak;
use std::time::Duration;

use tokio::runtime::Handle;

use crate::environment::SimEnvironment;
use crate::history::Death;
use crate::latency::Latency;
use crate::turmoil::wire::Client;

/// The machine of a node, over all its lives.
#[derive(Default)]
pub(super) struct Machine {
    power: Power,
    /// Where its present life runs.
    runtime: Option<Handle>,
    environment: Weak<SimEnvironment>,
    /// The connections of its present life.
    clients: Vec<Client>,
    /// Windows in which nothing passes, to the broker and from it.
    held: [u32; 2],
    refused: u32,
    latency: Latency,
    delay: Duration,
    /// What the network does now.
    blockade: Blockade,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Power {
    /// The network does not know it yet.
    #[default]
    Unknown,
    On,
    /// It is off, and nobody knows.
    Off,
}

/// What passes between a machine and the broker.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Blockade {
    /// Everything.
    #[default]
    Open,
    /// Nothing that goes to the broker, and it is lost.
    ToBroker,
    /// Nothing that comes from the broker, and it is lost.
    FromBroker,
    /// Nothing, until it opens.
    Held,
    /// Nothing, and it is lost.
    Lost,
}

impl Machine {
    /// Does the network know it?
    pub(super) fn is_known(&self) -> bool {
        self.power != Power::Unknown
    }

    pub(super) fn is_up(&self) -> bool {
        self.power == Power::On
    }

    pub(super) fn is_dark(&self) -> bool {
        self.power == Power::Off
    }

    /// A new life, with these connections.
    pub(super) fn begin(&mut self, clients: [Client; 2], environment: Weak<SimEnvironment>) {
        for client in &clients {
            (0..self.refused).for_each(|_| client.refuse(true));
        }
        self.clients = clients.into();
        self.environment = environment;
    }

    /// It is up, as this runtime. Was it off before?
    pub(super) fn land(&mut self, runtime: Handle) -> bool {
        self.runtime = Some(runtime);
        if self.is_dark() {
            self.blockade = Blockade::Open;
        }
        std::mem::replace(&mut self.power, Power::On) == Power::Off
    }

    /// Its life is over. Its connections, to be dropped where no lock is held.
    pub(super) fn die(&mut self, death: Death) -> Vec<Client> {
        if self.is_known() && death == Death::PowerLoss {
            self.power = Power::Off;
        }
        std::mem::take(&mut self.clients)
    }

    /// Nothing is left of the life before.
    pub(super) fn bury(&mut self) {
        self.runtime = None;
    }

    /// Tasks on it that its node does not own.
    pub(super) fn stray_tasks(&self) -> usize {
        let owned = self.environment.upgrade().map_or(0, |environment| environment.tasks());
        let alive = self.runtime.as_ref().map_or(0, |runtime| runtime.metrics().num_alive_tasks());
        alive.saturating_sub(owned)
    }

    pub(super) fn hold(&mut self, to_broker: bool, from_broker: bool, begins: bool) {
        for (windows, concerned) in self.held.iter_mut().zip([to_broker, from_broker]) {
            if concerned {
                count(windows, begins);
            }
        }
    }

    pub(super) fn refuse(&mut self, begins: bool) {
        count(&mut self.refused, begins);
        self.clients.iter().for_each(|client| client.refuse(begins));
    }

    pub(super) fn delay(&mut self, by: Duration, begins: bool) {
        self.delay = if begins { self.delay + by } else { self.delay.saturating_sub(by) };
    }

    pub(super) fn set_latency(&mut self, latency: Latency) {
        self.latency = latency;
    }

    /// The least and the most that a message takes.
    pub(super) fn latency(&self) -> (Duration, Duration) {
        (self.latency.min() + self.delay, self.latency.max() + self.delay)
    }

    /// What the network did, and what it has to do now, if that is something else.
    pub(super) fn blockade(&mut self, lossy: bool) -> Option<(Blockade, Blockade)> {
        let now = match (self.held.map(|windows| windows > 0), self.blockade) {
            ([false, false], _) => Blockade::Open,
            ([true, false], _) => Blockade::ToBroker,
            ([false, true], _) => Blockade::FromBroker,
            ([true, true], Blockade::Held | Blockade::Lost) => return None,
            // What is lost in one direction already is not held.
            ([true, true], Blockade::ToBroker | Blockade::FromBroker) => Blockade::Lost,
            ([true, true], Blockade::Open) if lossy => Blockade::Lost,
            ([true, true], Blockade::Open) => Blockade::Held,
        };
        let before = std::mem::replace(&mut self.blockade, now);
        (before != now).then_some((before, now))
    }
}

/// A window begins or ends.
fn count(windows: &mut u32, begins: bool) {
    *windows = if begins { *windows + 1 } else { windows.saturating_sub(1) };
}
