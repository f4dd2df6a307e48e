use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use etcd_client::proto::{PbEvent, PbWatchResponse};
use slipring_core::{Batch, Change, Effect, Error, Result, Revision};
use tokio::sync::oneshot;

use super::queue::Queue;
use crate::error::{ETCD, is_about_credentials};
use crate::history::History;
use crate::kv::{Keys, revision};

/// The id in messages that concern no watch: a sign of life, or a watch that was refused.
const NO_WATCH: i64 = -1;

/// All watches of one stream: what the server's messages mean for whom. Free of I/O.
///
/// Watches are [added](Self::add) in the order in which they are asked for on the stream, because that is the
/// order in which the server says that they are made.
#[derive(Debug)]
pub(super) struct Watchers {
    keys: Keys,
    history: Arc<Mutex<History>>,
    watches: BTreeMap<i64, Watcher>,
    /// Those that the server has not answered yet, with the newest revision seen when they were asked for;
    /// also if their readers are gone by now.
    asked: VecDeque<(i64, Revision)>,
    /// The newest revision seen when the last sign of life was asked for.
    progress_asked: Revision,
}

/// One watch.
#[derive(Debug)]
pub(super) struct Watcher {
    queue: Queue,
    /// All up to here was delivered, or was there before.
    delivered: Revision,
    /// The changes of the revision that comes next; perhaps not all of them yet.
    held: Option<Batch>,
    made: Option<oneshot::Sender<Result<()>>>,
}

impl Watcher {
    /// A watch of what follows a revision. `made` is told when the server has made it.
    pub(super) fn new(queue: Queue, after: Revision, made: oneshot::Sender<Result<()>>) -> Self {
        Self { queue, delivered: after, held: None, made: Some(made) }
    }
}

impl Watchers {
    pub(super) fn new(keys: Keys, history: Arc<Mutex<History>>) -> Self {
        // The request that opens a stream makes no watch, and is answered first.
        let asked = VecDeque::from([(NO_WATCH, Revision(0))]);
        Self { keys, history, watches: BTreeMap::new(), asked, progress_asked: Revision(0) }
    }

    /// A watch is about to be asked for under this id, which is new.
    pub(super) fn add(&mut self, id: i64, watcher: Watcher) {
        let newest = self.history().newest();
        self.asked.push_back((id, newest));
        self.watches.insert(id, watcher);
    }

    /// Forgets a watch whose reader is gone. True if the server has to be told.
    pub(super) fn remove(&mut self, id: i64) -> bool {
        self.watches.remove(&id).is_some()
    }

    /// A sign of life is about to be asked for.
    pub(super) fn ask_progress(&mut self) {
        let newest = self.history().newest();
        self.progress_asked = newest;
    }

    /// Takes a message of the server in. Returns the watch that it ended, if the server does not know that
    /// yet.
    pub(super) fn handle(&mut self, message: PbWatchResponse) -> Option<i64> {
        let (cluster, now) = message
            .header
            .as_ref()
            .map_or((0, Revision(0)), |header| (header.cluster_id, revision(header.revision)));
        if message.created {
            return self.handle_made(&message, cluster, now);
        }
        if message.watch_id == NO_WATCH && !message.canceled {
            self.handle_progress(cluster, now);
            return None;
        }
        let id = message.watch_id;
        if message.canceled {
            if let Some(watcher) = self.watches.remove(&id) {
                watcher.queue.end(cause_of(&message));
            }
            return None;
        }
        let history = self.history.clone();
        // Its reader may be gone, and the server not know it yet.
        let watcher = self.watches.get_mut(&id)?;
        let room = watcher.take(message.events, message.fragment, &self.keys);
        lock(&history).saw(watcher.delivered);
        (!room && self.watches.remove(&id).is_some()).then_some(id)
    }

    /// Ends all watches.
    pub(super) fn end(&mut self, error: &Error) {
        for (_, mut watcher) in std::mem::take(&mut self.watches) {
            watcher.queue.end(error.clone());
            watcher.answer(Err(error.clone()));
        }
    }

    fn handle_made(&mut self, message: &PbWatchResponse, cluster: u64, now: Revision) -> Option<i64> {
        let (id, asked) = self.asked.pop_front()?;
        let resumes = |history: &mut History, after| {
            history.answered(cluster, now, asked);
            history.resumes(after, now)
        };
        let watcher = self.watches.get_mut(&id)?;
        if message.canceled {
            watcher.answer(Err(cause_of(message)));
            self.watches.remove(&id);
            return None;
        }
        if resumes(&mut lock(&self.history), watcher.delivered) {
            watcher.answer(Ok(()));
            return None;
        }
        // etcd itself would stay silent until it gets there.
        watcher.answer(Err(Error::compacted(now)));
        self.watches.remove(&id);
        Some(id)
    }

    /// Progress is not ordered with events on the versions in use: it says that the server lives, and no
    /// more. But a server that is behind what it has shown has another history now.
    fn handle_progress(&mut self, cluster: u64, now: Revision) {
        self.history().answered(cluster, now, self.progress_asked);
        let asked = self.progress_asked;
        self.watches.retain(|_, watcher| {
            let behind = now < watcher.delivered.min(asked);
            if behind {
                watcher.queue.end(Error::compacted(now));
            } else if watcher.made.is_none() {
                let revision = watcher.delivered;
                watcher.queue.push_progress(Batch { revision, changes: Vec::new() });
            }
            !behind
        });
    }

    fn history(&self) -> MutexGuard<'_, History> {
        lock(&self.history)
    }
}

impl Watcher {
    fn answer(&mut self, answer: Result<()>) {
        if let Some(made) = self.made.take() {
            // Whoever asked may be gone.
            let _ = made.send(answer);
        }
    }

    /// Takes events in. Whole revisions go on to the reader; of a message that is a fragment, the last
    /// revision may have more to come. False if the reader was too slow.
    fn take(&mut self, events: Vec<PbEvent>, is_fragment: bool, keys: &Keys) -> bool {
        let mut room = true;
        for event in events {
            let is_deletion = event.r#type != 0;
            let Some(stored) = event.kv else { continue };
            let at = revision(stored.mod_revision);
            // W10: nothing from before the start, and nothing twice.
            if at <= self.delivered {
                continue;
            }
            if self.held.as_ref().is_some_and(|held| held.revision != at) {
                room &= self.deliver();
            }
            let held = self.held.get_or_insert(Batch { revision: at, changes: Vec::new() });
            held.changes.extend(match is_deletion {
                true => keys.ours(&stored.key).map(Change::Delete),
                false => keys.entry(stored).map(Change::Put),
            });
        }
        if !is_fragment {
            room &= self.deliver();
        }
        room
    }

    fn deliver(&mut self) -> bool {
        let Some(batch) = self.held.take() else { return true };
        self.delivered = batch.revision;
        let revision = batch.revision;
        batch.changes.is_empty() || self.queue.push(batch, || Error::compacted(revision))
    }
}

/// Why the server ended or refused a watch.
fn cause_of(message: &PbWatchResponse) -> Error {
    let reason = message.cancel_reason.as_str();
    match message.compact_revision {
        0 if is_about_credentials(reason) => Error::unauthorized(ETCD, reason),
        0 => Error::unavailable(ETCD, format!("the watch was ended: {reason}"), Effect::None),
        oldest => Error::compacted(revision(oldest)),
    }
}

fn lock(history: &Mutex<History>) -> MutexGuard<'_, History> {
    history.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

#[cfg(test)]
mod tests;
