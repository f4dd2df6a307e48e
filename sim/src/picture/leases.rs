use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use slipring_core::{Lease, LeaseId};
use slipring_memory::store::{LeaseEnd, StoreEvent};

use super::lanes::Lanes;
use super::scene::{Tracks, micros};
use crate::history::{Event, Moment};

/// A lease as the store sees it, in the lane of the node that was told of it first.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct LeaseBar {
    id: String,
    lane: usize,
    track: usize,
    ttl: u64,
    /// Each time at which it got its whole time.
    steps: Vec<Step>,
    to: u64,
    /// How it ended, and the event; none if it was there at the end.
    end: Option<(&'static str, usize)>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct Step {
    at: u64,
    /// When it ends now if nobody renews it. If the store's clock runs at another rate, this is where it would
    /// be at the rate of the whole run.
    deadline: u64,
    how: &'static str,
    event: usize,
}

pub(super) fn of(moments: &[Moment], lanes: &Lanes, end: u64) -> Vec<LeaseBar> {
    let mut bars =
        Bars { bars: Vec::new(), living: BTreeMap::new(), broker: lanes.broker(), rate: rate(moments), end };
    for (event, moment) in moments.iter().enumerate() {
        if let Event::Store { event: what, .. } = &moment.event {
            bars.follow(event, moment.at, what);
        }
        if let Event::Answered { lease: Some(lease), .. } = &moment.event {
            bars.tell_owner(*lease, lanes.number(&moment.node));
        }
    }
    let mut bars = bars.bars;
    let mut tracks: BTreeMap<usize, Tracks> = BTreeMap::new();
    for bar in &mut bars {
        let from = bar.steps.first().map_or(0, |step| step.at);
        bar.track = tracks.entry(bar.lane).or_default().place(from, bar.to);
    }
    bars
}

struct Bars {
    bars: Vec<LeaseBar>,
    living: BTreeMap<LeaseId, usize>,
    broker: usize,
    rate: f64,
    end: u64,
}

impl Bars {
    fn follow(&mut self, event: usize, at: Duration, what: &StoreEvent) {
        match what {
            StoreEvent::Granted(lease) => self.fill(event, at, lease, "granted"),
            StoreEvent::Renewed(lease) => self.fill(event, at, lease, "renewed"),
            StoreEvent::Revived { by } => self.revive(event, at, *by),
            StoreEvent::Ended { lease, end } => {
                let how = if *end == LeaseEnd::Expired { "expired" } else { "revoked" };
                self.finish(*lease, event, at, how);
            }
            StoreEvent::Replaced { leases, .. } => {
                let gone = |id: &&LeaseId| leases.iter().all(|lease| lease.id != **id);
                let gone: Vec<LeaseId> = self.living.keys().filter(gone).copied().collect();
                gone.into_iter().for_each(|id| self.finish(id, event, at, "replaced"));
                leases.iter().for_each(|lease| self.fill(event, at, lease, "restored"));
            }
            _ => {}
        }
    }

    fn fill(&mut self, event: usize, at: Duration, lease: &Lease, how: &'static str) {
        let step = self.step(event, at, lease.ttl, how);
        if let Some(bar) = self.living.get(&lease.id) {
            self.bars[*bar].steps.push(step);
            return;
        }
        self.living.insert(lease.id, self.bars.len());
        self.bars.push(LeaseBar {
            id: lease.id.to_string(),
            lane: self.broker,
            track: 0,
            ttl: micros(lease.ttl),
            steps: vec![step],
            to: self.end,
            end: None,
        });
    }

    fn revive(&mut self, event: usize, at: Duration, by: Duration) {
        for bar in self.living.values() {
            let ttl = Duration::from_micros(self.bars[*bar].ttl);
            let step = self.step(event, at, ttl + by, "revived");
            self.bars[*bar].steps.push(step);
        }
    }

    fn finish(&mut self, lease: LeaseId, event: usize, at: Duration, how: &'static str) {
        if let Some(bar) = self.living.remove(&lease) {
            (self.bars[bar].to, self.bars[bar].end) = (micros(at), Some((how, event)));
        }
    }

    fn tell_owner(&mut self, lease: LeaseId, lane: usize) {
        if let Some(bar) = self.living.get(&lease)
            && self.bars[*bar].lane == self.broker
        {
            self.bars[*bar].lane = lane;
        }
    }

