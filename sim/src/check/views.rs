use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use slipring_core::{Base, Entry, Fact, Key, Prefix, Range, Revision, Told};

use super::calm::Calm;
use super::ledger::{Commits, Ledger};
use super::{Findings, Terms};
use crate::history::{Event, History, Moment};

/// SW1 to SW5, and SW7: the shared watches of the component model.
pub(super) fn check(history: &History, terms: &Terms, ledger: &Ledger<'_>, found: &mut Findings<'_>) {
    let (calm, views, names) = Default::default();
    let mut views = Views { terms, ledger, calm, views, names };
    let mut looked = Duration::ZERO;
    for (place, moment) in history.moments().iter().enumerate() {
        views.calm.follow(moment);
        // Nothing is too late before time has passed.
        if moment.at > looked {
            looked = moment.at;
            views.find_leaks(place, moment.at, found);
        }
        views.step(place, moment, found);
    }
}

/// A node, and a prefix of keys.
type Name = (Arc<str>, String);

struct Views<'a> {
    terms: &'a Terms,
    ledger: &'a Ledger<'a>,
    calm: Calm<'a>,
    views: BTreeMap<Name, View>,
    /// What the open watches of the store are of.
    names: BTreeMap<u64, Name>,
}

#[derive(Default)]
struct View {
    /// The shared watches of this prefix; there is more than one if there is more than one runtime.
    watchers: usize,
    /// Its watches of the store.
    upstream: BTreeMap<u64, usize>,
    /// Since when there are too many of them.
    crowded: Option<(Duration, usize)>,
    /// When the last snapshots were taken.
    snapshots: VecDeque<Duration>,
    /// Did the history of its last watch of the store end in a compaction?
    compacted: bool,
    members: Members,
    readers: BTreeMap<u64, Members>,
    /// Something is wrong with it, or there are several: it is not looked at any more.
    given_up: bool,
}

/// Instances, with the revisions of their records.
type Members = BTreeMap<u64, Revision>;

const MINUTE: Duration = Duration::from_secs(60);

impl<'a> Views<'a> {
    fn step(&mut self, place: usize, moment: &'a Moment, found: &mut Findings<'_>) {
        match &moment.event {
            Event::Fact(fact) => self.fact(place, moment, fact, found),
            Event::WatchOpened { watch, range: Range::Prefix(prefix), base } => {
                let name = (moment.node.clone(), prefix.as_str().to_owned());
                let Some(view) = self.views.get_mut(&name) else { return };
                view.upstream.insert(*watch, place);
                self.names.insert(*watch, name);
                if let Base::Snapshot(_) = base {
                    view.relist(place, moment.at, self.terms, found);
                }
                view.count(place, moment.at);
            }
            Event::WatchRefused { range: Range::Prefix(prefix), code: "compacted" } => {
                let name = (moment.node.clone(), prefix.as_str().to_owned());
                if let Some(view) = self.views.get_mut(&name) {
                    view.compacted = true;
                }
            }
            Event::WatchEnded { watch, .. } | Event::WatchDropped { watch } => {
                let Some(name) = self.names.remove(watch) else { return };
                let Some(view) = self.views.get_mut(&name) else { return };
                view.upstream.remove(watch);
                view.count(place, moment.at);
                view.compacted |= matches!(moment.event, Event::WatchEnded { code: "compacted", .. });
            }
            Event::Died(_) => self.views.retain(|(node, _), _| *node != moment.node),
            _ => {}
        }
    }

    fn fact(&mut self, place: usize, moment: &Moment, fact: &Fact, found: &mut Findings<'_>) {
        let prefix = match fact {
            Fact::WatcherStarted { prefix }
            | Fact::WatcherStopped { prefix }
            | Fact::ViewChanged { prefix, .. }
            | Fact::ViewRead { prefix, .. } => prefix,
            _ => return,
        };
        let view = self.views.entry((moment.node.clone(), prefix.clone())).or_default();
        match fact {
            Fact::WatcherStarted { .. } => {
                view.watchers += 1;
                view.given_up |= view.watchers > 1;
                view.members.clear();
                view.readers.clear();
                view.count(place, moment.at);
            }
            Fact::WatcherStopped { .. } => {
                view.watchers = view.watchers.saturating_sub(1);
                view.given_up &= view.watchers > 0;
                view.members.clear();
                view.count(place, moment.at);
            }
            Fact::ViewChanged { revision, changes, .. } if !view.given_up => {
                for (instance, modified) in changes {
                    match modified {
                        Some(modified) => drop(view.members.insert(*instance, *modified)),
                        None => drop(view.members.remove(instance)),
                    }
                }
                let stores = self.ledger.stores.iter().filter(|store| store.reaches(*revision, place));
                let differences: Vec<_> =
                    stores.map(|store| differs(store, prefix, *revision, &view.members)).collect();
                if !differences.iter().any(Option::is_none) {
                    let what = differences.into_iter().flatten().next_back();
                    let what = what.unwrap_or_else(|| "which was never there".to_owned());
                    let invariant = if view.compacted { "SW5" } else { "SW1" };
                    let what = format!("the view of {prefix} at revision {revision}: {what}");
                    found.add(invariant, [place], what);
                    view.given_up = true;
                }
                view.compacted = false;
            }
            Fact::ViewRead { reader, told, .. } if !view.given_up => view.read(place, *reader, told, found),
            _ => {}
        }
    }

