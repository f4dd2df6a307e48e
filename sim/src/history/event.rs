use std::fmt;
use std::time::Duration;

use slipring_core::{Base, Batch, Change, Commit, Lease, LeaseId, Range, Snapshot};
use slipring_memory::store::{LeaseEnd, StoreEvent};

use super::{Call, Death, Event, Letter, RequestStep, Rest, TxnStep};

impl Event {
    /// The kind of event, in one word of at most eight letters.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Note(_) => "note",
            Self::Fact(_) => "fact",
            Self::Began => "begin",
            Self::Died(_) => "die",
            Self::Asked(_) => "ask",
            Self::Struck(_) => "fault",
            Self::Healed(_) => "heal",
            Self::Panicked { .. } => "panic",
            Self::Sometimes(_) => "met",
            Self::Paused => "pause",
            Self::Resumed => "resume",
            Self::Link(_) => "link",
            Self::Answered { .. } => "answer",
            Self::GaveUp { .. } => "giveup",
            Self::Leased { .. } => "leased",
            Self::Txn { .. } => "txn",
            Self::Read { .. } => "read",
            Self::WatchOpened { .. } => "watch",
            Self::WatchDelivered { .. } => "batch",
            Self::WatchEnded { .. } => "unwatch",
            Self::WatchDropped { .. } => "drop",
            Self::WatchRefused { .. } => "refuse",
            Self::Published(_) => "publish",
            Self::Delivered(_) => "deliver",
            Self::Subscribed { .. } => "sub",
            Self::Unsubscribed { .. } => "unsub",
            Self::Lagged { .. } => "lag",
            Self::Request { .. } => "request",
            Self::Counted(_) => "rest",
            Self::Store { event, .. } => match event {
                StoreEvent::Granted(_) => "grant",
                StoreEvent::Renewed(_) => "renew",
                StoreEvent::Revived { .. } => "revive",
                StoreEvent::Ended { end: LeaseEnd::Expired, .. } => "expire",
                StoreEvent::Ended { end: LeaseEnd::Revoked, .. } => "revoke",
                StoreEvent::Committed(_) => "commit",
                StoreEvent::Compacted(_) => "compact",
                StoreEvent::Replaced { .. } => "replace",
                _ => "store",
            },
        }
    }

    /// What stands in the last column of its line.
    pub(super) fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Note(text) | Self::Asked(text) => write!(f, "{}", text.escape_debug()),
            Self::Fact(fact) => write!(f, "{fact:?}"),
            Self::Began => f.write_str("alive"),
            Self::Died(death) => write!(f, "{death}"),
            Self::Struck(fault) | Self::Healed(fault) => write!(f, "{fault}"),
            Self::Panicked { task, message } => write!(f, "task {task}: {}", message.escape_debug()),
            Self::Sometimes(what) => write!(f, "{}", what.escape_debug()),
            Self::Paused => f.write_str("stands still"),
            Self::Resumed => f.write_str("goes on"),
            Self::Link(what) => f.write_str(what),
            Self::Store { event, .. } => write_store(f, event),
            Self::Answered { call, sent, lease, code } => {
                write_call(f, *call, code.unwrap_or("ok"), *sent, *lease)
            }
            Self::GaveUp { call, sent, lease } => write_call(f, *call, "no answer", *sent, *lease),
            Self::Leased { asked, lease } => {
                write!(f, "lease {} for {:?}, asked for {asked:?}", lease.id, lease.ttl)
            }
            Self::Txn { request, step } => write!(f, "{request} {}", Shown(step)),
            Self::Read { range, snapshot, .. } => write!(f, "{} {}", Shown(range), Shown(snapshot)),
            Self::WatchOpened { watch, range, base } => {
                write!(f, "{watch} of {} {}", Shown(range), Shown(base))
            }
            Self::WatchDelivered { watch, batch } => write!(f, "{watch} {}", Shown(batch)),
            Self::WatchEnded { watch, code } => write!(f, "{watch} {code}"),
            Self::WatchDropped { watch } => write!(f, "{watch}"),
            Self::WatchRefused { range, code } => write!(f, "{} {code}", Shown(range)),
            Self::Published(letter) | Self::Delivered(letter) => write!(f, "{letter}"),
            Self::Subscribed { line, pattern, queue } => {
                write!(f, "{line} to {pattern}")?;
                queue.as_ref().map_or(Ok(()), |queue| write!(f, " in group {queue}"))
            }
            Self::Unsubscribed { line } => write!(f, "{line}"),
            Self::Lagged { line, missed } => write!(f, "{line} missed {missed}"),
            Self::Request { request, step: RequestStep::Arrived(letter) } => write!(f, "{request} {letter}"),
            Self::Request { request, step: RequestStep::Executed(end) } => match end {
                Ok(reply) => write!(f, "{request} reply {reply}"),
                Err(failure) => write!(f, "{request} {}", failure.code),
            },
            Self::Counted(Rest { watches, subscriptions, stray_tasks }) => {
                write!(f, "{watches} watches, {subscriptions} subscriptions, {stray_tasks} stray tasks")
            }
        }
    }
}

