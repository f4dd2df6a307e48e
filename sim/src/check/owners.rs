use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use slipring_core::{Fact, LeaseId};

use super::calm::Calm;
use super::{Findings, Terms};
use crate::history::{Call, Event, History, Moment};

/// L10, L11: what an owner believes of its lease, by its own clock.
pub(super) fn check(history: &History, terms: &Terms, found: &mut Findings<'_>) {
    let rate_ppm = terms.profile.clock_rate_ppm;
    let mut owners =
        Owners { rate_ppm, calm: Calm::default(), held: BTreeMap::new(), asked: BTreeMap::new() };
    let mut looked = Duration::ZERO;
    for (place, moment) in history.moments().iter().enumerate() {
        owners.calm.follow(moment);
        // Nothing is too late before time has passed.
        if moment.at > looked {
            looked = moment.at;
            owners.find_late(place, moment.at, found);
        }
        owners.step(place, moment, found);
    }
}

struct Owners<'a> {
    rate_ppm: u32,
    calm: Calm<'a>,
    held: BTreeMap<Owner, Held>,
    /// When the leases were asked for, and for how long they were granted.
    asked: BTreeMap<LeaseId, (Duration, Duration)>,
}

/// A node, and the instance of one of its runtimes.
type Owner = (Arc<str>, u64);

struct Held {
    lease: LeaseId,
    ttl: Duration,
    epoch: u64,
    /// When the last heartbeat was sent that was acknowledged.
    proven: Duration,
    /// When the last one was sent.
    sent: Duration,
    /// Where the last sign of life was.
    place: usize,
}

/// Timers ring at whole milliseconds.
const TIMER_SLACK: Duration = Duration::from_millis(2);

impl<'a> Owners<'a> {
    fn step(&mut self, place: usize, moment: &'a Moment, found: &mut Findings<'_>) {
        let Moment { at, node, event } = moment;
        match event {
            Event::Answered { call: Call::Grant, sent, lease: Some(lease), code: None } => {
                self.asked.entry(*lease).or_insert((*sent, Duration::ZERO)).0 = *sent;
            }
            Event::Leased { lease, .. } => {
                self.asked.entry(lease.id).or_insert((*at, Duration::ZERO)).1 = lease.ttl;
            }
            Event::Answered { call: Call::KeepAlive, sent, lease: Some(lease), code } => {
                self.beat(place, node, *lease, *sent, code.is_none(), found);
            }
            Event::GaveUp { call: Call::KeepAlive, sent, lease: Some(lease) } => {
                self.beat(place, node, *lease, *sent, false, found);
            }
            Event::Fact(fact) => self.fact(place, *at, node, fact, found),
            Event::Died(_) => self.held.retain(|(owner, _), _| owner != node),
            _ => {}
        }
    }

    fn fact(&mut self, place: usize, at: Duration, node: &Arc<str>, fact: &Fact, found: &mut Findings<'_>) {
        match fact {
            Fact::LeaseHeld { instance, lease, epoch } => {
                // A lease that was not asked for over this link says nothing of its time.
                let Some((asked, ttl)) = self.asked.remove(lease) else { return };
                // A grant that took long is followed by a heartbeat at once.
                let sent = asked.max(at.saturating_sub(ttl / 3));
                let held = Held { lease: *lease, ttl, epoch: *epoch, proven: asked, sent, place };
                self.held.insert((node.clone(), *instance), held);
            }
            Fact::LeaseLost { instance, .. } | Fact::LeaseReleased { instance, .. } => {
                self.held.remove(&(node.clone(), *instance));
            }
            Fact::RequestAccepted { instance, epoch: Some(epoch), .. } => {
                let held = self.held.get(&(node.clone(), *instance));
                let late = held.filter(|held| held.epoch == *epoch && at >= self.deadline(held));
                if let Some(held) = late {
                    let what = format!(
                        "instance {instance:x} accepts a request {:?} after the end of lease {}",
                        at - self.deadline(held),
                        held.lease
                    );
                    found.add("L10", [held.place, place], what);
                }
            }
            _ => {}
        }
    }

    fn beat(
        &mut self,
        place: usize,
        node: &Arc<str>,
        lease: LeaseId,
        sent: Duration,
        acknowledged: bool,
        found: &mut Findings<'_>,
    ) {
        let resumed = self.calm.resumed(node);
        let held = self.held.iter_mut().find(|((owner, _), held)| owner == node && held.lease == lease);
        let Some((_, held)) = held else { return };
        let gap = sent.saturating_sub(held.sent);
        let paused = self.calm.is_paused(node) || resumed.is_some_and(|resumed| resumed >= held.sent);
        if gap > held.ttl / 3 + TIMER_SLACK && !paused {
            let what = format!("lease {lease} of {:?} is renewed after {gap:?}", held.ttl);
            found.add("L11", [held.place, place], what);
        }
        held.sent = held.sent.max(sent);
        held.place = place;
        if acknowledged {
            held.proven = held.proven.max(sent);
        }
    }

    /// L10: who should have said by now that its lease is lost, before anybody else can see it.
    fn find_late(&mut self, place: usize, now: Duration, found: &mut Findings<'_>) {
        let late = |((node, _), held): (&Owner, &Held)| {
            let woken = self.calm.resumed(node).unwrap_or_default();
            now > self.deadline(held).max(woken) && !self.calm.is_paused(node) && !self.calm.is_dead(node)
        };
        let late: Vec<Owner> =
            self.held.iter().filter(|entry| late(*entry)).map(|(owner, _)| owner.clone()).collect();
        for owner in late {
            let Some(held) = self.held.remove(&owner) else { continue };
            let what = format!("{} still holds lease {}, whose time is over", owner.0, held.lease);
            found.add("L10", [held.place, place], what);
        }
    }

    /// From when on the store may have ended a lease: its clock may be the faster one.
    fn deadline(&self, held: &Held) -> Duration {
        let nanos = held.ttl.as_nanos() * 1_000_000 / u128::from(self.rate_ppm.max(1_000_000));
        held.proven + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}
