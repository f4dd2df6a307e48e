use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use slipring_core::{Key, Lease, LeaseId};

/// The leases of a store, their keys and their ends.
#[derive(Debug, Clone, Default)]
pub(super) struct Leases {
    granted: BTreeMap<LeaseId, Granted>,
    /// The same leases, by end.
    ends: BTreeSet<(Duration, LeaseId)>,
}

#[derive(Debug, Clone)]
struct Granted {
    ttl: Duration,
    end: Duration,
    keys: BTreeSet<Key>,
}

impl Leases {
    pub(super) fn insert(&mut self, lease: Lease, now: Duration) {
        let end = now + lease.ttl;
        let replaced = self.granted.insert(lease.id, Granted { ttl: lease.ttl, end, keys: BTreeSet::new() });
        assert!(replaced.is_none(), "a lease id was granted twice: {}", lease.id);
        self.ends.insert((end, lease.id));
    }

    /// Gives a lease its whole time again; `None` if there is none, or if it is past its end (unless `late`).
    pub(super) fn renew(&mut self, id: LeaseId, now: Duration, late: bool) -> Option<Duration> {
        let granted = self.granted.get_mut(&id).filter(|granted| late || now < granted.end)?;
        self.ends.remove(&(granted.end, id));
        granted.end = now + granted.ttl;
        self.ends.insert((granted.end, id));
        Some(granted.ttl)
    }

    /// Gives all leases their whole time again.
    pub(super) fn renew_all(&mut self, now: Duration) {
        for granted in self.granted.values_mut() {
            granted.end = now + granted.ttl;
        }
        self.ends = self.granted.iter().map(|(id, granted)| (granted.end, *id)).collect();
    }

    /// Removes a lease and gives its keys, in order.
    pub(super) fn remove(&mut self, id: LeaseId) -> Option<BTreeSet<Key>> {
        let granted = self.granted.remove(&id)?;
        self.ends.remove(&(granted.end, id));
        Some(granted.keys)
    }

    pub(super) fn contains(&self, id: LeaseId) -> bool {
        self.granted.contains_key(&id)
    }

    /// A lease and its end.
    pub(super) fn get(&self, id: LeaseId) -> Option<(Lease, Duration)> {
        self.granted.get(&id).map(|granted| (Lease { id, ttl: granted.ttl }, granted.end))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Lease> + '_ {
        self.granted.iter().map(|(id, granted)| Lease { id: *id, ttl: granted.ttl })
    }

    /// The lease that ends first, if there is one.
    pub(super) fn first_end(&self) -> Option<(Duration, LeaseId)> {
        self.ends.first().copied()
    }

    /// Moves the end of a lease ahead.
    #[cfg(feature = "_mutants")]
    pub(super) fn hasten(&mut self, id: LeaseId, by: Duration) {
        let Some(granted) = self.granted.get_mut(&id) else { return };
        self.ends.remove(&(granted.end, id));
        granted.end = granted.end.saturating_sub(by);
        self.ends.insert((granted.end, id));
    }

    /// Never ends a lease.
    #[cfg(feature = "_mutants")]
    pub(super) fn overlook(&mut self, id: LeaseId) {
        self.ends.retain(|(_, lease)| *lease != id);
    }

    pub(super) fn attach(&mut self, id: LeaseId, key: Key) {
        let granted = self.granted.get_mut(&id).expect("a put was checked to have a lease that exists");
        granted.keys.insert(key);
    }

    /// Nothing happens if the lease is gone: its keys are just being deleted.
    pub(super) fn detach(&mut self, id: LeaseId, key: &Key) {
        if let Some(granted) = self.granted.get_mut(&id) {
            granted.keys.remove(key);
        }
    }
}

/// Names for leases: a walk through all numbers below 2^53 in odd steps comes by each of them once, so no
/// name returns, and none has to be remembered.
#[derive(Debug, Clone)]
pub(super) struct LeaseIds {
    at: u64,
}

impl LeaseIds {
    const BELOW: u64 = 1 << 53;
    /// Odd, and spreads neighbours far apart (2^53 divided by the golden ratio).
    const STEP: u64 = 0x13_C6EF_372F_E94F;

    pub(super) fn new(seed: u64) -> Self {
        Self { at: seed % Self::BELOW }
    }

    pub(super) fn draw(&mut self) -> LeaseId {
        self.at = (self.at + Self::STEP) % Self::BELOW;
        if self.at == 0 {
            self.at = Self::STEP;
        }
        LeaseId(self.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A lease is never named 0, wherever the walk begins.
    #[test]
    fn no_lease_is_named_zero() {
        let mut ids = LeaseIds::new(LeaseIds::BELOW - LeaseIds::STEP);
        assert_ne!(ids.draw(), LeaseId(0));
    }
}
