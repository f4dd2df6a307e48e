pub(crate) mod millis;
mod shown;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Latency;

/// Something that goes wrong, as a value: it prints, compares, and is written to a schedule file.
///
/// A fault that `lasts` ends by itself. Faults of the same kind may overlap: the last to end ends them. Times
/// are in whole milliseconds.
///
/// # The catalogue
#[doc = include_str!("fault/catalogue.md")]
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Fault {
    /// F1 on the wire: the connections of a node are reset, and refused until it ends.
    Cut {
        /// The node.
        node: String,
        /// How long.
        #[serde(rename = "lasts_ms", with = "millis")]
        lasts: Duration,
    },
    /// F5, F6: nothing passes between a node and the broker, in both directions or in one; nobody is told.
    /// What is under way arrives after the end.
    Partition {
        /// The node.
        node: String,
        /// Which messages do not pass.
        lost: Direction,
        /// How long.
        #[serde(rename = "lasts_ms", with = "millis")]
        lasts: Duration,
    },
    /// F5: nothing passes between a node and anybody: the broker and all other nodes. What is under way arrives
    /// after the end.
    Isolate {
        /// The node.
        node: String,
        /// How long.
        #[serde(rename = "lasts_ms", with = "millis")]
        lasts: Duration,
    },
    /// F5, F6: nothing passes from one node to another, or between the two; nobody is told. What is under way
    /// arrives after the end, and an attempt to connect waits for it.
    PartitionNodes {
        /// Who is not heard.
        from: String,
        /// Who does not hear.
        to: String,
        /// Not the other way round either?
        both_ways: bool,
        /// How long.
        #[serde(rename = "lasts_ms", with = "millis")]
        lasts: Duration,
    },
    /// F1 on the wire: the connections between two nodes are reset, and refused until it ends.
    CutNodes {
        /// One of them.
        from: String,
        /// The other.
        to: String,
        /// How long.
        #[serde(rename = "lasts_ms", with = "millis")]
        lasts: Duration,
    },
    /// F8: for a while what one node sends to another takes longer.
    DelayNodes {
        /// Who sends.
        from: String,
        /// To whom.
        to: String,
        /// How much longer.
        #[serde(rename = "by_ms", with = "millis")]
        by: Duration,
        /// How long.
        #[serde(rename = "lasts_ms", with = "millis")]
        lasts: Duration,
    },
    /// F12: from now on messages to and from the broker take this long in each direction.
    Latency {
        /// The node.
        node: String,
        /// How long they take.
        latency: Latency,
    },
    /// F8: for a while messages take longer.
    Delay {
        /// The node.
        node: String,
        /// How much longer in each direction.
        #[serde(rename = "by_ms", with = "millis")]
        by: Duration,
        /// How long.
        #[serde(rename = "lasts_ms", with = "millis")]
        lasts: Duration,
    },
    /// F17: the next call with an effect is lost before it is executed; its caller cannot know.
    LoseRequest {
        /// The node.
        node: String,
    },
    /// F18: the next call with an effect is executed, but its reply is lost; its caller cannot know.
    LoseReply {
        /// The node.
        node: String,
    },
    /// F23: the next heartbeats are lost, each before or after it is executed; their caller cannot know.
    LoseHeartbeats {
        /// The node.
        node: String,
        /// How many.
        beats: u32,
        /// Do they reach the store, so that their answers are what is lost?
        executed: bool,
    },
    /// F10, F33: the next message that a node publishes is taken and never arrives; nobody is told.
    LosePublish {
        /// The node.
        node: String,
    },
    /// F19: for a while the store refuses the calls of a node because it has too many; none is executed.
    Overload {
        /// The node.
        node: String,
        /// How long.
        #[serde(rename = "lasts_ms", with = "millis")]
        lasts: Duration,
    },
    /// F27: the watches of a node end between two batches; the connection remains, and other calls go on.
    ResetWatches {
        /// The node.
        node: String,
    },
    /// F32: the bus closes the connection of a node, as that of a slow consumer; a new one is made at once.
    ResetBus {
        /// The node.
        node: String,
    },
    /// F30: for a while a node reads what the store held when this began, as from a member that lags behind. Only
    /// where the profile does not promise better, and never drawn.
    StaleReads {
        /// The node.
        node: String,
        /// How long.
        #[serde(rename = "lasts_ms", with = "millis")]
        lasts: Duration,
    },
    /// F37: drops one of the futures that a node runs as [cancellable](crate::Node::cancellable), at one of its
    /// await points. Never drawn.
    Cancel {
        /// The node.
        node: String,
        /// After how many more waits of such futures of the node; 0: where one waits now.
        waits: u32,
    },
    /// F25: for a while nobody reads the watches of a node; what they have to say waits in the store.
    StallWatches {
        /// The node.
        node: String,
        /// How long.
        #[serde(rename = "lasts_ms", with = "millis")]
        lasts: Duration,
    },
    /// F1: a process dies, and its connections are reset.
    Crash {
        /// The node.
        node: String,
        /// After how long it begins anew, with nothing left; `null`: never.
        #[serde(rename = "down_ms", with = "millis::optional")]
        down: Option<Duration>,
    },
    /// F2: a machine dies; nobody is told.
    PowerLoss {
        /// The node.
        node: String,
        /// After how long it begins anew, with nothing left; `null`: never.
        #[serde(rename = "down_ms", with = "millis::optional")]
        down: Option<Duration>,
    },
    /// F13, F41: the tasks of a node do not run for a while.
    Pause {
        /// The node.
        node: String,
        /// How long.
        #[serde(rename = "lasts_ms", with = "millis")]
        lasts: Duration,
        /// Was the machine suspended? Then its wall time jumps ahead of its monotonic clock by that time.
        suspended: bool,
    },
    /// F15, F16: the wall time of a node jumps; ahead, or back if it is negative.
    WallClock {
        /// The node.
        node: String,
        /// How far, in milliseconds.
        ahead_ms: i64,
    },
    /// F36: the connections of all nodes to the broker are reset at once, and refused until it ends.
    CutAll {
        /// How long.
        #[serde(rename = "lasts_ms", with = "millis")]
        lasts: Duration,
    },
    /// F16: from now on the store's clock runs at this rate against the clock of the nodes.
    ClockRate {
        /// In millionths, at least 1: a million is as fast.
        ppm: u32,
    },
    /// F21: a leader that is none any more ends a lease before its time: that of the first key at or after this
    /// text that has one, or else of the first of all. It breaks what the store promises, as etcd did, and is
    /// never drawn.
    EndLease {
        /// Where to begin.
        from: String,
    },
    /// F14: the store stops for a while; leases that were due meanwhile end at once when it goes on.
    PauseStore {
        /// How long.
        #[serde(rename = "lasts_ms", with = "millis")]
        lasts: Duration,
    },
    /// F3: the store's server restarts: connections are reset and refused, then calls wait until it is ready.
    /// All leases have their whole time again then.
    RestartStore {
        /// How long it is not there.
        #[serde(rename = "down_ms", with = "millis")]
        down: Duration,
        /// How long calls wait after that.
        #[serde(rename = "ready_ms", with = "millis")]
        ready: Duration,
    },
    /// F20: the store has no leader for a while: calls wait for one or are lost, watches are silent and live
    /// on. All leases have their whole time again under the new leader.
    LeaderChange {
        /// How long.
        #[serde(rename = "lasts_ms", with = "millis")]
        lasts: Duration,
    },
    /// The server of the bus restarts: connections are reset, and refused until it is there again.
    RestartBus {
        /// How long it is not there.
        #[serde(rename = "down_ms", with = "millis")]
        down: Duration,
    },
    /// F25, F26: the store forgets all history but the newest revision.
    Compact,
    /// Keeps the content of the store for [`Restore`](Self::Restore).
    Save,
    /// F39: the store has the content that was saved last again; none if none was.
    Restore,
    /// F39: the store is emptied.
    Empty,
    /// F40: a key is deleted behind its owner's back, as long as there is any: the first at or after this
    /// text, or else the first of all.
    DeleteKey {
        /// Where to begin.
        from: String,
    },
}

