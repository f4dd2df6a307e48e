use std::fmt;
use std::time::Duration;

use super::{Direction, Fault};

/// In a few words, with all that is in it.
impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cut { node, lasts } => write!(f, "cut {node} for {lasts:?}"),
            Self::Partition { node, lost, lasts } => write!(f, "partition {node} {lost} for {lasts:?}"),
            Self::Isolate { node, lasts } => write!(f, "isolate {node} for {lasts:?}"),
            Self::PartitionNodes { from, to, both_ways, lasts } => {
                let way = if *both_ways { "and" } else { "to" };
                write!(f, "partition {from} {way} {to} for {lasts:?}")
            }
            Self::CutNodes { from, to, lasts } => write!(f, "cut {from} and {to} for {lasts:?}"),
            Self::DelayNodes { from, to, by, lasts } => {
                write!(f, "delay from {from} to {to} by {by:?} for {lasts:?}")
            }
            Self::Latency { node, latency } => write!(f, "latency of {node} {latency}"),
            Self::Delay { node, by, lasts } => write!(f, "delay {node} by {by:?} for {lasts:?}"),
            Self::LoseRequest { node } => write!(f, "lose a request of {node}"),
            Self::LoseReply { node } => write!(f, "lose a reply to {node}"),
            Self::LoseHeartbeats { node, beats, executed: false } => {
                write!(f, "lose {beats} heartbeats of {node}")
            }
            Self::LoseHeartbeats { node, beats, executed: true } => {
                write!(f, "lose the replies to {beats} heartbeats of {node}")
            }
            Self::LosePublish { node } => write!(f, "lose a message that {node} publishes"),
            Self::Overload { node, lasts } => write!(f, "too many calls of {node} for {lasts:?}"),
            Self::ResetWatches { node } => write!(f, "reset the watches of {node}"),
            Self::ResetBus { node } => write!(f, "the bus drops its connection to {node}"),
            Self::StaleReads { node, lasts } => write!(f, "stale reads of {node} for {lasts:?}"),
            Self::Cancel { node, waits } => write!(f, "cancel at {node} after {waits} waits"),
            Self::StallWatches { node, lasts } => write!(f, "stall the watches of {node} for {lasts:?}"),
            Self::Crash { node, down } => write!(f, "crash {node} {}", Down(*down)),
            Self::PowerLoss { node, down } => write!(f, "power loss of {node} {}", Down(*down)),
            Self::Pause { node, lasts, suspended: false } => write!(f, "pause {node} for {lasts:?}"),
            Self::Pause { node, lasts, suspended: true } => write!(f, "suspend {node} for {lasts:?}"),
            Self::WallClock { node, ahead_ms } => write!(f, "wall time of {node} jumps by {ahead_ms} ms"),
            Self::CutAll { lasts } => write!(f, "cut everybody for {lasts:?}"),
            Self::ClockRate { ppm } => write!(f, "the clock of the store runs at {ppm} ppm"),
            Self::EndLease { from } => write!(f, "end a lease before its time, from {from:?} on"),
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
