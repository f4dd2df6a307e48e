use std::collections::{BTreeMap, BTreeSet};

use slipring_core::{Batch, Change, Entry, Key, Range, Revision, Snapshot};
use slipring_memory::store::StoreEvent;

use crate::history::{Event, History};

/// The commits of a history, by store: one that is emptied or restored counts anew.
pub(super) struct Ledger<'a> {
    pub(super) stores: Vec<Commits<'a>>,
}

/// The commits of one store, from the content with which it began.
pub(super) struct Commits<'a> {
    /// The place in the history at which it begins, and at which the next one does.
    pub(super) begins: usize,
    pub(super) ends: usize,
    base: Revision,
    /// With their places, in order.
    pub(super) batches: Vec<(usize, &'a Batch)>,
    /// What each key was, from which revision on.
    keys: BTreeMap<&'a Key, Vec<(Revision, Option<&'a Entry>)>>,
}

impl<'a> Ledger<'a> {
    pub(super) fn new(history: &'a History) -> Self {
        let mut stores = vec![Commits::new(0, Revision(1))];
        for (place, moment) in history.moments().iter().enumerate() {
            let Event::Store { event, .. } = &moment.event else { continue };
            let store = stores.last_mut().expect("there is always one");
            match event {
                StoreEvent::Committed(batch) => store.add(place, batch),
                StoreEvent::Replaced { content, .. } => {
                    store.ends = place;
                    let saved = stores.iter().rev().find(|store| store.held(content, place));
                    let restored = saved.map(|store| store.restored(place, content.revision));
                    stores.push(restored.unwrap_or_else(|| Commits::replaced(place, content)));
                }
                _ => {}
            }
        }
        Self { stores }
    }

    /// All keys that there ever were.
    pub(super) fn keys(&self) -> BTreeSet<&'a Key> {
        self.stores.iter().flat_map(|store| store.keys.keys().copied()).collect()
    }

    /// The store that is there just before a place.
    pub(super) fn current(&self, place: usize) -> usize {
        self.stores.partition_point(|store| store.begins < place).saturating_sub(1)
    }
}

impl<'a> Commits<'a> {
    fn new(begins: usize, base: Revision) -> Self {
        Self { begins, ends: usize::MAX, base, batches: Vec::new(), keys: BTreeMap::new() }
    }

    fn replaced(begins: usize, content: &'a Snapshot) -> Self {
        let mut store = Self::new(begins, content.revision);
        for entry in &content.entries {
            store.keys.insert(&entry.key, vec![(entry.modified.min(content.revision), Some(entry))]);
        }
        store
    }

    /// Was this its content at some time?
    fn held(&self, content: &Snapshot, place: usize) -> bool {
        self.reaches(content.revision, place)
            && self.at(content.revision, &Range::All).into_iter().eq(&content.entries)
    }

    /// The store that begins with what this one was at a revision. Its history was saved with it: watches go on
    /// from before.
    fn restored(&self, begins: usize, revision: Revision) -> Self {
        let until = self.batches.partition_point(|(_, batch)| batch.revision <= revision);
        let cut = |versions: &Vec<(Revision, Option<&'a Entry>)>| {
            versions[..versions.partition_point(|(since, _)| *since <= revision)].to_vec()
        };
        let keys = self.keys.iter().map(|(key, versions)| (*key, cut(versions)));
        let keys = keys.filter(|(_, versions)| !versions.is_empty()).collect();
        Self { begins, ends: usize::MAX, base: self.base, batches: self.batches[..until].to_vec(), keys }
    }

    fn add(&mut self, place: usize, batch: &'a Batch) {
        self.batches.push((place, batch));
        for change in &batch.changes {
            let now = match change {
                Change::Put(entry) => Some(entry),
                Change::Delete(_) => None,
            };
            self.keys.entry(change.key()).or_default().push((batch.revision, now));
        }
    }

    /// The revision that it had reached just before a place.
    pub(super) fn head(&self, place: usize) -> Revision {
        let before = self.batches.partition_point(|(at, _)| *at < place);
        before.checked_sub(1).map_or(self.base, |last| self.batches[last].1.revision)
    }

    /// Had it come by a revision before a place, since it began?
    pub(super) fn reaches(&self, revision: Revision, place: usize) -> bool {
        self.begins <= place && (self.base..=self.head(place)).contains(&revision)
    }

    /// What a key was at a revision.
    pub(super) fn entry(&self, key: &Key, revision: Revision) -> Option<&'a Entry> {
        self.keys.get(key).and_then(|versions| at(versions, revision))
    }

    /// The entries of a range at a revision, in order.
    pub(super) fn at(&self, revision: Revision, range: &Range) -> Vec<&'a Entry> {
        match range {
            Range::All => self.keys.values().filter_map(|versions| at(versions, revision)).collect(),
            Range::Key(key) => self.entry(key, revision).into_iter().collect(),
            Range::Prefix(prefix) => {
                let first = Key::new(prefix.as_str()).expect("what makes a prefix makes a key");
                let from_there = self.keys.range::<Key, _>(&first..);
                let within = from_there.take_while(|(key, _)| range.contains(key));
                within.filter_map(|(_, versions)| at(versions, revision)).collect()
            }
        }
    }

    /// Where the last of these keys was removed, up to a revision.
    pub(super) fn removal(&self, keys: &[&Key], until: Revision) -> Option<usize> {
        let removed = |key: &&Key| {
            let versions = self.keys.get(*key)?;
            let upto = versions.partition_point(|(since, _)| *since <= until);
            let (revision, entry) = versions[..upto].last()?;
            entry.is_none().then_some(*revision)
        };
        let revision = keys.iter().filter_map(removed).max()?;
        let at = self.batches.partition_point(|(_, batch)| batch.revision < revision);
        self.batches.get(at).map(|(place, _)| *place)
    }

    /// The commits after a revision, up to another one.
    pub(super) fn between(&self, after: Revision, until: Revision) -> &[(usize, &'a Batch)] {
        let from = self.batches.partition_point(|(_, batch)| batch.revision <= after);
        let to = self.batches.partition_point(|(_, batch)| batch.revision <= until);
        &self.batches[from..to.max(from)]
    }
}

fn at<'a>(versions: &[(Revision, Option<&'a Entry>)], revision: Revision) -> Option<&'a Entry> {
    let until = versions.partition_point(|(since, _)| *since <= revision);
    versions[..until].last().and_then(|(_, entry)| *entry)
}
