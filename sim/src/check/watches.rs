use std::collections::BTreeMap;

use slipring_core::{Base, Batch, Change, Entry, Key, Range, Revision, Snapshot, WatchFidelity};
use slipring_memory::Profile;
use slipring_memory::store::StoreEvent;

use super::Violation;
use crate::history::{Event, History, Moment};

/// W1 to W4, and W13.
pub(super) fn check(history: &History, profile: &Profile) -> Vec<Violation> {
    if profile.discovery.watch != WatchFidelity::EveryRevision {
        return Vec::new();
    }
    let empty = Snapshot { revision: Revision(1), entries: Vec::new() };
    let mut replay = Replay { stores: vec![Commits::new(empty)], watches: BTreeMap::new() };
    let mut violations = Vec::new();
    for Moment { at, event, .. } in history.moments() {
        if let Err((invariant, what)) = replay.step(event) {
            violations.push(Violation { invariant, at: *at, what });
        }
    }
    violations
}

/// What is wrong: the invariant, and how.
type Broken = (&'static str, String);

struct Replay<'a> {
    /// One after the other: a store that is replaced counts anew.
    stores: Vec<Commits<'a>>,
    watches: BTreeMap<u64, Watching<'a>>,
}

/// A watch of one of the stores. What is under way when a store is replaced belongs to the one before, so all
/// of them count with which everything agrees that it has shown.
struct Watching<'a> {
    range: &'a Range,
    stores: Vec<usize>,
    /// All up to here was shown.
    shown: Revision,
    /// The last revision that was shown with changes.
    last: Option<Revision>,
}

impl<'a> Replay<'a> {
    fn step(&mut self, event: &'a Event) -> Result<(), Broken> {
        match event {
            Event::Store { event: StoreEvent::Committed(batch), .. } => {
                self.stores.last_mut().expect("there is always one").batches.push(batch);
                Ok(())
            }
            Event::Store { event: StoreEvent::Replaced { content, .. }, .. } => {
                self.stores.push(Commits::new(content.clone()));
                Ok(())
            }
            Event::WatchOpened { watch, range, base } => self.open(*watch, range, base),
            Event::WatchDelivered { watch, batch } => self.deliver(*watch, batch),
            Event::WatchEnded { watch, .. } => {
                self.watches.remove(watch);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn open(&mut self, watch: u64, range: &'a Range, base: &Base) -> Result<(), Broken> {
        let (shown, entries) = match base {
            Base::Resumed(revision) => (*revision, None),
            Base::Snapshot(snapshot) => (snapshot.revision, Some(&snapshot.entries)),
        };
        let fits = |store: &Commits<'_>| {
            store.reaches(shown) && entries.is_none_or(|entries| store.at(shown, range) == *entries)
        };
        let stores = self.stores.iter().enumerate().filter(|(_, store)| fits(store));
        let stores: Vec<usize> = stores.map(|(number, _)| number).collect();
        if stores.is_empty() {
            return Err((
                "W13",
                format!("watch {watch} begins at revision {shown} with what was never there"),
            ));
        }
        self.watches.insert(watch, Watching { range, stores, shown, last: None });
        Ok(())
    }

    fn deliver(&mut self, name: u64, batch: &Batch) -> Result<(), Broken> {
        let Some(mut watch) = self.watches.remove(&name) else { return Ok(()) };
        let broken = |(invariant, what)| (invariant, format!("watch {name} {what}"));
        watch.goes_forward(batch).map_err(broken)?;
        let mut first_broken = None;
        watch.stores.retain(|store| match self.stores[*store].allows(watch.range, watch.shown, batch) {
            Ok(()) => true,
            Err(broken) => {
                first_broken = Some(broken);
                false
            }
        });
        if let (true, Some(what)) = (watch.stores.is_empty(), first_broken) {
            return Err(broken(what));
        }
        watch.shown = batch.revision;
        watch.last = if batch.changes.is_empty() { watch.last } else { Some(batch.revision) };
        self.watches.insert(name, watch);
        Ok(())
    }
}

impl Watching<'_> {
    fn goes_forward(&self, batch: &Batch) -> Result<(), Broken> {
        let (revision, shown) = (batch.revision, self.shown);
        if revision < shown {
            return Err(("W1", format!("shows revision {revision} after {shown}")));
        }
        if !batch.changes.is_empty() && revision == shown {
            let twice = self.last == Some(revision);
            let what = format!("shows revision {revision}, which it had shown");
            return Err((if twice { "W2" } else { "W1" }, what));
        }
        Ok(())
    }
}

/// The commits of a store, from the content with which it began.
struct Commits<'a> {
    base: Snapshot,
    batches: Vec<&'a Batch>,
}

impl Commits<'_> {
    fn new(base: Snapshot) -> Self {
        Self { base, batches: Vec::new() }
    }

    fn reaches(&self, revision: Revision) -> bool {
        let head = self.batches.last().map_or(self.base.revision, |batch| batch.revision);
        (self.base.revision..=head).contains(&revision)
    }

    /// The entries of a range at a revision.
    fn at(&self, revision: Revision, range: &Range) -> Vec<Entry> {
        let entries = self.base.entries.iter().map(|entry| (&entry.key, entry));
        let mut entries: BTreeMap<&Key, &Entry> = entries.collect();
        for change in
            self.batches.iter().take_while(|batch| batch.revision <= revision).flat_map(|b| &b.changes)
        {
            match change {
                Change::Put(entry) => drop(entries.insert(&entry.key, entry)),
                Change::Delete(key) => drop(entries.remove(key)),
            }
        }
        entries.into_values().filter(|entry| range.contains(&entry.key)).cloned().collect()
    }

    /// May a watch that was shown all up to a revision be given this next?
    fn allows(&self, range: &Range, shown: Revision, next: &Batch) -> Result<(), Broken> {
        let from = self.batches.partition_point(|batch| batch.revision <= shown);
        let until = self.batches.partition_point(|batch| batch.revision <= next.revision);
        let mut pending =
            self.batches[from..until.max(from)].iter().map(|batch| (batch.revision, within(range, batch)));
        let committed = pending.find(|(_, changes)| !changes.is_empty());
        match committed {
            Some((revision, _)) if revision < next.revision || next.changes.is_empty() => {
                Err(("W3", format!("leaves out revision {revision} and shows {}", next.revision)))
            }
            Some((_, changes)) if changes.iter().copied().eq(&next.changes) => Ok(()),
            None if next.changes.is_empty() => Ok(()),
            _ => {
                Err(("W4", format!("shows other changes at revision {} than were committed", next.revision)))
            }
        }
    }
}

fn within<'b>(range: &Range, batch: &'b Batch) -> Vec<&'b Change> {
    batch.changes.iter().filter(|change| range.contains(change.key())).collect()
}
