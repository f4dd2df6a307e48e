use std::sync::{Arc, Weak};
use std::time::Duration;

use slipring_core::Snapshot;

use super::LinkMode;
use super::messaging::Line;
use super::routed::Routed;
use crate::history::Death;
use crate::latency::Latency;

/// A direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    ToBroker,
    FromBroker,
}

/// Which of the two servers behind a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Store,
    Bus,
}

/// What a server does; the worse, the greater.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Server {
    /// It serves.
    #[default]
    Running,
    /// It has no leader: calls wait for the next one, or went to the last one and are lost with it.
    Electing,
    /// It is there and does nothing: calls wait, watches are silent.
    Stopped,
    /// It is not there: connections are refused.
    Down,
}

/// What becomes of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flow {
    Open,
    Cut,
    Held,
}

/// All that a link knows. Counters are windows of faults, which may overlap.
#[derive(Default)]
pub(super) struct State {
    /// What was ordered by hand.
    pub(super) mode: LinkMode,
    /// What of that the link does itself.
    pub(super) kept: LinkMode,
    pub(super) death: Option<Death>,
    pub(super) refused: u32,
    pub(super) held: [u32; 2],
    pub(super) stalled: u32,
    pub(super) servers: [Server; 2],
    /// How often the link was cut, and each server went down; a connection lives while these stand still.
    pub(super) cuts: u64,
    pub(super) server_cuts: [u64; 2],
    /// How often the watches alone were reset.
    pub(super) watch_resets: u64,
    pub(super) overloaded: u32,
    /// What is read instead of the store's content, and by how many faults.
    pub(super) stale: Option<Arc<Snapshot>>,
    pub(super) stale_windows: u32,
    pub(super) requests_to_lose: u32,
    pub(super) replies_to_lose: u32,
    /// Heartbeats, before and after they are executed.
    pub(super) beats_to_lose: [u32; 2],
    pub(super) publishes_to_lose: u32,
    pub(super) latency: Latency,
    pub(super) delay: Duration,
    pub(super) subscriptions: Vec<Weak<Line>>,
    /// Subscriptions of a node that lost power, of which the broker does not know.
    pub(super) ghosts: Vec<Routed>,
}

impl State {
    pub(super) fn flow(&self, side: Side, way: Way) -> Flow {
        let server = self.servers[side as usize];
        match self.death {
            Some(Death::Crash) => Flow::Cut,
            Some(Death::PowerLoss) => Flow::Held,
            None if self.kept == LinkMode::Cut || self.refused > 0 || server == Server::Down => Flow::Cut,
            None if self.kept == LinkMode::Silent || self.held[way as usize] > 0 => Flow::Held,
            None if server != Server::Running => Flow::Held,
            None => Flow::Open,
        }
    }

    /// The number of the connection that would be made now.
    pub(super) fn life(&self, side: Side) -> u64 {
        self.cuts + self.server_cuts[side as usize]
    }
}