    fn step(&self, event: usize, at: Duration, left: Duration, how: &'static str) -> Step {
        Step { at: micros(at), deadline: micros(at + left.div_f64(self.rate)), how, event }
    }
}

/// How fast the store's clock ran, over the whole run.
fn rate(moments: &[Moment]) -> f64 {
    let last = moments.iter().rev().find_map(|moment| match &moment.event {
        Event::Store { clock, .. } => Some((clock.as_secs_f64(), moment.at.as_secs_f64())),
        _ => None,
    });
    last.map_or(1.0, |(clock, at)| clock / at).clamp(SLOWEST, 1.0 / SLOWEST)
}

/// A clock that seems to be slower than this did not run all the time.
const SLOWEST: f64 = 0.5;

#[cfg(test)]
mod tests {
    use slipring_core::{Revision, Snapshot};

    use super::*;
    use crate::history::{Call, History};

    const TTL: Duration = Duration::from_secs(6);

    fn bars(events: impl IntoIterator<Item = (u64, Event)>) -> Vec<LeaseBar> {
        let moment = |(second, event)| {
            let node = if matches!(event, Event::Store { .. }) { "store" } else { "worker#2" };
            Moment { at: Duration::from_secs(second), node: node.into(), event }
        };
        let history = History::new(events.into_iter().map(moment).collect());
        of(history.moments(), &Lanes::of(&history), 100_000_000)
    }

    fn store(second: u64, event: StoreEvent) -> (u64, Event) {
        (second, Event::Store { clock: Duration::from_secs(second), event })
    }

    fn lease(id: u64) -> Lease {
        Lease { id: LeaseId(id), ttl: TTL }
    }

    fn steps(bar: &LeaseBar) -> Vec<(u64, u64, &str)> {
        bar.steps.iter().map(|step| (step.at / 1_000_000, step.deadline / 1_000_000, step.how)).collect()
    }

    /// A bar has each time at which its lease was filled up and the deadline from then on, ends as the lease
    /// did, and stands with the node that was told of it.
    #[test]
    fn a_bar_is_the_life_of_a_lease() {
        let told = Event::Answered { call: Call::Grant, sent: TTL, lease: Some(LeaseId(1)), code: None };
        let bars = bars([
            store(1, StoreEvent::Granted(lease(1))),
            (2, told),
            store(4, StoreEvent::Renewed(lease(1))),
            store(5, StoreEvent::Revived { by: Duration::from_secs(1) }),
            store(12, StoreEvent::Ended { lease: LeaseId(1), end: LeaseEnd::Expired }),
        ]);
        assert_eq!(bars.len(), 1);
        assert_eq!(steps(&bars[0]), [(1, 7, "granted"), (4, 10, "renewed"), (5, 12, "revived")]);
        assert_eq!((bars[0].lane, bars[0].to, bars[0].end), (1, 12_000_000, Some(("expired", 4))));
    }

    /// A lease of which nobody was told is the broker's. One that a replaced store does not have is gone, one
    /// that it has begins anew, and one that nobody ends is there at the end.
    #[test]
    fn a_replaced_store_has_its_own_leases() {
        let content = Snapshot { revision: Revision(1), entries: Vec::new() };
        let bars = bars([
            store(1, StoreEvent::Granted(lease(1))),
            store(1, StoreEvent::Granted(lease(2))),
            store(3, StoreEvent::Replaced { content, leases: vec![lease(2)] }),
        ]);
        assert_eq!((bars[0].lane, bars[0].to, bars[0].end), (0, 3_000_000, Some(("replaced", 2))));
        assert_eq!(steps(&bars[1]), [(1, 7, "granted"), (3, 9, "restored")]);
        assert_eq!((bars[1].to, bars[1].end, bars[1].track), (100_000_000, None, 1));
    }

    /// If the store's clock runs at half the speed, its leases last twice as long.
    #[test]
    fn a_deadline_is_in_virtual_time() {
        let slow =
            |second: u64, event| (second, Event::Store { clock: Duration::from_secs(second) / 2, event });
        let bars = bars([slow(2, StoreEvent::Granted(lease(1))), slow(4, StoreEvent::Renewed(lease(1)))]);
        assert_eq!(steps(&bars[0]), [(2, 14, "granted"), (4, 16, "renewed")]);
    }
}