/// Messages of one direction, or of both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// Those that the node sends: the broker does not hear it.
    ToBroker,
    /// Those that the broker sends: the node does not hear it.
    FromBroker,
    /// All.
    Both,
}

impl Fault {
    /// The node that it strikes, if it strikes one; of two, the one that sends.
    pub fn node(&self) -> Option<&str> {
        self.nodes().into_iter().next()
    }

    /// The nodes that it strikes.
    pub fn nodes(&self) -> Vec<&str> {
        match self {
            Self::Cut { node, .. }
            | Self::Partition { node, .. }
            | Self::Isolate { node, .. }
            | Self::Latency { node, .. }
            | Self::Delay { node, .. }
            | Self::LoseRequest { node }
            | Self::LoseReply { node }
            | Self::LoseHeartbeats { node, .. }
            | Self::LosePublish { node }
            | Self::Overload { node, .. }
            | Self::ResetWatches { node }
            | Self::ResetBus { node }
            | Self::StaleReads { node, .. }
            | Self::Cancel { node, .. }
            | Self::StallWatches { node, .. }
            | Self::Crash { node, .. }
            | Self::PowerLoss { node, .. }
            | Self::Pause { node, .. }
            | Self::WallClock { node, .. } => vec![node],
            Self::PartitionNodes { from, to, .. }
            | Self::CutNodes { from, to, .. }
            | Self::DelayNodes { from, to, .. } => vec![from, to],
            _ => Vec::new(),
        }
    }

    /// The times in it.
    pub(crate) fn times(&mut self) -> Vec<&mut Duration> {
        match self {
            Self::Cut { lasts, .. }
            | Self::Partition { lasts, .. }
            | Self::Isolate { lasts, .. }
            | Self::PartitionNodes { lasts, .. }
            | Self::CutNodes { lasts, .. }
            | Self::Overload { lasts, .. }
            | Self::StaleReads { lasts, .. }
            | Self::StallWatches { lasts, .. }
            | Self::Pause { lasts, .. }
            | Self::CutAll { lasts }
            | Self::PauseStore { lasts }
            | Self::LeaderChange { lasts } => vec![lasts],
            Self::Delay { by, lasts, .. } | Self::DelayNodes { by, lasts, .. } => vec![by, lasts],
            Self::Crash { down, .. } | Self::PowerLoss { down, .. } => down.iter_mut().collect(),
            Self::RestartStore { down, ready } => vec![down, ready],
            Self::RestartBus { down } => vec![down],
            _ => Vec::new(),
        }
    }
}
