use std::collections::{BTreeMap, BTreeSet};
use std::iter;

use slipring_core::{Batch, Change, Effect, Error, Key, Range, Result, Revision};

use super::history::History;

/// The name of a watch in its [`Store`](super::Store).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WatchId(u64);

/// The watches of a store: cursors into its history.
///
/// A watch that has seen all that concerns it stands in the index of ranges and costs nothing until a write
/// finds it there. The write takes it out and notes where its next change is. From then on no write looks
/// at it, however slow its reader is, until the reader has caught up.
#[derive(Debug, Clone, Default)]
pub(super) struct Watches {
    opened: u64,
    watches: BTreeMap<WatchId, Watching>,
    caught_up: Index,
    woken: BTreeSet<WatchId>,
}

#[derive(Debug, Clone)]
struct Watching {
    range: Range,
    position: Position,
}

#[derive(Debug, Clone)]
enum Position {
    /// It has been given everything.
    CaughtUp,
    /// This is the first revision that concerns it and that it was not given.
    Behind(Revision),
    /// The store that it watched was replaced; nobody tells it.
    Silent,
    /// The store that it watched was replaced; it is told when it asks.
    Ended,
}

impl Watches {
    /// Opens a watch on what follows a revision.
    pub(super) fn open(&mut self, range: Range, after: Revision, history: &History) -> Result<WatchId> {
        let next = next_match(&range, after, history)?;
        self.opened += 1;
        let id = WatchId(self.opened);
        self.watches.insert(id, Watching { range, position: Position::Silent });
        self.place(id, next);
        Ok(id)
    }

    pub(super) fn close(&mut self, id: WatchId) {
        if let Some(watch) = self.watches.remove(&id) {
            self.caught_up.remove(&watch.range, id);
        }
        self.woken.remove(&id);
    }

    pub(super) fn len(&self) -> usize {
        self.watches.len()
    }

    /// Tells the watches that waited for one of these changes.
    pub(super) fn announce(&mut self, batch: &Batch) {
        for change in &batch.changes {
            for id in self.caught_up.take(change.key()) {
                let watch = self.watches.get_mut(&id).expect("what is in the index is open");
                watch.position = Position::Behind(batch.revision);
                self.woken.insert(id);
            }
        }
    }

    /// The next revision that concerns a watch; `None` if it has all.
    pub(super) fn poll(&mut self, id: WatchId, history: &History) -> Result<Option<Batch>> {
        let Some((range, mut pending)) = self.pending(id, history)? else { return Ok(None) };
        let batch = pending.next().and_then(|batch| matching(&range, batch));
        let next = pending.find(|batch| concerns(&range, batch)).map(|batch| batch.revision);
        self.place(id, next);
        Ok(batch)
    }

    /// All that a watch was not given yet, as one batch with the last change of each key.
    pub(super) fn poll_merged(&mut self, id: WatchId, history: &History) -> Result<Option<Batch>> {
        let Some((range, pending)) = self.pending(id, history)? else { return Ok(None) };
        let mut last: BTreeMap<Key, Change> = BTreeMap::new();
        let mut revision = history.head();
        for batch in pending.filter_map(|batch| matching(&range, batch)) {
            revision = batch.revision;
            last.extend(batch.changes.into_iter().map(|change| (change.key().clone(), change)));
        }
        self.place(id, None);
        Ok(Some(Batch { revision, changes: last.into_values().collect() }))
    }

    /// Has the watch been given everything up to the current revision, and does it know?
    pub(super) fn is_caught_up(&self, id: WatchId) -> bool {
        self.watches.get(&id).is_some_and(|watch| matches!(watch.position, Position::CaughtUp))
    }

    /// The watches that have something to be polled since this was last asked.
    pub(super) fn take_woken(&mut self) -> BTreeSet<WatchId> {
        std::mem::take(&mut self.woken)
    }

    /// The store was replaced: no watch sees anything of the new one.
    pub(super) fn silence(&mut self) {
        self.replaced(Position::Silent);
    }

    /// The store was replaced: each watch is told so, and ends.
    pub(super) fn end(&mut self) {
        self.replaced(Position::Ended);
        self.woken.extend(self.watches.keys());
    }

