use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use slipring_core::{Change, Fact, Key};
use slipring_memory::store::StoreEvent;

use super::calm::Calm;
use super::names::{bare, record_key};
use super::{Findings, Terms};
use crate::history::{Event, History, Moment};

/// L12, and the part of M14 that concerns the record.
pub(super) fn check(history: &History, terms: &Terms, found: &mut Findings<'_>) {
    let mut records = Records {
        terms,
        calm: Calm::default(),
        present: BTreeMap::new(),
        wanted: BTreeMap::new(),
        missing: BTreeMap::new(),
    };
    for (place, moment) in history.moments().iter().enumerate() {
        records.calm.follow(moment);
        records.find_late(place, moment.at, found);
        records.step(place, moment, found);
    }
}

struct Records<'a> {
    terms: &'a Terms,
    calm: Calm<'a>,
    /// The keys in the store, by name without their deployment.
    present: BTreeMap<String, BTreeSet<Key>>,
    /// The records that somebody wants to be there, and whose they are.
    wanted: BTreeMap<String, (Arc<str>, usize)>,
    /// Those of them that are not, since when.
    missing: BTreeMap<String, (Duration, usize)>,
}

impl<'a> Records<'a> {
    fn step(&mut self, place: usize, moment: &'a Moment, found: &mut Findings<'_>) {
        match &moment.event {
            Event::Store { event: StoreEvent::Committed(batch), .. } => {
                for change in &batch.changes {
                    self.see(change.key(), matches!(change, Change::Put(_)), moment.at, place);
                }
            }
            Event::Store { event: StoreEvent::Replaced { content, .. }, .. } => {
                self.present.clear();
                for name in self.wanted.keys() {
                    self.missing.insert(name.clone(), (moment.at, place));
                }
                content.entries.iter().for_each(|entry| self.see(&entry.key, true, moment.at, place));
            }
            Event::Fact(Fact::LifecycleChanged { endpoint, instance, step }) => {
                let name = record_key(endpoint, *instance);
                match *step {
                    "registered" | "running" | "healthy" => {
                        if !self.present.contains_key(&name) && !self.wanted.contains_key(&name) {
                            self.missing.insert(name.clone(), (moment.at, place));
                        }
                        self.wanted.insert(name, (moment.node.clone(), place));
                    }
                    "stopping" => self.forget(&name),
                    "deregistered" => self.judge_stop(place, moment.at, &name, found),
                    _ => {}
                }
            }
            Event::Died(_) => {
                let gone = self.wanted.iter().filter(|(_, (owner, _))| *owner == moment.node);
                let gone: Vec<String> = gone.map(|(name, _)| name.clone()).collect();
                gone.iter().for_each(|name| self.forget(name));
            }
            _ => {}
        }
    }

    fn forget(&mut self, name: &str) {
        self.wanted.remove(name);
        self.missing.remove(name);
    }

    fn see(&mut self, key: &Key, there: bool, at: Duration, place: usize) {
        let Some(name) = bare(key.as_str()) else { return };
        if there {
            self.present.entry(name.to_owned()).or_default().insert(key.clone());
            self.missing.remove(name);
            return;
        }
        let left = self.present.get_mut(name).is_some_and(|keys| {
            keys.remove(key);
            !keys.is_empty()
        });
        if !left {
            self.present.remove(name);
            if self.wanted.contains_key(name) {
                self.missing.insert(name.to_owned(), (at, place));
            }
        }
    }

    fn find_late(&mut self, place: usize, now: Duration, found: &mut Findings<'_>) {
        let Some(calm) = self.calm.since() else { return };
        let bound = self.terms.registered_within;
        let late = self.missing.iter().filter(|(_, (since, _))| now > calm.max(*since) + bound);
        let late: Vec<String> = late.map(|(name, _)| name.clone()).collect();
        for name in late {
            let Some((_, lost)) = self.missing.remove(&name) else { continue };
            let what = format!("{name} is not registered {bound:?} after the last disturbance");
            let wanted = self.wanted.get(&name).map_or(lost, |(_, place)| *place);
            found.add("L12", [wanted, lost, place], what);
        }
    }

    fn judge_stop(&self, place: usize, now: Duration, name: &str, found: &mut Findings<'_>) {
        let calm = self.calm.since().is_some_and(|calm| now > calm + self.terms.registered_within);
        if calm && self.present.contains_key(name) {
            found.add("M14", [place], format!("{name} is deregistered, and its record is there"));
        }
    }
}
