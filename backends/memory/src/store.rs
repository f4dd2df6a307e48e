//! The store as a state machine without I/O: the ground on which simulations, model checks and the
//! in-process backend stand.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use slipring_core::mutation::Mutation;
use slipring_core::{
    Base, Batch, Change, Commit, Entry, Error, Guard, Key, Lease, LeaseId, Op, Range, Result, Revision,
    Snapshot, Start, Txn, WatchFidelity,
};

use crate::{OnRestore, Profile};

mod history;
mod journal;
mod leases;
#[cfg(feature = "_mutants")]
mod mutants;
mod watches;

use history::History;
use journal::Journal;
pub use journal::{LeaseEnd, StoreEvent};
use leases::{LeaseIds, Leases};
pub use watches::WatchId;
use watches::Watches;

/// A store of keys with leases and watches. It has no clock, no entropy and no tasks: the same calls give
/// the same answers.
///
/// # Order of calls
/// *Inputs* ([`advance`](Self::advance), [`read`](Self::read), [`commit`](Self::commit),
/// [`watch`](Self::watch), [`grant`](Self::grant), [`keep_alive`](Self::keep_alive),
/// [`revoke`](Self::revoke), [`import`](Self::import)) take `now`, the time on the store's own clock since it
/// was made, which must not go backwards. They first end the leases that are due. The answers are those of
/// [`Discovery`](slipring_core::Discovery).
///
/// *Outputs* may be asked for after any input: [`take_woken`](Self::take_woken) names the watches to
/// [`poll`](Self::poll), [`next_deadline`](Self::next_deadline) says when to [`advance`](Self::advance) if
/// nothing else happens.
#[derive(Debug, Clone)]
pub struct Store {
    profile: Profile,
    now: Duration,
    /// The offset of the looks for ended leases.
    phase: Duration,
    /// When it last looked for ended leases.
    scanned: Option<Duration>,
    ids: LeaseIds,
    state: State,
    watches: Watches,
    journal: Journal,
    /// The lease that ended last.
    #[cfg(feature = "_mutants")]
    ended: Option<LeaseId>,
}

/// A store's content: entries, leases and history. Watches are no part of it.
#[derive(Debug, Clone)]
pub struct Saved(State);

#[derive(Debug, Clone)]
struct State {
    entries: BTreeMap<Key, Entry>,
    leases: Leases,
    history: History,
}

impl Store {
    /// The longest time to live, as in etcd.
    pub const TTL_MAX: Duration = Duration::from_secs(9_000_000_000);

    /// A fresh store, at revision 1. Lease ids and the phase of expiry come from the seed.
    pub fn new(profile: Profile, seed: u64) -> Self {
        let phase = (profile.expiry_granularity.as_nanos() * u128::from(seed)) >> 64;
        Self {
            profile,
            now: Duration::ZERO,
            phase: duration(phase),
            scanned: None,
            ids: LeaseIds::new(seed),
            state: State::new(),
            watches: Watches::default(),
            journal: Journal::default(),
            #[cfg(feature = "_mutants")]
            ended: None,
        }
    }

    /// Lets time pass: ends the leases that are due, in the order of their ends.
    pub fn advance(&mut self, now: Duration) {
        assert!(now >= self.now, "a store's time went backwards, from {:?} to {now:?}", self.now);
        while let Some(due) = self.next_deadline().filter(|due| *due <= now) {
            self.now = self.now.max(due);
            self.scan(due);
        }
        self.now = now;
    }

    /// The entries of a range, in key order.
    pub fn read(&mut self, now: Duration, range: &Range) -> Snapshot {
        self.advance(now);
        self.state.snapshot(range)
    }

