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
