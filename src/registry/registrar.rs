//! Keeps what a runtime wants to be registered in step with what the store holds; without the I/O.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use slipring_core::mutation::{Mutated, Mutation};
use slipring_core::{Bytes, Commit, Effect, Entry, Error, Guard, Key, LeaseId, Op, Result, Revision, Txn};
use tokio::time::Instant;

use crate::backoff::Backoff;

/// A removed key is looked at in this many further checks, so that neither a delayed write nor a restored
/// store brings it back unnoticed.
const CHECKS_AFTER_REMOVAL: u8 = 8;

/// What is registered under a key. Its bytes name the lease and the epoch, so each lease needs them anew.
pub trait Record: Debug {
    /// The value to be stored while this lease, the runtime's `epoch`-th, is held.
    fn encode(&self, lease: LeaseId, epoch: u64) -> Bytes;
}

/// Owns the desired set of one runtime's records and reconciles it with the store: on every change, after
/// every change of the lease, and in regular checks, which find what was deleted or overwritten meanwhile.
///
/// *Fencing.* Every transaction is guarded by the anchor, a key of the runtime's own that each one rewrites:
/// a delayed transaction finds it changed and is refused, so no write of an earlier epoch, or of an earlier
/// moment of this one, is ever applied after a later one. When the outcome of a transaction is unknown, the
/// anchor tells it. An anchor written by somebody else is a [conflict](Self::in_conflict): nothing is written
/// until it is gone. Stores that cannot fence get plain writes, and the checks mend what delayed ones spoil.
///
/// *What settles a record* is an acknowledged transaction (or the anchor's word for it), never the mere sight
/// of the wanted value: an older write could still be under way.
///
/// # Order of calls
/// [`set`](Self::set), [`remove`](Self::remove) and the lease's ups and downs come at any time, also while an
/// operation is under way. After each of them, and at every wake-up, [`poll`](Self::poll). An operation that
/// it hands out is answered exactly once, with [`handle_commit`](Self::handle_commit) or
/// [`handle_read`](Self::handle_read), before there is another; other answers are ignored. `now` never goes
/// back.
#[derive(Debug)]
pub struct Registrar<R> {
    options: Options,
    held: Option<Held>,
    records: BTreeMap<Key, Tracked<R>>,
    anchor: Anchor,
    /// The number of the last transaction.
    sequence: u64,
    /// How many records the next transaction may hold.
    batch_max: usize,
    under_way: Option<Operation>,
    /// A transaction with an unknown outcome: its records are [`Progress::Sent`] until the anchor is read.
    doubted: Option<Attempt>,
    conflict: bool,
    not_before: Instant,
    check: Instant,
    backoff: Backoff,
}

/// Who a [`Registrar`] is, and how its store works.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Options {
    /// The runtime's instance id.
    pub instance: u64,
    /// A random number: tells this process from another with the same instance id.
    pub nonce: u64,
    /// The key that fences this runtime's writes.
    pub anchor: Key,
    /// How many keys a transaction may touch. Below two nothing is fenced.
    pub atomic_keys_max: usize,
    /// Can writes depend on the anchor?
    pub fencing: bool,
    /// How often the store is checked for what was not changed by us; also how soon a conflict or missing
    /// credentials are looked at again. The TTL is a good choice.
    pub check_interval: Duration,
    /// After a lost lease the first write comes at a random time within this: whole fleets lose theirs
    /// together.
    pub spread: Duration,
    #[doc(hidden)]
    pub mutation: Mutated,
}

impl Options {
    /// A store without transactions; checked every 10 s, with a spread of 500 ms.
    pub fn new(instance: u64, nonce: u64, anchor: Key) -> Self {
        let (check_interval, spread) = (Duration::from_secs(10), Duration::from_millis(500));
        let mutation = Mutated::default();
        Self { instance, nonce, anchor, atomic_keys_max: 1, fencing: false, check_interval, spread, mutation }
    }

    /// A store that commits so many keys at once, and can fence or not.
    #[must_use]
    pub fn with_transactions(mut self, atomic_keys_max: usize, fencing: bool) -> Self {
        self.atomic_keys_max = atomic_keys_max.max(1);
        self.fencing = fencing && atomic_keys_max >= 2;
        self
    }

    /// Checks this often.
    #[must_use]
    pub fn with_check_interval(mut self, every: Duration) -> Self {
        self.check_interval = every;
        self
    }