    /// Executes a transaction.
    ///
    /// # Errors
    /// As in [`Discovery::commit`](slipring_core::Discovery::commit); nothing happened then.
    pub fn commit(&mut self, now: Duration, txn: Txn) -> Result<Commit> {
        self.advance(now);
        txn.check(self.profile.discovery.atomic_keys_max)?;
        self.check_sizes(&txn)?;
        #[cfg(feature = "_mutants")]
        let txn = self.mutated_txn(txn);
        if !txn.guards.iter().all(|guard| self.state.holds(guard)) {
            return Ok(Commit::Refused);
        }
        self.check_leases(&txn.ops)?;
        if self.is(Mutation::TxnIsSplit) {
            txn.ops.into_iter().for_each(|op| self.write([op]));
        } else {
            self.write(txn.ops);
        }
        Ok(Commit::Applied(self.revision()))
    }

    /// Opens a watch. It yields through [`poll`](Self::poll) until [`unwatch`](Self::unwatch), or until a
    /// poll fails.
    ///
    /// # Errors
    /// `Compacted` if the revision is older than the history or newer than the store; `Unsupported` for
    /// `After` where the profile has no `resume`.
    pub fn watch(&mut self, now: Duration, range: Range, start: Start) -> Result<(WatchId, Base)> {
        self.advance(now);
        let (after, base) = match start {
            Start::Snapshot => (self.revision(), Base::Snapshot(self.state.snapshot(&range))),
            Start::After(revision) if self.profile.discovery.resume => (revision, Base::Resumed(revision)),
            Start::After(_) => {
                return Err(Error::unsupported("resuming a watch", "start it with a snapshot"));
            }
        };
        #[cfg(feature = "_mutants")]
        let (after, base) = self.mutated_start(after, base);
        Ok((self.watches.open(range, after, &self.state.history)?, base))
    }

    /// Grants a lease; less than `ttl_min` is raised to it, and then to a whole multiple of the profile's
    /// [`ttl_unit`](Profile::ttl_unit).
    ///
    /// # Errors
    /// `Invalid` if the time is zero or above [`TTL_MAX`](Self::TTL_MAX).
    pub fn grant(&mut self, now: Duration, ttl: Duration) -> Result<Lease> {
        self.advance(now);
        check_ttl(ttl)?;
        // A lease that was imported from another world may bear a name that is drawn here.
        let mut id = self.ids.draw();
        while self.state.leases.contains(id) {
            id = self.ids.draw();
        }
        Ok(self.insert_lease(now, id, ttl))
    }

    /// [`grant`](Self::grant) under an id that the caller has drawn. It must never have been used before.
    ///
    /// # Errors
    /// As in [`grant`](Self::grant); `AlreadyExists` if there is a lease of this id, ended or not, that is not
    /// removed yet.
    pub fn grant_as(&mut self, now: Duration, id: LeaseId, ttl: Duration) -> Result<Lease> {
        self.advance(now);
        check_ttl(ttl)?;
        if self.state.leases.contains(id) {
            return Err(Error::already_exists(format!("lease {id}")));
        }
        Ok(self.insert_lease(now, id, ttl))
    }

    /// Gives a lease its whole time again.
    ///
    /// # Errors
    /// `LeaseLost` if there is none, or if it is past its end and waits for its removal.
    pub fn keep_alive(&mut self, now: Duration, lease: LeaseId) -> Result<Duration> {
        self.advance(now);
        let late = self.is(Mutation::DeadLeaseIsRenewed);
        let ttl = self.state.leases.renew(lease, now, late).ok_or(Error::lease_lost(lease))?;
        #[cfg(feature = "_mutants")]
        self.mutate_renewed(lease, ttl);
        self.journal.add(now, || StoreEvent::Renewed(Lease { id: lease, ttl }));
        Ok(ttl)
    }

    /// Ends a lease and deletes its keys.
    ///
    /// # Errors
    /// `LeaseLost` if there is none.
    pub fn revoke(&mut self, now: Duration, lease: LeaseId) -> Result<()> {
        self.advance(now);
        if !self.state.leases.contains(lease) {
            return Err(Error::lease_lost(lease));
        }
        self.end_lease(lease, LeaseEnd::Revoked);
        Ok(())
    }

