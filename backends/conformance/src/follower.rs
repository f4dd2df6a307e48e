use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::StreamExt;
use slipring_core::{
    Base, Batch, BoxStream, Change, Discovery, Entry, Error, Key, Range, Revision, Snapshot, Start,
    WatchFidelity,
};
use tokio::time::timeout;

use crate::Failure;
use crate::failure::{ensure, ensure_eq};
use crate::outage::retried;
use crate::trial::{WAIT_MAX, can, within};

/// Reads a watch and keeps the state that it describes. On the way it checks what holds for every watch:
/// the base fits the start, revisions go forward, and only keys of the range are shown.
pub(crate) struct Follower {
    range: Range,
    every_revision: bool,
    silence_max: Duration,
    events: BoxStream<'static, slipring_core::Result<Batch>>,
    at: Revision,
    view: BTreeMap<Key, Entry>,
}

impl Follower {
    /// Opens a watch that begins with a snapshot.
    pub(crate) async fn open(store: &dyn Discovery, range: impl Into<Range>) -> Result<Self, Failure> {
        let range = range.into();
        let watch = store.watch(range.clone(), Start::Snapshot).await?;
        let Base::Snapshot(Snapshot { revision, entries }) = watch.base else {
            return Err(Failure::new(format!("expected a snapshot as the base, got {:?}", watch.base)));
        };
        ensure!(entries.is_sorted_by(|a, b| a.key < b.key), "the base is not in key order: {entries:?}");
        for entry in &entries {
            ensure!(range.contains(&entry.key), "the base of {range:?} holds {:?}", entry.key);
            ensure!(entry.modified <= revision, "the base at {revision} holds the later {entry:?}");
        }
        let view = entries.into_iter().map(|entry| (entry.key.clone(), entry)).collect();
        Self::on(store, range, watch.events, revision, view).await
    }

    /// Opens a watch that goes on after a revision; its view begins empty.
    pub(crate) async fn resume(
        store: &dyn Discovery,
        range: impl Into<Range>,
        after: Revision,
    ) -> Result<Self, Failure> {
        let range = range.into();
        let watch = store.watch(range.clone(), Start::After(after)).await?;
        ensure_eq!(watch.base, Base::Resumed(after), "the base of a resumed watch");
        Self::on(store, range, watch.events, after, BTreeMap::new()).await
    }

    async fn on(
        store: &dyn Discovery,
        range: Range,
        events: BoxStream<'static, slipring_core::Result<Batch>>,
        at: Revision,
        view: BTreeMap<Key, Entry>,
    ) -> Result<Self, Failure> {
        let can = can(store).await?;
        let every_revision = can.watch == WatchFidelity::EveryRevision;
        Ok(Self { range, every_revision, silence_max: can.watch_silence_max, events, at, view })
    }

    /// After its end: goes on from where it was, with the view that it had, as soon as the store answers.
    pub(crate) async fn reopen(&mut self, store: &dyn Discovery) -> Result<(), Failure> {
        let (range, at) = (&self.range, self.at);
        let watch = retried("the watch to go on", || store.watch(range.clone(), Start::After(at))).await?;
        ensure_eq!(watch.base, Base::Resumed(self.at), "the base of a resumed watch");
        self.events = watch.events;
        Ok(())
    }

    /// What exists, as far as this watch has told.
    pub(crate) fn view(&self) -> Vec<Entry> {
        self.view.values().cloned().collect()
    }

    /// All up to here was delivered.
    pub(crate) fn revision(&self) -> Revision {
        self.at
    }

    /// The next item, progress included. The caller bounds the wait.
    pub(crate) async fn item(&mut self) -> Result<Batch, Failure> {
        Ok(self.next().await??)
    }

    /// The next changes.
    pub(crate) async fn changes(&mut self) -> Result<Batch, Failure> {
        let what = format!("a change in {:?}", self.range);
        let changes = async {
            loop {
                let batch = self.item().await?;
                if !batch.changes.is_empty() {
                    return Ok(batch);
                }
            }
        };
        within(what, changes).await?
    }

    /// All changes up to the one that writes this key, which is included.
    pub(crate) async fn until(&mut self, key: &Key) -> Result<Vec<Batch>, Failure> {
        let is_it = |change: &Change| matches!(change, Change::Put(entry) if entry.key == *key);
        let mut batches = Vec::new();
        while !batches.last().is_some_and(|batch: &Batch| batch.changes.iter().any(is_it)) {
            batches.push(self.changes().await?);
        }
        Ok(batches)
    }

    /// Reads up to a revision; the error, if the watch ended before.
    pub(crate) async fn reach(&mut self, revision: Revision) -> Result<Option<Error>, Failure> {
        let what = format!("the watch of {:?} to reach {revision} or to end", self.range);
        let reach = async {
            while self.at < revision {
                if let Err(error) = self.next().await? {
                    return Ok(Some(error));
                }
            }
            Ok(None)
        };
        within(what, reach).await?
    }

    /// The next changes, or the error that the watch ends with.
    pub(crate) async fn changes_or_end(&mut self) -> Result<slipring_core::Result<Batch>, Failure> {
        let what = format!("a change in {:?}, or an end of the watch", self.range);
        let next = async {
            loop {
                match self.next().await? {
                    Ok(batch) if batch.changes.is_empty() => {}
                    other => return Ok(other),
                }
            }
        };
        within(what, next).await?
    }

    /// The error that the watch ends with. It may take as long as a watch may be silent.
    pub(crate) async fn end(&mut self) -> Result<Error, Failure> {
        let time_max = self.silence_max + WAIT_MAX;
        let late = format!("waited {time_max:?} in vain for the watch of {:?} to end", self.range);
        let end = async {
            loop {
                if let Err(error) = self.next().await? {
                    return Ok(error);
                }
            }
        };
        timeout(time_max, end).await.map_err(|_| Failure::new(late))?
    }

    async fn next(&mut self) -> Result<slipring_core::Result<Batch>, Failure> {
        match self.events.next().await {
            Some(Ok(batch)) => self.accept(batch).map(Ok),
            Some(Err(error)) => Ok(Err(error)),
            None => Err(Failure::new("the watch ended silently: its last item must be an error")),
        }
    }

    fn accept(&mut self, batch: Batch) -> Result<Batch, Failure> {
        let Batch { revision, ref changes } = batch;
        let forward = if changes.is_empty() { revision >= self.at } else { revision > self.at };
        ensure!(forward, "the watch was at {} when this came: {batch:?}", self.at);
        for change in changes {
            ensure!(self.range.contains(change.key()), "the watch of {:?} shows {change:?}", self.range);
            match change {
                Change::Put(entry) => {
                    let fits = if self.every_revision {
                        entry.modified == revision
                    } else {
                        entry.modified <= revision
                    };
                    ensure!(fits, "an entry at another revision than its batch: {batch:?}");
                    self.view.insert(entry.key.clone(), entry.clone());
                }
                Change::Delete(key) => drop(self.view.remove(key)),
            }
        }
        self.at = revision;
        Ok(batch)
    }
}