    /// Registers again within this time after a loss.
    #[must_use]
    pub fn with_spread(mut self, spread: Duration) -> Self {
        self.spread = spread;
        self
    }
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Commit this, and answer with [`Registrar::handle_commit`].
    Commit(Txn),
    /// Read these keys, at any revisions, and answer with [`Registrar::handle_read`].
    Read(Vec<Key>),
    /// Nothing to do until then, unless something is called.
    Wait(Instant),
    /// Nothing to do until something is called.
    Idle,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Held {
    lease: LeaseId,
    epoch: u64,
}

#[derive(Debug)]
struct Tracked<R> {
    /// What is wanted; none if the key is to be gone.
    record: Option<R>,
    progress: Progress,
    /// May a write have reached the store?
    attempted: bool,
    /// Once gone, how often that is checked again.
    checks: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// To be written, or deleted.
    Pending,
    /// In the transaction that is under way or in doubt.
    Sent,
    /// The store will not take it; tried again after the next check.
    Rejected,
    /// As wanted, as far as we know.
    Settled,
}

/// What is known of the anchor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Anchor {
    Unread,
    Absent,
    At(Revision),
}

#[derive(Debug)]
enum Operation {
    Commit(Attempt),
    /// A check of these records; of the anchor alone if there are none.
    Read(Vec<Key>),
}

#[derive(Debug, Clone, Copy)]
struct Attempt {
    mark: Mark,
    records: usize,
}

/// The value of the anchor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Mark {
    instance: u64,
    nonce: u64,
    epoch: u64,
    sequence: u64,
}

impl<R: Record> Registrar<R> {
    /// Wants nothing, and has no lease. The seed decides the jitter.
    pub fn new(now: Instant, options: Options, seed: u64) -> Self {
        Self {
            batch_max: options.atomic_keys_max,
            check: now + options.check_interval,
            options,
            held: None,
            records: BTreeMap::new(),
            anchor: Anchor::Absent,
            sequence: 0,
            under_way: None,
            doubted: None,
            conflict: false,
            not_before: now,
            backoff: Backoff::new(seed),
        }
    }

    /// Wants this record under the key. The same record again is no change.
    pub fn set(&mut self, key: Key, record: R) {
        let held = self.held;
        let value = |record: &R| held.map(|Held { lease, epoch }| record.encode(lease, epoch));
        match self.records.get_mut(&key) {
            Some(tracked) => {
                let same = tracked.record.as_ref().is_some_and(|old| value(old) == value(&record));
                tracked.record = Some(record);
                if !same {
                    tracked.progress = Progress::Pending;
                }
            }
            None => {
                let progress = Progress::Pending;
                let tracked = Tracked { record: Some(record), progress, attempted: false, checks: 0 };
                self.records.insert(key, tracked);
            }
        }
    }

    /// Wants the key to be gone, also if a write of it is under way.
    pub fn remove(&mut self, key: &Key) {
        let Some(tracked) = self.records.get_mut(key) else { return };
        if !tracked.attempted {
            self.records.remove(key);
        } else if tracked.record.take().is_some() {
            tracked.progress = Progress::Pending;
            tracked.checks = CHECKS_AFTER_REMOVAL;
        }
    }

    /// There is a new lease, the runtime's `epoch`-th (from 1): every record moves to it.
    pub fn handle_lease(&mut self, now: Instant, lease: LeaseId, epoch: u64) {
        self.held = Some(Held { lease, epoch });
        self.unsettle();
        if epoch > 1 {
            self.not_before = now + self.backoff.up_to(self.options.spread);
        }
    }

    /// The lease is lost: nothing can be written until there is another.
    pub fn handle_lease_lost(&mut self) {
        self.held = None;
        self.unsettle();
    }

    /// Is this key in the store as wanted, as far as we know?
    pub fn confirmed(&self, key: &Key) -> bool {
        self.records.get(key).is_some_and(|one| one.record.is_some() && one.progress == Progress::Settled)
    }

    /// Is this key gone from the store (or was it never there), as far as we know?
    pub fn withdrawn(&self, key: &Key) -> bool {
        let assumed = self.options.mutation.is(Mutation::WithdrawalIsAssumed);
        let gone = |one: &Tracked<R>| one.record.is_none() && (assumed || one.progress == Progress::Settled);
        self.records.get(key).is_none_or(gone)
    }