    /// Forgets the history up to a revision, itself included: it is the oldest that a watch may start after.
    ///
    /// etcd itself lets a watch start one earlier, but has lost the deletions of the revision itself; whoever
    /// wants to miss nothing has to refuse that start, as this does.
    ///
    /// # Errors
    /// `Compacted` if the revision is forgotten already, or is beyond the current one.
    pub fn compact(&mut self, revision: Revision) -> Result<()> {
        self.state.history.compact(revision)?;
        self.journal.add(self.now, || StoreEvent::Compacted(revision));
        Ok(())
    }

    /// The content as it is.
    pub fn export(&self) -> Saved {
        Saved(self.state.clone())
    }

    /// Replaces the content. Revisions may go backwards. The saved leases have their whole time from now, as
    /// after a restart; ids of leases do not come again even so. What the watches notice is up to
    /// [`Profile::on_restore`].
    pub fn import(&mut self, now: Duration, saved: Saved) {
        self.advance(now);
        self.state = saved.0;
        self.state.leases.renew_all(now);
        self.journal.add(now, || StoreEvent::Replaced {
            content: self.state.snapshot(&Range::All),
            leases: self.state.leases.iter().collect(),
        });
        match self.profile.on_restore {
            OnRestore::Silence => self.watches.silence(),
            OnRestore::End => self.watches.end(),
        }
    }

    /// Goes on at `now` after a time in which the store did not run: no lease ended meanwhile, and all of them
    /// have their whole time from now, and `by` more. As etcd does after a restart and under a new leader.
    pub fn revive(&mut self, now: Duration, by: Duration) {
        assert!(now >= self.now, "a store's time went backwards, from {:?} to {now:?}", self.now);
        self.now = now;
        if !self.is(Mutation::ElectionForgetsRenewal) {
            self.state.leases.renew_all(now + by);
        }
        self.journal.add(now, || StoreEvent::Revived { by });
    }

    /// From now on keeps what happens, until it is [taken](Self::take_events).
    pub fn record(&mut self) {
        self.journal.begin();
    }

    /// What happened since this was last called, in order, each with the time on the store's clock. Nothing
    /// unless it is [recorded](Self::record).
    pub fn take_events(&mut self) -> Vec<(Duration, StoreEvent)> {
        self.journal.take()
    }

    /// The next revision that concerns a watch, whole; `None` if it has all (or is closed). Where the
    /// profile's watches are `Coalesced`, it is all that happened since, with the last change of each key.
    ///
    /// # Errors
    /// `Compacted` if the history has passed a change that this watch was not given; `Unavailable` if the
    /// store was replaced. The watch is closed then.
    pub fn poll(&mut self, watch: WatchId) -> Result<Option<Batch>> {
        #[cfg(feature = "_mutants")]
        self.mutate_watch(watch);
        match self.profile.discovery.watch {
            WatchFidelity::Coalesced => self.watches.poll_merged(watch, &self.state.history),
            _ => self.watches.poll(watch, &self.state.history),
        }
    }

    /// An empty batch at the current revision, if the watch has all up to there.
    pub fn progress(&self, watch: WatchId) -> Option<Batch> {
        self.watches.is_caught_up(watch).then(|| Batch { revision: self.revision(), changes: Vec::new() })
    }

    /// Closes a watch. Nothing happens if it is closed.
    pub fn unwatch(&mut self, watch: WatchId) {
        self.watches.close(watch);
    }

    /// The watches that got something to poll since this was last called. Each is named once, however much
    /// it has to poll, and not again before it has polled it all.
    pub fn take_woken(&mut self) -> BTreeSet<WatchId> {
        self.watches.take_woken()
    }

    /// When the next lease ends, if nobody renews it: the time for the next [`advance`](Self::advance).
    pub fn next_deadline(&self) -> Option<Duration> {
        let (end, _) = self.state.leases.first_end()?;
        let scan = self.scan_from(end);
        // The last look removed all that it may: the others wait for the next one.
        let waits = self.scanned.is_some_and(|scanned| scanned >= scan);
        Some(if waits { self.scan_from(self.scanned? + Duration::from_nanos(1)) } else { scan })
    }