    /// Leaves out what is before a revision.
    #[cfg(feature = "_mutants")]
    pub(super) fn skip_to(&mut self, id: WatchId, to: Revision) {
        if let Some(Watching { position: Position::Behind(next), .. }) = self.watches.get_mut(&id) {
            *next = to.max(*next);
        }
    }

    fn replaced(&mut self, position: Position) {
        self.caught_up = Index::default();
        self.watches.values_mut().for_each(|watch| watch.position = position.clone());
    }

    /// What a watch that is behind was not given yet; the first batch concerns it. An error closes the watch.
    fn pending<'h>(
        &mut self,
        id: WatchId,
        history: &'h History,
    ) -> Result<Option<(Range, impl Iterator<Item = &'h Batch> + use<'h>)>> {
        let Some(watch) = self.watches.get(&id) else { return Ok(None) };
        let pending = match watch.position {
            Position::CaughtUp | Position::Silent => return Ok(None),
            Position::Behind(next) => history.after(Revision(next.0 - 1)),
            Position::Ended => Err(Error::unavailable("the watch", "the store was replaced", Effect::None)),
        };
        match pending {
            Ok(pending) => Ok(Some((watch.range.clone(), pending))),
            Err(error) => {
                self.close(id);
                Err(error)
            }
        }
    }

    fn place(&mut self, id: WatchId, next: Option<Revision>) {
        let watch = self.watches.get_mut(&id).expect("the caller has just seen this watch");
        watch.position = match next {
            Some(revision) => Position::Behind(revision),
            None => {
                self.caught_up.insert(&watch.range, id);
                Position::CaughtUp
            }
        };
    }
}

fn next_match(range: &Range, after: Revision, history: &History) -> Result<Option<Revision>> {
    Ok(history.after(after)?.find(|batch| concerns(range, batch)).map(|batch| batch.revision))
}

fn concerns(range: &Range, batch: &Batch) -> bool {
    batch.changes.iter().any(|change| range.contains(change.key()))
}

/// The changes of a batch that are in a range, if there are any.
fn matching(range: &Range, batch: &Batch) -> Option<Batch> {
    let changes = batch.changes.iter().filter(|change| range.contains(change.key()));
    let changes: Vec<Change> = changes.cloned().collect();
    (!changes.is_empty()).then_some(Batch { revision: batch.revision, changes })
}

/// Finds watches by key: a look-up for the key itself and one for each place where a prefix of it can end.
#[derive(Debug, Clone, Default)]
struct Index {
    keys: BTreeMap<Key, BTreeSet<WatchId>>,
    /// `Range::All` is the empty prefix.
    prefixes: BTreeMap<Box<str>, BTreeSet<WatchId>>,
}

impl Index {
    fn insert(&mut self, range: &Range, id: WatchId) {
        let watches = match range {
            Range::All => self.prefixes.entry("".into()).or_default(),
            Range::Key(key) => self.keys.entry(key.clone()).or_default(),
            Range::Prefix(prefix) => self.prefixes.entry(prefix.as_str().into()).or_default(),
        };
        watches.insert(id);
    }

    fn remove(&mut self, range: &Range, id: WatchId) {
        match range {
            Range::All => remove_from(&mut self.prefixes, "", id),
            Range::Key(key) => remove_from(&mut self.keys, key, id),
            Range::Prefix(prefix) => remove_from(&mut self.prefixes, prefix.as_str(), id),
        }
    }

    /// Removes the watches that concern a key.
    fn take(&mut self, key: &Key) -> impl Iterator<Item = WatchId> + use<> {
        let text = key.as_str();
        let ends = text.match_indices(['/', ':']).map(|(at, _)| at + 1);
        let mut taken: Vec<BTreeSet<WatchId>> = Vec::new();
        taken.extend(self.keys.remove(key));
        taken.extend(iter::once(0).chain(ends).filter_map(|end| self.prefixes.remove(&text[..end])));
        taken.into_iter().flatten()
    }
}

/// Removes a watch, and its set with the last one of it.
fn remove_from<K, Q>(sets: &mut BTreeMap<K, BTreeSet<WatchId>>, at: &Q, id: WatchId)
where
    K: Ord + std::borrow::Borrow<Q>,
    Q: Ord + ?Sized,
{
    if let Some(watches) = sets.get_mut(at) {
        watches.remove(&id);
        if watches.is_empty() {
            sets.remove(at);
        }
    }
}
