use std::fmt;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use serde::{Deserialize, Serialize};

use crate::{Key, LeaseId, Result};

/// A point in the history of a store. Grows with every commit; comparable only within one incarnation of the
/// store (a store that was emptied or restored counts anew).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Revision(pub u64);

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A key with its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: Key,
    /// The value; may be empty.
    pub value: Bytes,
    /// The revision of the last write of this key.
    pub modified: Revision,
    /// The lease whose end deletes this key.
    pub lease: Option<LeaseId>,
}

/// The entries of a range at one revision, in key order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The store's revision when it was taken (not the newest of the entries').
    pub revision: Revision,
    /// The entries, in key order.
    pub entries: Vec<Entry>,
}

/// Where a watch begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// With a snapshot of the range as it is now.
    Snapshot,
    /// With the first change after this revision.
    After(Revision),
}

/// What a watch began with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Base {
    /// The range as it was; the events follow it.
    Snapshot(Snapshot),
    /// It goes on after this revision; nothing is said about what exists. Never mistaken for "all is gone".
    Resumed(Revision),
}

/// One change of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The key was written.
    Put(Entry),
    /// The key was deleted.
    Delete(Key),
}

impl Change {
    /// The key that changed.
    pub fn key(&self) -> &Key {
        match self {
            Self::Put(entry) => &entry.key,
            Self::Delete(key) => key,
        }
    }
}

/// All changes of one revision that concern the watched range; never split. A watch that is declared
/// `Coalesced` may merge several revisions: the last change of each key, at the newest revision. Without
/// changes it is progress: all up to this revision was delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// The revision of these changes.
    pub revision: Revision,
    /// The changes; empty for progress.
    pub changes: Vec<Change>,
}

/// A running watch: where it began and what follows. Dropping it ends it at the backend.
pub struct Watch {
    /// What the watch began with.
    pub base: Base,
    /// Continues `base` without gap, overlap or reordering. An error is the last item.
    pub events: BoxStream<'static, Result<Batch>>,
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("base", &self.base).finish_non_exhaustive()
    }
}