    /// The latest time that it was given.
    pub fn now(&self) -> Duration {
        self.now
    }

    /// The current revision.
    pub fn revision(&self) -> Revision {
        self.state.history.head()
    }

    /// The oldest revision that [`Start::After`] accepts.
    pub fn oldest(&self) -> Revision {
        self.state.history.oldest()
    }

    /// The leases that are not removed, by id.
    pub fn leases(&self) -> Vec<Lease> {
        self.state.leases.iter().collect()
    }

    /// A lease and how much of its time is left: nothing if it ended and waits for its removal. `None` if there
    /// is none.
    pub fn lease(&self, id: LeaseId) -> Option<(Lease, Duration)> {
        self.state.leases.get(id).map(|(lease, end)| (lease, end.saturating_sub(self.now)))
    }

    /// How many watches are open.
    pub fn watches(&self) -> usize {
        self.watches.len()
    }

    /// Removes the leases that ended by `at`, as many as one look may.
    fn scan(&mut self, at: Duration) {
        let exact = self.profile.expiry_granularity.is_zero();
        let leases_max = if exact { usize::MAX } else { self.profile.expiries_per_scan.max(1) };
        for _ in 0..leases_max {
            let Some((_, lease)) = self.state.leases.first_end().filter(|(end, _)| *end <= at) else { break };
            self.end_lease(lease, LeaseEnd::Expired);
        }
        self.scanned = Some(at);
    }

    /// The first look for ended leases at or after a time.
    fn scan_from(&self, at: Duration) -> Duration {
        let every = self.profile.expiry_granularity.as_nanos();
        if every == 0 {
            return at;
        }
        let looks = at.saturating_sub(self.phase).as_nanos().div_ceil(every);
        self.phase + duration(looks * every)
    }

    fn insert_lease(&mut self, now: Duration, id: LeaseId, ttl: Duration) -> Lease {
        let unit = self.profile.ttl_unit.as_nanos().max(1);
        let units = ttl.max(self.profile.discovery.ttl_min).as_nanos().div_ceil(unit);
        let lease = Lease { id, ttl: duration(units * unit) };
        self.state.leases.insert(lease, now);
        #[cfg(feature = "_mutants")]
        let lease = self.mutated_grant(lease);
        self.journal.add(now, || StoreEvent::Granted(lease));
        lease
    }

    fn end_lease(&mut self, lease: LeaseId, end: LeaseEnd) {
        self.journal.add(self.now, || StoreEvent::Ended { lease, end });
        let keys = self.state.leases.remove(lease).unwrap_or_default();
        #[cfg(feature = "_mutants")]
        let keys = self.mutated_end(lease, end, keys);
        let deletes = keys.into_iter().map(|key| Op::Delete { key });
        if self.profile.discovery.expiry_atomic && !self.is(Mutation::ExpirySplitsRevision) {
            self.write(deletes);
        } else {
            deletes.for_each(|delete| self.write([delete]));
        }
    }

    /// Executes writes at one new revision; there is none if nothing changes.
    fn write(&mut self, ops: impl IntoIterator<Item = Op>) {
        let revision = Revision(self.revision().0 + 1);
        let changes: Vec<Change> = ops.into_iter().filter_map(|op| self.state.apply(op, revision)).collect();
        if !changes.is_empty() || self.is(Mutation::IdleDeleteCounts) {
            let batch = self.state.history.append(changes, self.profile.history_revisions_max);
            let untold = self.profile.mutation.is(Mutation::DeletionsAreNotTold)
                && batch.changes.iter().all(|change| matches!(change, Change::Delete(_)));
            if !untold {
                self.watches.announce(batch);
            }
            self.journal.add(self.now, || StoreEvent::Committed(batch.clone()));
        }
    }