    /// Is every key as wanted, as far as we know?
    pub fn settled(&self) -> bool {
        self.records.values().all(|tracked| tracked.progress == Progress::Settled)
    }

    /// Did somebody else write our anchor, as with an instance id in use twice? Nothing is written then.
    pub fn in_conflict(&self) -> bool {
        self.conflict
    }

    /// What to do next.
    pub fn poll(&mut self, now: Instant) -> Step {
        let (Some(held), None) = (self.held, &self.under_way) else { return Step::Idle };
        if now < self.not_before {
            return Step::Wait(self.not_before);
        }
        let anchor = self.options.anchor.clone();
        let guard = match self.anchor {
            _ if !self.options.fencing => None,
            Anchor::Unread => return self.read(Vec::new()),
            Anchor::Absent => Some(Guard::Absent(anchor)),
            Anchor::At(revision) => Some(Guard::Unchanged(anchor, revision)),
        };
        if self.records.values().any(|tracked| tracked.progress == Progress::Pending) {
            self.commit(held, guard)
        } else if self.records.is_empty() {
            Step::Idle
        } else if now < self.check {
            Step::Wait(self.check)
        } else {
            self.read(self.records.keys().cloned().collect())
        }
    }

    /// The transaction was answered.
    pub fn handle_commit(&mut self, now: Instant, result: Result<Commit>) {
        let Some(Operation::Commit(attempt)) =
            self.under_way.take_if(|operation| matches!(operation, Operation::Commit(_)))
        else {
            return;
        };
        match result {
            Ok(Commit::Applied(revision)) => {
                self.anchor = Anchor::At(revision);
                self.applied();
            }
            Ok(Commit::Refused) => {
                self.anchor = Anchor::Unread;
                self.resolve(Progress::Pending);
                self.pause(now, None);
            }
            Err(error)
                if self.options.mutation.is(Mutation::DoubtIsSuccess) && error.effect() != Effect::None =>
            {
                self.applied();
            }
            Err(error) => {
                if self.options.fencing && error.effect() != Effect::None {
                    self.anchor = Anchor::Unread;
                    self.doubted = Some(attempt);
                } else {
                    self.fail(attempt, &error);
                }
                // Also if it says that the lease is gone: that is for the heartbeats to find, and a store that
                // is put back to an earlier time may have the lease again by then.
                self.pause(now, Some(&error));
            }
        }
    }

    /// The keys were read: these exist, of those that were asked for.
    pub fn handle_read(&mut self, now: Instant, result: Result<Vec<Entry>>) {
        let Some(Operation::Read(keys)) =
            self.under_way.take_if(|operation| matches!(operation, Operation::Read(_)))
        else {
            return;
        };
        let entries = match result {
            Ok(entries) => entries,
            Err(error) => return self.pause(now, Some(&error)),
        };
        let found: BTreeMap<&Key, &Entry> = entries.iter().map(|entry| (&entry.key, entry)).collect();
        if self.options.fencing {
            self.learn_anchor(now, found.get(&self.options.anchor).copied());
        }
        if !keys.is_empty() {
            let every = self.options.check_interval;
            self.check = now + every - self.backoff.up_to(every / 10);
        }
        for key in keys {
            self.learn(&key, found.get(&key).copied());
        }
    }

    fn read(&mut self, keys: Vec<Key>) -> Step {
        let anchor = self.options.fencing.then(|| self.options.anchor.clone());
        let asked = anchor.into_iter().chain(keys.iter().cloned()).collect();
        self.under_way = Some(Operation::Read(keys));
        Step::Read(asked)
    }

    fn commit(&mut self, held: Held, guard: Option<Guard>) -> Step {
        self.sequence += 1;
        let Options { instance, nonce, .. } = self.options;
        let mark = Mark { instance, nonce, epoch: held.epoch, sequence: self.sequence };
        let mut txn = Txn::new();
        let mut room = self.batch_max;
        if let Some(guard) = guard {
            txn.guards.push(guard);
            txn = txn.put(self.options.anchor.clone(), mark.encode(), Some(held.lease));
            room = room.min(self.options.atomic_keys_max - 1);
        }
        let pending = self.records.iter_mut().filter(|(_, one)| one.progress == Progress::Pending);
        let mut records = 0;
        for (key, tracked) in pending.take(room) {
            tracked.progress = Progress::Sent;
            tracked.attempted = true;
            records += 1;
            txn.ops.push(match &tracked.record {
                Some(record) => {
                    let value = record.encode(held.lease, held.epoch);
                    let unleased = self.options.mutation.is(Mutation::RecordsHaveNoLease);
                    let lease = (!unleased).then_some(held.lease);
                    Op::Put { key: key.clone(), value, lease }
                }
                None => Op::Delete { key: key.clone() },
            });
        }
        self.under_way = Some(Operation::Commit(Attempt { mark, records }));
        Step::Commit(txn)
    }