    /// SW3: what has been open for too long.
    fn find_leaks(&mut self, place: usize, now: Duration, found: &mut Findings<'_>) {
        for ((node, prefix), view) in &mut self.views {
            // A node that stands still lets go of nothing.
            let woken = self.calm.resumed(node).unwrap_or_default();
            let late = |since: Duration| now > since.max(woken) + self.terms.handover_max;
            let Some((_, at)) = view.crowded.filter(|(since, _)| late(*since)) else { continue };
            if !self.calm.is_paused(node) {
                let (open, users) = (view.upstream.len(), view.watchers);
                let what = format!("{open} watches of the store for {users} shared watches of {prefix}");
                found.add("SW3", [at, place], what);
                view.upstream.clear();
                view.crowded = None;
            }
        }
    }
}

impl View {
    /// Are there more watches of the store than shared watches?
    fn count(&mut self, place: usize, now: Duration) {
        let crowded = self.upstream.len() > self.watchers;
        self.crowded = crowded.then(|| self.crowded.unwrap_or((now, place)));
    }

    fn relist(&mut self, place: usize, now: Duration, terms: &Terms, found: &mut Findings<'_>) {
        self.snapshots.push_back(now);
        while self.snapshots.front().is_some_and(|first| *first + MINUTE <= now) {
            self.snapshots.pop_front();
        }
        if self.snapshots.len() > terms.relists_per_minute_max.saturating_mul(self.watchers.max(1)) {
            found.add("SW7", [place], format!("{} snapshots within a minute", self.snapshots.len()));
            self.snapshots.clear();
        }
    }

    /// SW2, SW4: what a reader was told. It may be behind, and is given the present state when it has read all.
    fn read(&mut self, place: usize, reader: u64, told: &Told, found: &mut Findings<'_>) {
        let first = !self.readers.contains_key(&reader);
        let knows = self.readers.entry(reader).or_default();
        let wrong = match told {
            Told::All(all) => {
                *knows = all.iter().copied().collect();
                (*knows != self.members).then(|| "is given another view than there is".to_owned())
            }
            _ if first => Some("is given changes before the view".to_owned()),
            Told::Put(instance, modified) => {
                knows.insert(*instance, *modified);
                None
            }
            Told::Removed(instance) => {
                let known = knows.remove(instance).is_some();
                (!known)
                    .then(|| format!("is told that instance {instance:x} is gone, of which it was not told"))
            }
            _ => None,
        };
        let wrong = wrong.or_else(|| {
            let Told::Latest = told else { return None };
            (*knows != self.members).then(|| "has read everything, and sees another view".to_owned())
        });
        if let Some(what) = wrong {
            let invariant = if first { "SW2" } else { "SW4" };
            found.add(invariant, [place], format!("reader {reader} {what}"));
            self.given_up = true;
        }
    }
}

/// How a view differs from a store, if it does.
fn differs<'a>(store: &Commits<'a>, prefix: &str, revision: Revision, members: &Members) -> Option<String> {
    let prefix = Prefix::new(prefix).ok()?;
    let entries = store.at(revision, &Range::Prefix(prefix.clone()));
    let named = |entry: &'a Entry| Some((instance(prefix.as_str(), &entry.key)?, entry));
    let there: BTreeMap<u64, &Entry> = entries.into_iter().filter_map(named).collect();
    let invented = members
        .iter()
        .find(|(instance, modified)| there.get(instance).is_none_or(|entry| entry.modified != **modified));
    if let Some((instance, modified)) = invented {
        return Some(format!("it has instance {instance:x} of revision {modified}, which the store has not"));
    }
    // What cannot be read is left out of a view.
    let left_out = there
        .iter()
        .find(|(instance, entry)| !members.contains_key(instance) && is_record(&entry.value, **instance));
    left_out.map(|(instance, _)| format!("it has not instance {instance:x}, which is in the store"))
}

fn instance(prefix: &str, key: &Key) -> Option<u64> {
    u64::from_str_radix(key.as_str().strip_prefix(prefix)?, 16).ok()
}

/// Is it surely a record of this instance?
fn is_record(value: &[u8], instance: u64) -> bool {
    #[derive(serde::Deserialize)]
    struct Record {
        instance_id: u64,
    }
    serde_json::from_slice::<Record>(value).is_ok_and(|record| record.instance_id == instance)
}
