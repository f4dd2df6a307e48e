use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use slipring_core::{Bytes, Change, Commit, Effect, Key, LeaseId, Op, Txn};
use slipring_memory::store::StoreEvent;

use super::Met;
use crate::fault::Fault;
use crate::history::{Call, Event, Failure, History, Moment, TxnStep};

pub(super) fn look(history: &History, met: &mut Met) {
    let mut writes = Writes::default();
    for moment in history.moments() {
        writes.step(moment, met);
    }
}

#[derive(Default)]
struct Writes<'a> {
    sent: BTreeMap<u64, Sent<'a>>,
    stored: BTreeMap<&'a Key, (Option<LeaseId>, &'a Bytes)>,
    dead: BTreeSet<Arc<str>>,
    /// A deletion by nobody's will is under way.
    struck: bool,
    deleted: BTreeSet<&'a Key>,
}

struct Sent<'a> {
    node: Arc<str>,
    at: Duration,
    txn: &'a Txn,
    applied: bool,
    given_up: bool,
}

impl<'a> Writes<'a> {
    fn step(&mut self, moment: &'a Moment, met: &mut Met) {
        let Moment { at, node, event } = moment;
        match event {
            Event::Txn { request, step } => self.txn(*request, step, *at, node, met),
            Event::GaveUp { call, sent, .. } => {
                met.add("call_given_up");
                if *call == Call::Commit {
                    let own = |one: &&mut Sent<'_>| one.node == *node && one.at == *sent;
                    self.sent.values_mut().filter(own).for_each(|one| one.given_up = true);
                }
            }
            Event::Died(_) => drop(self.dead.insert(node.clone())),
            Event::Struck(Fault::DeleteKey { .. }) => self.struck = true,
            Event::Store { event: StoreEvent::Committed(batch), .. } => {
                for change in &batch.changes {
                    self.change(change, met);
                }
                self.struck = false;
            }
            Event::Store { event: StoreEvent::Replaced { content, .. }, .. } => {
                self.stored = content.entries.iter().map(|one| (&one.key, (one.lease, &one.value))).collect();
            }
            _ => {}
        }
    }

    fn change(&mut self, change: &'a Change, met: &mut Met) {
        match change {
            Change::Put(entry) => {
                met.add_if(self.deleted.remove(&entry.key), "record_returned_after_deletion");
                let before = self.stored.insert(&entry.key, (entry.lease, &entry.value));
                let leases = before.and_then(|(lease, _)| lease).zip(entry.lease);
                met.add_if(leases.is_some_and(|(one, other)| one != other), "key_moved_to_another_lease");
            }
            Change::Delete(key) => {
                self.stored.remove(key);
                if self.struck {
                    self.deleted.insert(key);
                }
            }
        }
    }

    fn txn(&mut self, request: u64, step: &'a TxnStep, at: Duration, node: &Arc<str>, met: &mut Met) {
        if let TxnStep::Sent(txn) = step {
            let (node, applied, given_up) = (node.clone(), false, false);
            self.sent.insert(request, Sent { node, at, txn, applied, given_up });
            return;
        }
        let Some(sent) = self.sent.get_mut(&request) else { return };
        match step {
            TxnStep::Executed(Ok(Commit::Applied(_))) => {
                sent.applied = true;
                met.add_if(sent.given_up, "applied_after_caller_gave_up");
                met.add_if(self.dead.contains(&sent.node), "applied_after_node_died");
            }
            TxnStep::Executed(Ok(Commit::Refused)) => {
                met.add("write_refused");
                met.add_if(is_of_old_epoch(sent.txn, &self.stored), "old_epoch_refused");
            }
            TxnStep::Executed(Err(Failure { code: "lease_lost", .. })) => {
                met.add("write_with_lost_lease_refused");
            }
            TxnStep::Answered(Err(Failure { effect: Effect::Unknown, .. })) => {
                met.add(if sent.applied { "applied_and_told_unknown" } else { "lost_and_told_unknown" });
            }
            _ => {}
        }
    }
}

/// Would it have put a record of an earlier epoch in the place of a later one?
fn is_of_old_epoch(txn: &Txn, stored: &BTreeMap<&Key, (Option<LeaseId>, &Bytes)>) -> bool {
    txn.ops.iter().any(|op| {
        let Op::Put { key, value, .. } = op else { return false };
        let there = stored.get(key).and_then(|(_, value)| epoch(value));
        epoch(value).zip(there).is_some_and(|(new, there)| new < there)
    })
}

fn epoch(value: &[u8]) -> Option<u64> {
    #[derive(Deserialize)]
    struct Stamp {
        epoch: u64,
    }
    serde_json::from_slice::<Stamp>(value).ok().map(|stamp| stamp.epoch)
}