    fn applied(&mut self) {
        self.resolve(Progress::Settled);
        self.backoff.reset();
        self.batch_max = (self.batch_max * 2).min(self.options.atomic_keys_max);
    }

    /// Nothing of this attempt happened. One record that the store will not take must not harm the others:
    /// halve the transactions until it stands alone.
    fn fail(&mut self, attempt: Attempt, error: &Error) {
        match error {
            Error::Invalid { .. } | Error::PayloadTooLarge { .. } | Error::Unsupported { .. } => {
                self.batch_max = (attempt.records / 2).max(1);
                let alone = attempt.records == 1;
                self.resolve(if alone { Progress::Rejected } else { Progress::Pending });
            }
            _ => self.resolve(Progress::Pending),
        }
    }

    fn pause(&mut self, now: Instant, error: Option<&Error>) {
        let pause = self.backoff.fail();
        let slowly = matches!(error, Some(Error::Unauthorized { .. }));
        self.not_before = now + if slowly { self.options.check_interval + pause } else { pause };
    }

    /// Decides what was sent. Records that were changed meanwhile are pending already.
    fn resolve(&mut self, to: Progress) {
        let sent = self.records.values_mut().filter(|tracked| tracked.progress == Progress::Sent);
        sent.for_each(|tracked| tracked.progress = to);
    }

    fn unsettle(&mut self) {
        if self.options.mutation.is(Mutation::NotRegisteredAgain) {
            return;
        }
        let wanted = self.records.values_mut().filter(|tracked| tracked.record.is_some());
        wanted.for_each(|tracked| tracked.progress = Progress::Pending);
    }

    fn learn_anchor(&mut self, now: Instant, entry: Option<&Entry>) {
        let mark = entry.map(|entry| Mark::decode(&entry.value));
        let ours = |mark: &Mark| (mark.instance, mark.nonce) == (self.options.instance, self.options.nonce);
        self.conflict = mark.is_some_and(|mark| !mark.as_ref().is_some_and(ours));
        if self.conflict {
            self.anchor = Anchor::Unread;
            self.not_before = now + self.options.check_interval;
            return;
        }
        self.anchor = entry.map_or(Anchor::Absent, |entry| Anchor::At(entry.modified));
        // An attempt that the anchor does not show yet never will be: the next write changes the anchor.
        match self.doubted.take() {
            Some(attempt) if mark == Some(Some(attempt.mark)) => self.applied(),
            _ => self.resolve(Progress::Pending),
        }
    }

    /// A check can only raise doubts.
    fn learn(&mut self, key: &Key, entry: Option<&Entry>) {
        if self.options.mutation.is(Mutation::ChecksAreBlind) {
            return;
        }
        let Some(tracked) = self.records.get_mut(key) else { return };
        match (tracked.progress, &tracked.record, self.held) {
            (Progress::Rejected, ..) => tracked.progress = Progress::Pending,
            (Progress::Settled, Some(record), Some(Held { lease, epoch })) => {
                let as_wanted = entry.is_some_and(|entry| {
                    entry.lease == Some(lease) && entry.value == record.encode(lease, epoch)
                });
                if !as_wanted {
                    tracked.progress = Progress::Pending;
                }
            }
            (Progress::Settled, None, _) if entry.is_some() => tracked.progress = Progress::Pending,
            (Progress::Settled, None, _) if tracked.checks > 1 => tracked.checks -= 1,
            (Progress::Settled, None, _) => drop(self.records.remove(key)),
            (Progress::Pending | Progress::Sent | Progress::Settled, ..) => {}
        }
    }
}

impl Mark {
    fn encode(&self) -> Bytes {
        serde_json::to_vec(self).expect("four numbers are always JSON").into()
    }

    fn decode(value: &[u8]) -> Option<Self> {
        serde_json::from_slice(value).ok()
    }
}

#[cfg(test)]
mod tests;
