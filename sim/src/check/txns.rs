use std::collections::{BTreeMap, BTreeSet};

use slipring_core::{Batch, Change, Commit, Effect, Guard, LeaseId, Op, Revision, Txn};
use slipring_memory::store::StoreEvent;

use super::Findings;
use super::replay::Replay;
use crate::history::{Event, Failure, History, TxnStep};

/// K1, K3, K5, K8, K9, K10, L4 and L5, as far as transactions show them.
pub(super) fn check(history: &History, found: &mut Findings<'_>) {
    let mut txns = Txns {
        replay: Replay::new(),
        last: None,
        by_lease: false,
        requests: BTreeMap::new(),
        ended: BTreeSet::new(),
    };
    for (place, moment) in history.moments().iter().enumerate() {
        match &moment.event {
            Event::Store { event, .. } => txns.store(place, event),
            Event::Txn { request, step } => txns.step(place, *request, step, found),
            _ => {}
        }
    }
}

struct Txns<'a> {
    /// The store without the last commit.
    replay: Replay<'a>,
    last: Option<(usize, &'a Batch)>,
    /// The next commit is the end of a lease.
    by_lease: bool,
    requests: BTreeMap<u64, Request<'a>>,
    ended: BTreeSet<LeaseId>,
}

/// A transaction on its way.
#[derive(Default)]
struct Request<'a> {
    sent: Option<(usize, &'a Txn)>,
    arrived: Option<usize>,
    executed: Option<(usize, Result<Commit, Failure>)>,
    /// Did it change anything?
    effective: bool,
    /// Its caller was told that nothing happened.
    denied: Option<usize>,
}

impl<'a> Txns<'a> {
    fn store(&mut self, place: usize, event: &'a StoreEvent) {
        self.settle();
        match event {
            StoreEvent::Committed(batch) if self.by_lease => self.replay.apply(batch),
            StoreEvent::Committed(batch) => self.last = Some((place, batch)),
            other => self.replay.follow(other),
        }
        self.by_lease = match event {
            StoreEvent::Ended { lease, .. } => {
                self.ended.insert(*lease);
                !self.replay.keys_of(*lease).is_empty()
            }
            // The keys of a lease may go at one revision each.
            StoreEvent::Committed(_) => false,
            StoreEvent::Replaced { leases, .. } => {
                for lease in leases {
                    self.ended.remove(&lease.id);
                }
                false
            }
            _ => false,
        };
    }

    fn settle(&mut self) {
        if let Some((_, batch)) = self.last.take() {
            self.replay.apply(batch);
        }
    }

    fn step(&mut self, place: usize, number: u64, step: &'a TxnStep, found: &mut Findings<'_>) {
        let mut request = self.requests.remove(&number).unwrap_or_default();
        match step {
            TxnStep::Sent(txn) => request.sent = Some((place, txn)),
            TxnStep::Arrived => request.arrived = Some(place),
            TxnStep::Executed(outcome) => {
                self.execute(place, number, &mut request, *outcome, found);
                request.executed = Some((place, *outcome));
            }
            TxnStep::Answered(outcome) => answer(place, number, &mut request, *outcome, found),
        }
        self.requests.insert(number, request);
    }

    fn execute(
        &mut self,
        place: usize,
        number: u64,
        request: &mut Request<'a>,
        outcome: Result<Commit, Failure>,
        found: &mut Findings<'_>,
    ) {
        let Some((sent, txn)) = request.sent else { return };
        if let Some((before, _)) = request.executed {
            found.add("K9", [sent, before, place], format!("transaction {number} is executed twice"));
        }
        // Its commit is what the store did last before it says so.
        let arrived = request.arrived.unwrap_or(sent);
        let own = self.last.take_if(|(at, _)| *at + 1 == place && *at > arrived);
        self.settle();
        let places = || vec![sent, own.map_or(place, |(at, _)| at), place];
        match outcome {
            Ok(Commit::Applied(revision)) => {
                self.guards_held(txn, number, &places(), found);
                self.leases_live(txn, number, &places(), found);
                let changes = txn.ops.iter().filter(|op| match op {
                    Op::Put { .. } => true,
                    Op::Delete { key } => self.replay.entries.contains_key(key),
                });
                let changes: Vec<&Op> = changes.collect();
                request.effective = !changes.is_empty();
                if let Some((invariant, what)) = unlike(&changes, own.map(|(_, batch)| batch), revision) {
                    found.add(invariant, places(), format!("transaction {number} {what}"));
                }
            }
            Ok(Commit::Refused) => {
                if own.is_some() {
                    found.add(
                        "K3",
                        places(),
                        format!("transaction {number} is refused, and makes a revision"),
                    );
                } else if txn.guards.iter().all(|guard| self.holds(guard)) {
                    found.add(
                        "K1",
                        places(),
                        format!("transaction {number} is refused, and its guards hold"),
                    );
                }
            }
            Err(Failure { code, .. }) => {
                if own.is_some() {
                    found.add("K9", places(), format!("transaction {number} fails ({code}), and is applied"));
                }
            }
        }
        if let Some(denied) = request.denied.filter(|_| request.effective) {
            let what =
                format!("transaction {number} is applied, and its caller was told that it would not be");
            found.add("K9", [sent, denied, place], what);
        }
        if let Some((_, batch)) = own {
            self.replay.apply(batch);
        }
    }

