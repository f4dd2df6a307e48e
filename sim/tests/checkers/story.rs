//! Histories by hand.

use std::time::Duration;

use slipring_core::{
    Base, Batch, Change, Commit, Entry, Fact, Key, Lease, LeaseId, Range, Revision, Snapshot, Txn,
};
use slipring_memory::Profile;
use slipring_memory::store::{LeaseEnd, StoreEvent};
use slipring_sim::History;
use slipring_sim::check::Terms;
use slipring_sim::history::{Event, Failure, Moment, TxnStep};

pub(crate) const SECOND: Duration = Duration::from_secs(1);
pub(crate) const TTL: Duration = Duration::from_secs(6);
pub(crate) const LEASE: Lease = Lease { id: LeaseId(1), ttl: TTL };

/// A history that is being told, and what it is judged by.
pub(crate) struct Story {
    now: Duration,
    node: &'static str,
    moments: Vec<Moment>,
    pub(crate) terms: Terms,
}

impl Story {
    /// Of a node that is named `n`, on etcd.
    pub(crate) fn new() -> Self {
        Self { now: Duration::ZERO, node: "n", moments: Vec::new(), terms: Terms::new(Profile::etcd()) }
    }

    pub(crate) fn judged(mut self, change: impl FnOnce(&mut Terms)) -> Self {
        change(&mut self.terms);
        self
    }

    pub(crate) fn wait(mut self, time: Duration) -> Self {
        self.now += time;
        self
    }

    pub(crate) fn then(mut self, event: Event) -> Self {
        let event = match event {
            Event::Store { event, .. } => Event::Store { clock: self.now, event },
            event => event,
        };
        self.moments.push(Moment { at: self.now, node: self.node.into(), event });
        self
    }

    pub(crate) fn all(self, events: impl IntoIterator<Item = Event>) -> Self {
        events.into_iter().fold(self, Self::then)
    }

    /// Only if it is told with the fault.
    pub(crate) fn when(self, broken: bool, more: impl FnOnce(Self) -> Self) -> Self {
        if broken { more(self) } else { self }
    }

    pub(crate) fn note(self) -> Self {
        self.then(Event::Note("time passes".to_owned()))
    }

    pub(crate) fn fact(self, fact: Fact) -> Self {
        self.then(Event::Fact(fact))
    }

    pub(crate) fn store(self, event: StoreEvent) -> Self {
        self.then(Event::Store { clock: Duration::ZERO, event })
    }

    pub(crate) fn commit(self, revision: u64, changes: impl Into<Vec<Change>>) -> Self {
        self.store(StoreEvent::Committed(batch(revision, changes)))
    }

    pub(crate) fn expire(self, lease: LeaseId) -> Self {
        self.store(StoreEvent::Ended { lease, end: LeaseEnd::Expired })
    }

    pub(crate) fn txn(self, request: u64, step: TxnStep) -> Self {
        self.then(Event::Txn { request, step })
    }

    /// A transaction that is sent and arrives.
    pub(crate) fn send(self, request: u64, txn: Txn) -> Self {
        self.txn(request, TxnStep::Sent(txn)).txn(request, TxnStep::Arrived)
    }

    /// It is executed, and answered.
    pub(crate) fn answer(self, request: u64, outcome: Result<Commit, Failure>) -> Self {
        self.txn(request, TxnStep::Executed(outcome)).txn(request, TxnStep::Answered(outcome))
    }

    /// A watch of everything, from these entries on.
    pub(crate) fn open(self, watch: u64, revision: u64, entries: impl IntoIterator<Item = Entry>) -> Self {
        let snapshot = snapshot(revision, entries);
        self.then(Event::WatchOpened { watch, range: Range::All, base: Base::Snapshot(snapshot) })
    }

    pub(crate) fn show(self, watch: u64, revision: u64, changes: impl Into<Vec<Change>>) -> Self {
        self.then(Event::WatchDelivered { watch, batch: batch(revision, changes) })
    }

    pub(crate) fn history(&self) -> History {
        History::new(self.moments.clone())
    }
}

pub(crate) fn key(key: &str) -> Key {
    Key::new(key).unwrap()
}

pub(crate) fn entry(revision: u64, name: &str, lease: Option<LeaseId>) -> Entry {
    Entry { key: key(name), value: "".into(), modified: Revision(revision), lease }
}

/// A key without a lease is written.
pub(crate) fn put(revision: u64, name: &str) -> Change {
    Change::Put(entry(revision, name, None))
}

/// A key is written with [`LEASE`].
pub(crate) fn leased(revision: u64, name: &str) -> Change {
    Change::Put(entry(revision, name, Some(LEASE.id)))
}

pub(crate) fn delete(name: &str) -> Change {
    Change::Delete(key(name))
}

pub(crate) fn batch(revision: u64, changes: impl Into<Vec<Change>>) -> Batch {
    Batch { revision: Revision(revision), changes: changes.into() }
}

pub(crate) fn snapshot(revision: u64, entries: impl IntoIterator<Item = Entry>) -> Snapshot {
    Snapshot { revision: Revision(revision), entries: entries.into_iter().collect() }
}

pub(crate) fn applied(revision: u64) -> Result<Commit, Failure> {
    Ok(Commit::Applied(Revision(revision)))
}