    fn is(&self, mutation: Mutation) -> bool {
        self.profile.mutation.is(mutation)
    }

    fn check_sizes(&self, txn: &Txn) -> Result<()> {
        let values = txn.ops.iter().map(|op| match op {
            Op::Put { value, .. } => value.len(),
            Op::Delete { .. } => 0,
        });
        let guarded = txn.guards.iter().map(|guard| match guard {
            Guard::Absent(key) | Guard::Unchanged(key, _) => key,
        });
        let keys = guarded.chain(txn.ops.iter().map(Op::key));
        let largest = values.clone().max().unwrap_or(0);
        let whole = values.sum::<usize>() + keys.map(|key| key.as_str().len()).sum::<usize>();
        let limits = [(self.profile.discovery.value_bytes_max, largest), (self.profile.txn_bytes_max, whole)];
        match limits.into_iter().find(|(limit, actual)| actual > limit) {
            Some((limit, actual)) => Err(Error::payload_too_large(limit, actual)),
            None => Ok(()),
        }
    }

    fn check_leases(&self, ops: &[Op]) -> Result<()> {
        let mut leases = ops.iter().filter_map(|op| match op {
            Op::Put { lease, .. } => *lease,
            Op::Delete { .. } => None,
        });
        match leases.find(|lease| !self.state.leases.contains(*lease)) {
            Some(lease) => Err(Error::lease_lost(lease)),
            None => Ok(()),
        }
    }
}

impl Saved {
    /// The content of a fresh store.
    pub fn empty() -> Self {
        Self(State::new())
    }
}

impl State {
    fn new() -> Self {
        Self { entries: BTreeMap::new(), leases: Leases::default(), history: History::new() }
    }

    fn snapshot(&self, range: &Range) -> Snapshot {
        let entries = match range {
            Range::All => self.entries.values().cloned().collect(),
            Range::Key(key) => self.entries.get(key).cloned().into_iter().collect(),
            Range::Prefix(prefix) => {
                let first = Key::new(prefix.as_str()).expect("what makes a prefix makes a key");
                let from_there = self.entries.range(first..).map(|(_, entry)| entry);
                from_there.take_while(|entry| range.contains(&entry.key)).cloned().collect()
            }
        };
        Snapshot { revision: self.history.head(), entries }
    }

    fn holds(&self, guard: &Guard) -> bool {
        match guard {
            Guard::Absent(key) => !self.entries.contains_key(key),
            Guard::Unchanged(key, revision) => {
                self.entries.get(key).is_some_and(|entry| entry.modified == *revision)
            }
        }
    }

    /// Executes one write; `None` if it changes nothing.
    fn apply(&mut self, op: Op, revision: Revision) -> Option<Change> {
        let before = self.entries.remove(op.key());
        if let Some(lease) = before.as_ref().and_then(|entry| entry.lease) {
            self.leases.detach(lease, op.key());
        }
        match op {
            Op::Put { key, value, lease } => {
                if let Some(lease) = lease {
                    self.leases.attach(lease, key.clone());
                }
                let entry = Entry { key: key.clone(), value, modified: revision, lease };
                self.entries.insert(key, entry.clone());
                Some(Change::Put(entry))
            }
            Op::Delete { key } => before.map(|_| Change::Delete(key)),
        }
    }
}

fn check_ttl(ttl: Duration) -> Result<()> {
    if ttl.is_zero() || ttl > Store::TTL_MAX {
        let problem = format!("it must be above zero and at most {:?}", Store::TTL_MAX);
        return Err(Error::invalid("time to live", format!("{ttl:?}"), problem));
    }
    Ok(())
}

fn duration(nanos: u128) -> Duration {
    const SECOND: u128 = 1_000_000_000;
    let seconds = u64::try_from(nanos / SECOND).expect("it is a time that a Duration held before");
    Duration::new(seconds, u32::try_from(nanos % SECOND).expect("it is below a second"))
}
