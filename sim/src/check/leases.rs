use std::collections::BTreeMap;
use std::time::Duration;

use slipring_core::{Lease, LeaseId};
use slipring_memory::store::{LeaseEnd, StoreEvent};

use super::{Findings, Terms};
use crate::history::{Event, History};

/// L1, L2, L5, L7, L8: on the store's clock.
pub(super) fn check(history: &History, terms: &Terms, found: &mut Findings<'_>) {
    let mut leases = Leases(BTreeMap::new());
    for (place, moment) in history.moments().iter().enumerate() {
        let Event::Store { clock, event } = &moment.event else { continue };
        if let StoreEvent::Ended { lease, end: LeaseEnd::Expired } = event {
            leases.expire(*clock, place, *lease, found);
        }
        // A store that was down ends nothing, and then gives all of them their time again.
        if !matches!(event, StoreEvent::Revived { .. } | StoreEvent::Replaced { .. }) {
            for (lease, granted, late) in leases.take_overdue(*clock, terms) {
                let what = format!("lease {lease} is there {late:?} after its end");
                found.add("L2", [granted.place, place], what);
            }
        }
        leases.follow(*clock, place, event, terms, found);
    }
}

/// The leases that are there.
struct Leases(BTreeMap<LeaseId, Granted>);

#[derive(Clone, Copy)]
struct Granted {
    ttl: Duration,
    /// The end of its time since it was granted or renewed.
    earned: Duration,
    /// When it ends: a new leader may have given it more.
    end: Duration,
    /// Where that was decided.
    place: usize,
}

impl Leases {
    fn expire(&self, clock: Duration, place: usize, lease: LeaseId, found: &mut Findings<'_>) {
        let Some(Granted { earned, end, place: granted, .. }) = self.0.get(&lease).copied() else { return };
        if clock < earned {
            found.add("L1", [granted, place], format!("lease {lease} ended {:?} too early", earned - clock));
        } else if clock < end {
            let what = format!("lease {lease} ended {:?} before the new leader said", end - clock);
            found.add("L7", [granted, place], what);
        }
    }

    fn follow(
        &mut self,
        clock: Duration,
        place: usize,
        event: &StoreEvent,
        terms: &Terms,
        found: &mut Findings<'_>,
    ) {
        match event {
            StoreEvent::Granted(lease) => {
                let floor = terms.profile.discovery.ttl_min;
                if lease.ttl < floor {
                    let what = format!("lease {} has {:?}, less than {floor:?}", lease.id, lease.ttl);
                    found.add("L8", [place], what);
                }
                self.insert(*lease, clock, place);
            }
            StoreEvent::Renewed(lease) => {
                match self.0.get(&lease.id) {
                    None => found.add("L5", [place], format!("lease {} is renewed, and gone", lease.id)),
                    Some(granted) if granted.end <= clock => {
                        let what = format!("lease {} is renewed after its end", lease.id);
                        found.add("L5", [granted.place, place], what);
                    }
                    Some(_) => {}
                }
                self.insert(*lease, clock, place);
            }
            StoreEvent::Ended { lease, .. } => drop(self.0.remove(lease)),
            StoreEvent::Revived { by } => {
                if *by > terms.lease_extension_max {
                    found.add("L7", [place], format!("all leases get {by:?} more than their time"));
                }
                for granted in self.0.values_mut() {
                    granted.end = clock + granted.ttl + *by;
                    granted.place = place;
                }
            }
            StoreEvent::Replaced { leases, .. } => {
                self.0.clear();
                leases.iter().for_each(|lease| self.insert(*lease, clock, place));
            }
            _ => {}
        }
    }

    fn insert(&mut self, lease: Lease, clock: Duration, place: usize) {
        let end = clock + lease.ttl;
        self.0.insert(lease.id, Granted { ttl: lease.ttl, earned: end, end, place });
    }

    /// Takes out those that should have ended long ago, each with how long. The store looks at intervals, and
    /// may need several looks if many leases are due.
    fn take_overdue(&mut self, clock: Duration, terms: &Terms) -> Vec<(LeaseId, Granted, Duration)> {
        let profile = &terms.profile;
        let looks = 1 + self.0.len() / profile.expiries_per_scan.max(1);
        let slack = profile.expiry_granularity * u32::try_from(looks).unwrap_or(u32::MAX);
        let is_overdue = |granted: &Granted| clock > granted.end + slack;
        let overdue = self.0.iter().filter(|(_, granted)| is_overdue(granted));
        let overdue: Vec<_> =
            overdue.map(|(lease, granted)| (*lease, *granted, clock - granted.end)).collect();
        for (lease, ..) in &overdue {
            self.0.remove(lease);
        }
        overdue
    }
}