fn write_call(
    f: &mut fmt::Formatter<'_>,
    call: Call,
    end: &str,
    sent: Duration,
    lease: Option<LeaseId>,
) -> fmt::Result {
    write!(f, "{call:?} {end}")?;
    if let Some(lease) = lease {
        write!(f, ", lease {lease}")?;
    }
    write!(f, ", sent at {}.{:06}", sent.as_secs(), sent.subsec_micros())
}

fn write_store(f: &mut fmt::Formatter<'_>, event: &StoreEvent) -> fmt::Result {
    match event {
        StoreEvent::Granted(Lease { id, ttl }) | StoreEvent::Renewed(Lease { id, ttl }) => {
            write!(f, "lease {id} for {ttl:?}")
        }
        StoreEvent::Revived { by } => write!(f, "all leases have their whole time and {by:?} more"),
        StoreEvent::Ended { lease, .. } => write!(f, "lease {lease}"),
        StoreEvent::Committed(batch) => write!(f, "{}", Shown(batch)),
        StoreEvent::Compacted(revision) => write!(f, "up to revision {revision}"),
        StoreEvent::Replaced { content, leases } => {
            write!(f, "{}, {} leases", Shown(content), leases.len())
        }
        other => write!(f, "{other:?}"),
    }
}

impl fmt::Display for Death {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Crash => "crashed",
            Self::PowerLoss => "lost power",
        })
    }
}

impl fmt::Display for Letter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} bytes, {:016x})", self.subject, self.bytes, self.digest)
    }
}

/// Values of the contracts, as a part of a line.
struct Shown<'a, T>(&'a T);

impl fmt::Display for Shown<'_, Range> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Range::All => f.write_str("all"),
            Range::Key(key) => write!(f, "key {key}"),
            Range::Prefix(prefix) => write!(f, "prefix {}", prefix.as_str()),
        }
    }
}

impl fmt::Display for Shown<'_, Base> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Base::Snapshot(snapshot) => write!(f, "{}", Shown(snapshot)),
            Base::Resumed(revision) => write!(f, "after revision {revision}"),
        }
    }
}

impl fmt::Display for Shown<'_, Snapshot> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at revision {} with {} keys", self.0.revision, self.0.entries.len())
    }
}

impl fmt::Display for Shown<'_, TxnStep> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (word, outcome) = match self.0 {
            TxnStep::Sent(txn) => {
                return write!(f, "sent: {} guards, {} writes", txn.guards.len(), txn.ops.len());
            }
            TxnStep::Arrived => return f.write_str("arrived"),
            TxnStep::Executed(outcome) => ("executed", outcome),
            TxnStep::Answered(outcome) => ("answered", outcome),
        };
        match outcome {
            Ok(Commit::Applied(revision)) => write!(f, "{word}: revision {revision}"),
            Ok(Commit::Refused) => write!(f, "{word}: refused"),
            Err(failure) => write!(f, "{word}: {}, effect {:?}", failure.code, failure.effect),
        }
    }
}

impl fmt::Display for Shown<'_, Batch> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "revision {}:", self.0.revision)?;
        for change in &self.0.changes {
            match change {
                Change::Delete(key) => write!(f, " delete {key}")?,
                Change::Put(entry) => {
                    write!(f, " put {} = {:?}", entry.key, entry.value)?;
                    if let Some(lease) = entry.lease {
                        write!(f, " (lease {lease})")?;
                    }
                }
            }
        }
        Ok(())
    }
}
