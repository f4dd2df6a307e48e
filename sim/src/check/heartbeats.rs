use std::collections::BTreeMap;
use std::time::Duration;

use slipring_core::{Lease, LeaseId};
use slipring_memory::store::StoreEvent;

use super::{Findings, Terms};
use crate::history::{Call, Event, History};

/// L5, L6, L8: what a lease's holder is told.
pub(super) fn check(history: &History, terms: &Terms, found: &mut Findings<'_>) {
    let mut leases: BTreeMap<LeaseId, Life> = BTreeMap::new();
    for (place, moment) in history.moments().iter().enumerate() {
        match &moment.event {
            Event::Store { event, .. } => follow(&mut leases, place, moment.at, event),
            Event::Leased { asked, lease } => told(&leases, place, *asked, *lease, terms, found),
            Event::Answered { call: Call::KeepAlive, sent, lease: Some(lease), code: None } => {
                let Some(life) = leases.get(lease) else { continue };
                if life.was_gone(*sent) {
                    found.add("L5", [life.turned, place], format!("lease {lease} is renewed, and was gone"));
                } else if life.renewed.is_none_or(|renewed| renewed < *sent) {
                    let what = format!("a heartbeat of lease {lease} is acknowledged, and renewed nothing");
                    found.add("L6", [life.turned, place], what);
                }
            }
            Event::Answered { call: Call::Revoke, sent, lease: Some(lease), code: None } => {
                let gone = leases.get(lease).filter(|life| life.was_gone(*sent));
                if let Some(life) = gone {
                    found.add("L5", [life.turned, place], format!("lease {lease} is revoked, and was gone"));
                }
            }
            _ => {}
        }
    }
}

/// What became of a lease.
struct Life {
    granted: Option<Lease>,
    renewed: Option<Duration>,
    /// Since when it is gone.
    gone: Option<Duration>,
    /// The last change.
    turned: usize,
}

impl Life {
    fn new(granted: Option<Lease>, place: usize) -> Self {
        Self { granted, renewed: None, gone: None, turned: place }
    }

    fn was_gone(&self, sent: Duration) -> bool {
        self.gone.is_some_and(|gone| gone < sent)
    }
}

fn follow(leases: &mut BTreeMap<LeaseId, Life>, place: usize, at: Duration, event: &StoreEvent) {
    match event {
        StoreEvent::Granted(lease) => drop(leases.insert(lease.id, Life::new(Some(*lease), place))),
        StoreEvent::Renewed(lease) => {
            let life = leases.entry(lease.id).or_insert_with(|| Life::new(None, place));
            life.renewed = Some(at);
        }
        StoreEvent::Ended { lease, .. } => {
            let life = leases.entry(*lease).or_insert_with(|| Life::new(None, place));
            (life.gone, life.turned) = (Some(at), place);
        }
        StoreEvent::Replaced { leases: kept, .. } => {
            leases.values_mut().for_each(|life| {
                life.gone.get_or_insert(at);
            });
            for lease in kept {
                let life = leases.entry(lease.id).or_insert_with(|| Life::new(None, place));
                (life.gone, life.turned) = (None, place);
            }
        }
        _ => {}
    }
}

fn told(
    leases: &BTreeMap<LeaseId, Life>,
    place: usize,
    asked: Duration,
    lease: Lease,
    terms: &Terms,
    found: &mut Findings<'_>,
) {
    let floor = asked.max(terms.profile.discovery.ttl_min);
    let granted = leases.get(&lease.id).and_then(|life| Some((life.granted?, life.turned)));
    if lease.ttl < floor {
        found.add("L8", [place], format!("lease {} has {:?}, less than {floor:?}", lease.id, lease.ttl));
    } else if let Some((granted, at)) = granted.filter(|(granted, _)| granted.ttl != lease.ttl) {
        let what =
            format!("lease {} has {:?}, and its holder is told {:?}", lease.id, granted.ttl, lease.ttl);
        found.add("L8", [at, place], what);
    }
}
