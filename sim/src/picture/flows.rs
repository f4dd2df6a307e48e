use std::collections::BTreeMap;

use serde::Serialize;
use slipring_core::{LeaseId, Revision};
use slipring_memory::store::StoreEvent;

use super::lanes::Lanes;
use super::scene::micros;
use crate::history::{Call, Event, Letter, Moment, TxnStep};

/// Something that went from lane to lane.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Flow {
    kind: Kind,
    /// The event with which it arrived.
    event: usize,
    /// The event in the store that it caused, or that caused it; or when the message was published.
    cause: Option<usize>,
    /// Did it end in an error?
    failed: bool,
    /// Times and lanes, in order.
    points: Vec<(u64, usize)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    /// A call and its answer.
    Call,
    /// A batch of a watch.
    Batch,
    /// A message over the bus.
    Message,
}

pub(super) fn of(moments: &[Moment], lanes: &Lanes) -> Vec<Flow> {
    let mut seen = Seen { broker: lanes.broker(), ..Seen::default() };
    let mut flows = Vec::new();
    for (event, moment) in moments.iter().enumerate() {
        flows.extend(seen.follow(event, lanes.number(&moment.node), moment));
    }
    flows
}

/// What was seen at the broker, and may be what somebody else is told of later: the event and its time.
#[derive(Default)]
struct Seen<'a> {
    broker: usize,
    commits: BTreeMap<Revision, (usize, u64)>,
    /// The last thing that happened to a lease.
    leases: BTreeMap<LeaseId, (usize, u64)>,
    published: Vec<(&'a Letter, usize, u64)>,
    /// When a transaction was sent, and when the store executed it.
    txns: BTreeMap<u64, (u64, Option<u64>)>,
}

/// How many of the last messages are looked through for the one that was delivered.
const MESSAGES_MAX: usize = 4096;

impl<'a> Seen<'a> {
    fn follow(&mut self, event: usize, lane: usize, moment: &'a Moment) -> Option<Flow> {
        let at = micros(moment.at);
        let (kind, cause, failed, points) = match &moment.event {
            Event::Store { event: what, .. } => {
                self.remember(event, at, what);
                return None;
            }
            // Told better by its steps, if they are told.
            Event::Answered { call: Call::Commit, .. } if !self.txns.is_empty() => return None,
            Event::Txn { request, step } => return self.follow_txn(event, lane, at, *request, step),
            Event::GaveUp { sent, .. } => {
                (Kind::Call, None, true, vec![(micros(*sent), lane), (at, self.broker)])
            }
            Event::Answered { call, sent, lease, code } => {
                let sent = micros(*sent);
                let cause = lease.and_then(|lease| self.leases.get(&lease)).filter(|(_, turn)| *turn >= sent);
                let cause = cause.filter(|_| *call != Call::Commit && code.is_none()).copied();
                let turn = cause.map_or(sent.midpoint(at), |(_, turn)| turn);
                let points = vec![(sent, lane), (turn, self.broker), (at, lane)];
                (Kind::Call, cause, code.is_some(), points)
            }
            // A batch without changes says how far a watch is; nothing caused it.
            Event::WatchDelivered { batch, .. } if !batch.changes.is_empty() => {
                let cause = *self.commits.get(&batch.revision)?;
                let points = vec![(cause.1, self.broker), (at, lane)];
                (Kind::Batch, Some(cause), false, points)
            }
            Event::Published(letter) => {
                self.published.push((letter, event, at));
                (Kind::Message, None, false, vec![(at, lane), (at, self.broker)])
            }
            Event::Delivered(letter) => {
                let recent = self.published.iter().rev().take(MESSAGES_MAX);
                let cause = recent.into_iter().find(|(published, ..)| *published == letter);
                let cause = cause.map(|(_, event, at)| (*event, *at));
                let from = cause.map_or(at, |(_, at)| at);
                (Kind::Message, cause, false, vec![(from, self.broker), (at, lane)])
            }
            _ => return None,
        };
        let cause = cause.map(|(event, _)| event);
        Some(Flow { kind, event, cause, failed, points })
    }

    fn follow_txn(
        &mut self,
        event: usize,
        lane: usize,
        at: u64,
        request: u64,
        step: &TxnStep,
    ) -> Option<Flow> {
        let (sent, executed) = self.txns.entry(request).or_insert((at, None));
        match step {
            TxnStep::Sent(_) | TxnStep::Arrived => None,
            TxnStep::Executed(_) => {
                *executed = Some(at);
                None
            }
            TxnStep::Answered(answer) => {
                let turn = executed.unwrap_or(sent.midpoint(at));
                let points = vec![(*sent, lane), (turn, self.broker), (at, lane)];
                Some(Flow { kind: Kind::Call, event, cause: None, failed: answer.is_err(), points })
            }
        }
    }

    fn remember(&mut self, event: usize, at: u64, what: &StoreEvent) {
        match what {
            StoreEvent::Committed(batch) => {
                self.commits.insert(batch.revision, (event, at));
            }
            StoreEvent::Granted(lease) | StoreEvent::Renewed(lease) => {
                self.leases.insert(lease.id, (event, at));
            }
            StoreEvent::Ended { lease, .. } => {
                self.leases.insert(*lease, (event, at));
            }
            StoreEvent::Replaced { .. } => self.commits.clear(),
            _ => {}
        }
    }
}
