use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use slipring_core::{Change, Fact, LeaseId, Op};
use slipring_memory::store::{LeaseEnd, StoreEvent};

use super::Met;
use crate::fault::Fault;
use crate::history::{Call, Event, History, Moment, TxnStep};

pub(super) fn look(history: &History, met: &mut Met) {
    let mut leases = Leases::default();
    for moment in history.moments() {
        leases.step(moment, met);
    }
}

#[derive(Default)]
struct Leases {
    live: BTreeMap<LeaseId, Life>,
    /// When leases were granted of which nobody was told.
    untold: BTreeMap<LeaseId, Duration>,
    /// The lease that ended last, and when on the store's clock; its deletions may follow.
    ended: Option<(LeaseId, Duration, usize)>,
    paused: BTreeSet<Arc<str>>,
    store_resumed: Option<Duration>,
    /// Of each instance.
    held: BTreeMap<u64, LeaseId>,
}

struct Life {
    ttl: Duration,
    /// The end of its time without what a new leader gave, and with it, on the store's clock.
    earned: Duration,
    end: Duration,
    renewed: Duration,
    keys: usize,
    owner: Option<Arc<str>>,
    written: bool,
    /// A heartbeat counted whose answer was lost.
    answer_lost: bool,
}

impl Leases {
    fn step(&mut self, moment: &Moment, met: &mut Met) {
        let Moment { at, node, event } = moment;
        match event {
            Event::Store { clock, event } => self.store(*at, *clock, event, met),
            Event::Leased { lease, .. } => {
                self.untold.remove(&lease.id);
                if let Some(life) = self.live.get_mut(&lease.id) {
                    life.owner = Some(node.clone());
                }
            }
            Event::GaveUp { call, sent, lease } => self.lost(*call, *sent, *lease, met),
            Event::Answered { call, sent, lease, code: Some(code) } => {
                met.add_if(*call == Call::KeepAlive && *code == "lease_lost", "heartbeat_too_late");
                met.add_if(*call == Call::Revoke && *code == "lease_lost", "revoke_met_expiry");
                if *code == "unavailable" {
                    self.lost(*call, *sent, *lease, met);
                }
            }
            Event::Txn { step: TxnStep::Sent(txn), .. } => {
                for op in &txn.ops {
                    if let Op::Put { lease: Some(lease), .. } = op
                        && let Some(life) = self.live.get_mut(lease)
                    {
                        life.written = true;
                    }
                }
            }
            Event::Paused => drop(self.paused.insert(node.clone())),
            Event::Resumed => drop(self.paused.remove(node)),
            Event::Healed(Fault::PauseStore { .. }) => self.store_resumed = Some(*at),
            Event::Fact(fact) => self.fact(fact, met),
            Event::Died(_) => {
                let own = |life: &Life| life.owner.as_ref() == Some(node) && !life.written;
                met.add_if(self.live.values().any(own), "died_between_grant_and_register");
            }
            Event::Began => {
                let before = |owner: &Arc<str>| owner != node && place(owner) == place(node);
                let reborn = self.live.values().any(|life| life.owner.as_ref().is_some_and(before));
                met.add_if(reborn, "reborn_while_old_lease_lived");
            }
            _ => {}
        }
    }

    fn store(&mut self, at: Duration, clock: Duration, event: &StoreEvent, met: &mut Met) {
        match event {
            StoreEvent::Granted(lease) => {
                let end = clock + lease.ttl;
                let (owner, written, answer_lost) = Default::default();
                let (ttl, renewed, keys) = (lease.ttl, at, 0);
                let life = Life { ttl, earned: end, end, renewed, keys, owner, written, answer_lost };
                self.live.insert(lease.id, life);
                self.untold.insert(lease.id, at);
            }
            StoreEvent::Renewed(lease) => {
                let Some(life) = self.live.get_mut(&lease.id) else { return };
                met.add_if(clock + life.ttl / 10 >= life.end, "lease_renewed_in_its_last_tenth");
                met.add_if(clock >= life.earned, "lease_saved_by_failover");
                met.add_if(life.answer_lost, "heartbeat_answer_lost_lease_lived");
                (life.earned, life.end, life.renewed) = (clock + life.ttl, clock + life.ttl, at);
            }
            StoreEvent::Revived { by } => {
                self.live.values_mut().for_each(|life| life.end = clock + life.ttl + *by);
            }
            StoreEvent::Ended { lease, end: LeaseEnd::Expired } => self.expire(at, clock, *lease, met),
            StoreEvent::Ended { lease, .. } => drop(self.live.remove(lease)),
            StoreEvent::Committed(batch) => {
                if let Some((_, _, keys)) = self.ended.as_mut().filter(|(_, then, _)| *then == clock) {
                    *keys = batch.changes.len();
                    met.add_if(*keys > 1, "lease_of_several_keys_expired");
                }
                for change in &batch.changes {
                    if let Change::Put(entry) = change
                        && let Some(life) = entry.lease.and_then(|lease| self.live.get_mut(&lease))
                    {
                        (life.keys, life.written) = (life.keys + 1, true);
                    }
                }
            }
            StoreEvent::Replaced { .. } => self.live.clear(),
            _ => {}
        }
        if !matches!(event, StoreEvent::Ended { .. }) {
            self.ended = None;
        }
    }

    fn expire(&mut self, at: Duration, clock: Duration, lease: LeaseId, met: &mut Met) {
        met.add("lease_expired");
        met.add_if(self.store_resumed == Some(at), "lease_expired_when_store_went_on");
        met.add_if(self.ended.is_some_and(|(_, then, _)| then == clock), "leases_expired_together");
        if let Some(life) = self.live.remove(&lease) {
            met.add_if(life.keys == 0, "lease_without_keys_expired");
            met.add_if(life.end > life.earned, "lease_expired_after_failover");
            let asleep = life.owner.as_ref().is_some_and(|owner| self.paused.contains(owner));
            met.add_if(asleep, "lease_expired_while_owner_paused");
        }
        self.ended = Some((lease, clock, 0));
    }

    /// A call had no answer, or one that says that it was lost.
    fn lost(&mut self, call: Call, sent: Duration, lease: Option<LeaseId>, met: &mut Met) {
        match (call, lease) {
            (Call::KeepAlive, Some(lease)) => {
                if let Some(life) = self.live.get_mut(&lease) {
                    life.answer_lost |= life.renewed >= sent;
                }
            }
            (Call::Grant, _) => {
                met.add_if(self.untold.values().any(|granted| *granted >= sent), "grant_answer_lost");
            }
            _ => {}
        }
    }

    fn fact(&mut self, fact: &Fact, met: &mut Met) {
        match fact {
            Fact::LeaseLost { lease, .. } => {
                met.add_if(self.live.contains_key(lease), "owner_knew_before_the_store");
            }
            Fact::LeaseHeld { instance, lease, .. } => {
                let before = self.held.insert(*instance, *lease);
                let lives = before.is_some_and(|before| before != *lease && self.live.contains_key(&before));
                met.add_if(lives, "new_lease_before_old_one_ended");
            }
            _ => {}
        }
    }
}

/// The name of a node, whichever of its lives it is.
fn place(node: &str) -> &str {
    node.split_once('#').map_or(node, |(place, _)| place)
}
