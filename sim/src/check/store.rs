use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::Deserialize;
use slipring_core::{Batch, Change, Key, LeaseId};
use slipring_memory::store::StoreEvent;

use super::replay::Replay;
use super::{Findings, Terms};
use crate::history::{Event, History};

/// K2, K4, W8, L3, L9: what the commit order alone shows.
pub(super) fn check(history: &History, terms: &Terms, found: &mut Findings<'_>) {
    let mut order = Order {
        atomic: terms.profile.discovery.expiry_atomic,
        fencing: terms.profile.discovery.fencing,
        replay: Replay::new(),
        ending: None,
        granted: BTreeMap::new(),
        ended: BTreeMap::new(),
        stamps: BTreeMap::new(),
    };
    for (place, moment) in history.moments().iter().enumerate() {
        if let Event::Store { event, .. } = &moment.event {
            order.step(place, event, found);
        }
    }
    order.end(found);
}

struct Order<'a> {
    atomic: bool,
    fencing: bool,
    replay: Replay<'a>,
    /// A lease that ended, and the deletions that are to be committed next.
    ending: Option<Ending<'a>>,
    granted: BTreeMap<LeaseId, usize>,
    ended: BTreeMap<LeaseId, usize>,
    /// The newest stamp that was written under each key.
    stamps: BTreeMap<&'a Key, (usize, Stamp)>,
}

struct Ending<'a> {
    place: usize,
    lease: LeaseId,
    commits: VecDeque<Vec<&'a Key>>,
}

/// The part of a record that says which of its owner's writes it is.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
struct Stamp {
    #[serde(alias = "instance_id")]
    instance: u64,
    #[serde(default)]
    nonce: u64,
    epoch: u64,
    #[serde(default)]
    sequence: u64,
}

impl<'a> Order<'a> {
    fn step(&mut self, place: usize, event: &'a StoreEvent, found: &mut Findings<'_>) {
        self.end_lease(place, event, found);
        match event {
            StoreEvent::Committed(batch) => self.commit(place, batch, found),
            StoreEvent::Granted(lease) => {
                if let Some(before) = self.granted.insert(lease.id, place) {
                    found.add("L9", [before, place], format!("lease {} is granted again", lease.id));
                }
            }
            StoreEvent::Ended { lease, .. } => {
                self.ended.insert(*lease, place);
                let keys = self.replay.keys_of(*lease);
                let commits: VecDeque<_> = match self.atomic {
                    _ if keys.is_empty() => VecDeque::new(),
                    true => [keys].into(),
                    false => keys.into_iter().map(|key| vec![key]).collect(),
                };
                self.ending = (!commits.is_empty()).then_some(Ending { place, lease: *lease, commits });
            }
            StoreEvent::Replaced { leases, .. } => {
                for lease in leases {
                    self.ended.remove(&lease.id);
                }
                self.stamps.clear();
            }
            _ => {}
        }
        self.replay.follow(event);
    }

    /// L3: what is committed after the end of a lease.
    fn end_lease(&mut self, place: usize, event: &StoreEvent, found: &mut Findings<'_>) {
        let Some(mut ending) = self.ending.take() else { return };
        let expected = ending.commits.pop_front().unwrap_or_default();
        let as_expected = match event {
            StoreEvent::Committed(batch) => deletes(batch).is_some_and(|keys| keys == expected),
            _ => false,
        };
        if !as_expected {
            let what = format!("lease {} ended, and its keys {expected:?} did not go with it", ending.lease);
            found.add("L3", [ending.place, place], what);
        } else if !ending.commits.is_empty() {
            self.ending = Some(ending);
        }
    }

    fn end(self, found: &mut Findings<'_>) {
        if let Some(Ending { place, lease, .. }) = self.ending {
            found.add("L3", [place], format!("lease {lease} ended, and its keys are there"));
        }
    }

    fn commit(&mut self, place: usize, batch: &'a Batch, found: &mut Findings<'_>) {
        let (revision, head) = (batch.revision, self.replay.head);
        if revision.0 != head.0 + 1 {
            found.add("K2", [place], format!("revision {revision} was committed after {head}"));
        } else if batch.changes.is_empty() {
            found.add("K2", [place], format!("revision {revision} changes nothing"));
        }
        let mut written = BTreeSet::new();
        for change in &batch.changes {
            let key = change.key();
            if !written.insert(key) {
                found.add("K4", [place], format!("revision {revision} writes {key} twice"));
            }
            match change {
                Change::Delete(key) if !self.replay.entries.contains_key(key) => {
                    found.add(
                        "W8",
                        [place],
                        format!("revision {revision} deletes {key}, which is not there"),
                    );
                }
                Change::Delete(_) => {}
                Change::Put(entry) if entry.modified != revision => {
                    let what = format!("revision {revision} writes {key} at revision {}", entry.modified);
                    found.add("K4", [place], what);
                }
                Change::Put(entry) => {
                    if let Some((lease, ended)) =
                        entry.lease.and_then(|lease| Some((lease, self.ended.get(&lease)?)))
                    {
                        let what = format!("{key} is written with lease {lease}, which ended");
                        found.add("L9", [*ended, place], what);
                    }
                    self.stamp(place, key, &entry.value, found);
                }
            }
        }
    }

    /// L9: the epochs of one owner's writes of a key.
    fn stamp(&mut self, place: usize, key: &'a Key, value: &[u8], found: &mut Findings<'_>) {
        if !self.fencing || value.first() != Some(&b'{') {
            return;
        }
        let Ok(stamp) = serde_json::from_slice::<Stamp>(value) else { return };
        if let Some((before, old)) = self.stamps.insert(key, (place, stamp))
            && (old.instance, old.nonce) == (stamp.instance, stamp.nonce)
            && (old.epoch, old.sequence) > (stamp.epoch, stamp.sequence)
        {
            let what = format!("{key} is written in epoch {} after epoch {}", stamp.epoch, old.epoch);
            found.add("L9", [before, place], what);
        }
    }
}

/// The keys that a batch deletes, if it does nothing else.
fn deletes(batch: &Batch) -> Option<Vec<&Key>> {
    let deleted = batch.changes.iter().map(|change| match change {
        Change::Delete(key) => Some(key),
        Change::Put(_) => None,
    });
    deleted.collect()
}
