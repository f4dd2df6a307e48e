use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Latency;

/// Something that goes wrong, as a value: it prints, compares, and is written to a schedule file.
///
/// A fault that `lasts` ends by itself. Faults of the same kind may overlap: the last to end ends them. Times
/// are in whole milliseconds.
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
    /// F12: from now on messages take this long in each direction.
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
        #[serde(rename = "down_ms", with = "optional_millis")]
        down: Option<Duration>,
    },
    /// F2: a machine dies; nobody is told.
    PowerLoss {
        /// The node.
        node: String,
        /// After how long it begins anew, with nothing left; `null`: never.
        #[serde(rename = "down_ms", with = "optional_millis")]
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
    /// The node that it strikes, if it strikes one.
    pub fn node(&self) -> Option<&str> {
        match self {
            Self::Cut { node, .. }
            | Self::Partition { node, .. }
            | Self::Latency { node, .. }
            | Self::Delay { node, .. }
            | Self::LoseRequest { node }
            | Self::LoseReply { node }
            | Self::StallWatches { node, .. }
            | Self::Crash { node, .. }
            | Self::PowerLoss { node, .. }
            | Self::Pause { node, .. }
            | Self::WallClock { node, .. } => Some(node),
            _ => None,
        }
    }

    /// The times in it.
    pub(crate) fn times(&mut self) -> Vec<&mut Duration> {
        match self {
            Self::Cut { lasts, .. }
            | Self::Partition { lasts, .. }
            | Self::StallWatches { lasts, .. }
            | Self::Pause { lasts, .. }
            | Self::PauseStore { lasts }
            | Self::LeaderChange { lasts } => vec![lasts],
            Self::Delay { by, lasts, .. } => vec![by, lasts],
            Self::Crash { down, .. } | Self::PowerLoss { down, .. } => down.iter_mut().collect(),
            Self::RestartStore { down, ready } => vec![down, ready],
            Self::RestartBus { down } => vec![down],
            _ => Vec::new(),
        }
    }
}

/// In a few words, with all that is in it.
impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cut { node, lasts } => write!(f, "cut {node} for {lasts:?}"),
            Self::Partition { node, lost, lasts } => write!(f, "partition {node} {lost} for {lasts:?}"),
            Self::Latency { node, latency } => write!(f, "latency of {node} {latency}"),
            Self::Delay { node, by, lasts } => write!(f, "delay {node} by {by:?} for {lasts:?}"),
            Self::LoseRequest { node } => write!(f, "lose a request of {node}"),
            Self::LoseReply { node } => write!(f, "lose a reply to {node}"),
            Self::StallWatches { node, lasts } => write!(f, "stall the watches of {node} for {lasts:?}"),
            Self::Crash { node, down } => write!(f, "crash {node} {}", Down(*down)),
            Self::PowerLoss { node, down } => write!(f, "power loss of {node} {}", Down(*down)),
            Self::Pause { node, lasts, suspended: false } => write!(f, "pause {node} for {lasts:?}"),
            Self::Pause { node, lasts, suspended: true } => write!(f, "suspend {node} for {lasts:?}"),
            Self::WallClock { node, ahead_ms } => write!(f, "wall time of {node} jumps by {ahead_ms} ms"),
            Self::PauseStore { lasts } => write!(f, "pause the store for {lasts:?}"),
            Self::RestartStore { down, ready } => {
                write!(f, "restart the store, down for {down:?}, ready after {ready:?}")
            }
            Self::LeaderChange { lasts } => write!(f, "no leader for {lasts:?}"),
            Self::RestartBus { down } => write!(f, "restart the bus, down for {down:?}"),
            Self::Compact => f.write_str("compact"),
            Self::Save => f.write_str("save the store"),
            Self::Restore => f.write_str("restore the store"),
            Self::Empty => f.write_str("empty the store"),
            Self::DeleteKey { from } => write!(f, "delete a key from {from:?} on"),
        }
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ToBroker => "to the broker",
            Self::FromBroker => "from the broker",
            Self::Both => "both ways",
        })
    }
}

struct Down(Option<Duration>);

impl fmt::Display for Down {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(down) => write!(f, "for {down:?}"),
            None => f.write_str("for good"),
        }
    }
}

/// Durations as whole milliseconds.
pub(crate) mod millis {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        u64::deserialize(deserializer).map(Duration::from_millis)
    }
}

mod optional_millis {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(crate) fn serialize<S: Serializer>(
        time: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        time.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX)).serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(de: D) -> Result<Option<Duration>, D::Error> {
        Ok(Option::<u64>::deserialize(de)?.map(Duration::from_millis))
    }
}
