use std::collections::{BTreeMap, BTreeSet};

use slipring_core::{Batch, Change, Entry, Key, LeaseId, Revision};
use slipring_memory::store::StoreEvent;

/// What is in the store, followed through a history.
pub(super) struct Replay<'a> {
    pub(super) entries: BTreeMap<&'a Key, &'a Entry>,
    pub(super) head: Revision,
    leased: BTreeMap<LeaseId, BTreeSet<&'a Key>>,
}

impl<'a> Replay<'a> {
    /// An empty store.
    pub(super) fn new() -> Self {
        Self { entries: BTreeMap::new(), head: Revision(1), leased: BTreeMap::new() }
    }

    pub(super) fn follow(&mut self, event: &'a StoreEvent) {
        match event {
            StoreEvent::Committed(batch) => self.apply(batch),
            StoreEvent::Replaced { content, .. } => {
                self.head = content.revision;
                self.entries.clear();
                self.leased.clear();
                content.entries.iter().for_each(|entry| self.put(entry));
            }
            _ => {}
        }
    }

    pub(super) fn apply(&mut self, batch: &'a Batch) {
        self.head = batch.revision;
        for change in &batch.changes {
            match change {
                Change::Put(entry) => self.put(entry),
                Change::Delete(key) => self.delete(key),
            }
        }
    }

    fn put(&mut self, entry: &'a Entry) {
        self.delete(&entry.key);
        self.entries.insert(&entry.key, entry);
        if let Some(lease) = entry.lease {
            self.leased.entry(lease).or_default().insert(&entry.key);
        }
    }

    fn delete(&mut self, key: &'a Key) {
        let lease = self.entries.remove(key).and_then(|entry| entry.lease);
        if let Some(keys) = lease.and_then(|lease| self.leased.get_mut(&lease)) {
            keys.remove(key);
        }
    }

    /// The keys of a lease, in order.
    pub(super) fn keys_of(&self, lease: LeaseId) -> Vec<&'a Key> {
        self.leased.get(&lease).into_iter().flatten().copied().collect()
    }
}
