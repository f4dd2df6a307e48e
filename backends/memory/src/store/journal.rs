use std::time::Duration;

use slipring_core::{Batch, Lease, LeaseId, Revision, Snapshot};

/// Something that happened in a store, for those who check it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum StoreEvent {
    /// A lease was granted.
    Granted(Lease),
    /// A heartbeat gave a lease its whole time again.
    Renewed(Lease),
    /// All leases got their whole time again and this much more, as after a restart or a new leader.
    Revived {
        /// What they got beyond their time to live.
        by: Duration,
    },
    /// A lease is gone; the deletion of its keys, if it had some, is what is committed next.
    Ended {
        /// The lease.
        lease: LeaseId,
        /// Why.
        end: LeaseEnd,
    },
    /// A revision, whole.
    Committed(Batch),
    /// The history before this revision was forgotten.
    Compacted(Revision),
    /// The content was replaced by this one, in which all leases have their whole time.
    Replaced {
        /// The new content.
        content: Snapshot,
        /// The leases that are in it.
        leases: Vec<Lease>,
    },
}

/// Why a lease ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseEnd {
    /// Nobody renewed it in time.
    Expired,
    /// It was revoked.
    Revoked,
}

/// What happened, in order, each with the time on the store's clock; empty for ever until it is begun.
#[derive(Debug, Clone, Default)]
pub(super) struct Journal(Option<Vec<(Duration, StoreEvent)>>);

impl Journal {
    pub(super) fn begin(&mut self) {
        self.0.get_or_insert_default();
    }

    /// The event is made only if somebody wants it.
    pub(super) fn add(&mut self, now: Duration, event: impl FnOnce() -> StoreEvent) {
        if let Some(events) = &mut self.0 {
            events.push((now, event()));
        }
    }

    pub(super) fn take(&mut self) -> Vec<(Duration, StoreEvent)> {
        self.0.as_mut().map(std::mem::take).unwrap_or_default()
    }
}
