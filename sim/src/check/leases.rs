use std::collections::BTreeMap;
use std::time::Duration;

use slipring_core::{Lease, LeaseId};
use slipring_memory::Profile;
use slipring_memory::store::{LeaseEnd, StoreEvent};

use super::Violation;
use crate::history::{Event, History};

/// L1, L2: on the store's clock.
pub(super) fn check(history: &History, profile: &Profile) -> Vec<Violation> {
    let mut violations = Vec::new();
    let mut leases = Leases::default();
    for moment in history.moments() {
        let Event::Store { clock, event } = &moment.event else { continue };
        let mut violate = |invariant, what| violations.push(Violation { invariant, at: moment.at, what });
        if let StoreEvent::Ended { lease, end: LeaseEnd::Expired } = event
            && let Some((_, end)) = leases.0.get(lease).filter(|(_, end)| clock < end)
        {
            violate("L1", format!("lease {lease} ended {:?} too early", *end - *clock));
        }
        // A store that was down ends nothing, and then gives all of them their time again.
        if !matches!(event, StoreEvent::Revived { .. } | StoreEvent::Replaced { .. }) {
            for (lease, late) in leases.take_overdue(*clock, profile) {
                violate("L2", format!("lease {lease} is there {late:?} after its end"));
            }
        }
        leases.follow(*clock, event);
    }
    violations
}

/// The leases that are there, with their times to live and their ends.
#[derive(Default)]
struct Leases(BTreeMap<LeaseId, (Duration, Duration)>);

impl Leases {
    fn follow(&mut self, clock: Duration, event: &StoreEvent) {
        match event {
            StoreEvent::Granted(lease) | StoreEvent::Renewed(lease) => self.insert(*lease, clock),
            StoreEvent::Ended { lease, .. } => {
                self.0.remove(lease);
            }
            StoreEvent::Revived { by } => {
                self.0.values_mut().for_each(|(ttl, end)| *end = clock + *ttl + *by);
            }
            StoreEvent::Replaced { leases, .. } => {
                self.0.clear();
                leases.iter().for_each(|lease| self.insert(*lease, clock));
            }
            _ => {}
        }
    }

    fn insert(&mut self, lease: Lease, clock: Duration) {
        self.0.insert(lease.id, (lease.ttl, clock + lease.ttl));
    }

    /// Takes out those that should have ended long ago, each with how long. The store looks at intervals, and
    /// may need several looks if many leases are due.
    fn take_overdue(&mut self, clock: Duration, profile: &Profile) -> Vec<(LeaseId, Duration)> {
        let looks = 1 + self.0.len() / profile.expiries_per_scan.max(1);
        let slack = profile.expiry_granularity * u32::try_from(looks).unwrap_or(u32::MAX);
        let overdue = self.0.iter().filter(|(_, (_, end))| clock > *end + slack);
        let overdue: Vec<_> = overdue.map(|(lease, (_, end))| (*lease, clock - *end)).collect();
        self.0.retain(|_, (_, end)| clock <= *end + slack);
        overdue
    }
}
