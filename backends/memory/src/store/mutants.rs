//! The bugs of the store that take more than a condition; see [`Mutation`].

use std::collections::BTreeSet;
use std::time::Duration;

use slipring_core::mutation::Mutation;
use slipring_core::{Base, Guard, Key, Lease, LeaseId, Op, Revision, Txn};

use super::{LeaseEnd, Store, WatchId};

impl Store {
    pub(super) fn mutated_txn(&mut self, mut txn: Txn) -> Txn {
        if self.is(Mutation::CreateOverwrites) {
            txn.guards.retain(|guard| !matches!(guard, Guard::Absent(_)));
        }
        if self.is(Mutation::GuardIsStale) {
            let exists = |key: &Key| self.state.entries.contains_key(key);
            txn.guards.retain(|guard| !matches!(guard, Guard::Unchanged(key, _) if exists(key)));
        }
        if self.is(Mutation::RefusedTxnCounts) && !txn.guards.iter().all(|guard| self.state.holds(guard)) {
            self.skip_revision();
        }
        if self.is(Mutation::TxnHalfApplied) && txn.ops.len() > 1 {
            txn.ops.pop();
        }
        if self.is(Mutation::DeadLeaseIsAccepted) {
            self.unbind_from_the_dead(&mut txn.ops);
        }
        if self.is(Mutation::PutKeepsOldLease) {
            self.stick(&mut txn.ops);
        }
        txn
    }

    fn unbind_from_the_dead(&self, ops: &mut [Op]) {
        for op in ops {
            if let Op::Put { lease, .. } = op {
                *lease = lease.filter(|lease| self.state.leases.contains(*lease));
            }
        }
    }

    /// Keys that are put without a lease keep theirs.
    fn stick(&self, ops: &mut [Op]) {
        for op in ops {
            if let Op::Put { key, lease, .. } = op {
                let old = self.state.entries.get(key).and_then(|entry| entry.lease);
                *lease = old.filter(|old| self.state.leases.contains(*old)).or(*lease);
            }
        }
    }

    fn skip_revision(&mut self) {
        self.state.history.append(Vec::new(), self.profile.history_revisions_max);
    }

    pub(super) fn mutated_start(&self, after: Revision, base: Base) -> (Revision, Base) {
        match base {
            Base::Snapshot(mut snapshot) if self.is(Mutation::SnapshotMissesNewest) => {
                snapshot.entries.retain(|entry| entry.modified < snapshot.revision);
                (after, Base::Snapshot(snapshot))
            }
            Base::Resumed(_) if self.is(Mutation::ResumeSkipsOne) => {
                (Revision(after.0 + 1).min(self.revision()), base)
            }
            Base::Resumed(_) if self.is(Mutation::ResumeRepeatsOne) => {
                (Revision(after.0.saturating_sub(1)).max(self.oldest()), base)
            }
            Base::Resumed(_) if self.is(Mutation::CompactionIsSilent) => (after.max(self.oldest()), base),
            base => (after, base),
        }
    }

    pub(super) fn mutated_grant(&mut self, lease: Lease) -> Lease {
        let reused = self.ended.filter(|_| self.is(Mutation::LeaseIdReturns));
        if let Some(id) = reused.filter(|id| !self.state.leases.contains(*id)) {
            self.state.leases.remove(lease.id);
            self.state.leases.insert(Lease { id, ..lease }, self.now);
            return Lease { id, ..lease };
        }
        if self.is(Mutation::LeaseEndsEarly) {
            self.state.leases.hasten(lease.id, lease.ttl / 10);
        }
        lease
    }

    pub(super) fn mutate_renewed(&mut self, lease: LeaseId, ttl: Duration) {
        if self.is(Mutation::LeaseEndsEarly) {
            self.state.leases.hasten(lease, ttl / 10);
        }
        if self.is(Mutation::RenewalIsShort) {
            self.state.leases.hasten(lease, ttl / 2);
        }
        if self.is(Mutation::RenewedLeaseNeverEnds) {
            self.state.leases.overlook(lease);
        }
    }

    pub(super) fn mutated_end(
        &mut self,
        lease: LeaseId,
        end: LeaseEnd,
        keys: BTreeSet<Key>,
    ) -> BTreeSet<Key> {
        self.ended = Some(lease);
        if end == LeaseEnd::Expired && self.is(Mutation::ExpiryLeavesKeys) {
            return keys.into_iter().take(1).collect();
        }
        keys
    }

    pub(super) fn mutate_watch(&mut self, watch: WatchId) {
        if self.is(Mutation::CompactionIsSilent) {
            self.watches.skip_to(watch, Revision(self.state.history.oldest().0 + 1));
        }
        if self.is(Mutation::SlowWatchSkips) {
            self.watches.skip_to(watch, self.state.history.head());
        }
    }
}