    fn guards_held(&self, txn: &Txn, number: u64, places: &[usize], found: &mut Findings<'_>) {
        for guard in txn.guards.iter().filter(|guard| !self.holds(guard)) {
            let (invariant, what) = match guard {
                Guard::Absent(key) => ("K8", format!("creates {key}, which is there")),
                Guard::Unchanged(key, revision) => {
                    ("K5", format!("takes {key} for what it was at revision {revision}"))
                }
            };
            found.add(invariant, places, format!("transaction {number} {what}"));
        }
    }

    fn leases_live(&self, txn: &Txn, number: u64, places: &[usize], found: &mut Findings<'_>) {
        let leases = txn.ops.iter().filter_map(|op| match op {
            Op::Put { lease, .. } => *lease,
            Op::Delete { .. } => None,
        });
        if let Some(lease) = leases.into_iter().find(|lease| self.ended.contains(lease)) {
            found.add("L5", places, format!("transaction {number} writes with lease {lease}, which ended"));
        }
    }

    fn holds(&self, guard: &Guard) -> bool {
        match guard {
            Guard::Absent(key) => !self.replay.entries.contains_key(key),
            Guard::Unchanged(key, revision) => {
                self.replay.entries.get(key).is_some_and(|entry| entry.modified == *revision)
            }
        }
    }
}

/// How a commit differs from what it should be.
fn unlike(changes: &[&Op], own: Option<&Batch>, said: Revision) -> Option<(&'static str, String)> {
    let batch = match own {
        None if changes.is_empty() => return None,
        None => {
            return Some(("K10", format!("is acknowledged at revision {said}, and in no commit")));
        }
        Some(batch) if changes.is_empty() => {
            return Some(("K3", format!("changes nothing, and makes revision {}", batch.revision)));
        }
        Some(batch) => batch,
    };
    let alike = |op: &Op, change: &Change| match (op, change) {
        (Op::Put { key, value, .. }, Change::Put(entry)) => *key == entry.key && *value == entry.value,
        (Op::Delete { key }, Change::Delete(deleted)) => key == deleted,
        _ => false,
    };
    let all_alike = changes.len() == batch.changes.len()
        && changes.iter().zip(&batch.changes).all(|(op, change)| alike(op, change));
    if !all_alike || batch.revision != said {
        let revision = batch.revision;
        return Some((
            "K1",
            format!("is answered with revision {said}; revision {revision} is something else"),
        ));
    }
    let attached = changes.iter().zip(&batch.changes).find_map(|(op, change)| match (op, change) {
        (Op::Put { key, lease, .. }, Change::Put(entry)) if *lease != entry.lease => Some(key),
        _ => None,
    });
    attached.map(|key| ("L4", format!("puts {key} under another lease than it says")))
}

/// What its caller is told.
fn answer(
    place: usize,
    number: u64,
    request: &mut Request<'_>,
    outcome: Result<Commit, Failure>,
    found: &mut Findings<'_>,
) {
    let Some((sent, _)) = request.sent else { return };
    match (outcome, request.executed) {
        (Ok(_), None) => {
            let what = format!("transaction {number} is acknowledged, and was never executed");
            found.add("K10", [sent, place], what);
        }
        (Ok(told), Some((at, executed))) if executed != Ok(told) => {
            let what = format!("transaction {number} ended as {executed:?}, and its caller is told {told:?}");
            found.add("K1", [sent, at, place], what);
        }
        (Err(Failure { effect: Effect::None, .. }), executed) => match executed {
            Some((at, Ok(Commit::Applied(_)))) if request.effective => {
                let what =
                    format!("transaction {number} was applied, and its caller is told that it was not");
                found.add("K9", [sent, at, place], what);
            }
            _ => request.denied = Some(place),
        },
        _ => {}
    }
}
