//! What a range of the store holds, kept up to date from snapshots and batches; without the I/O.

use std::collections::BTreeMap;
use std::time::Duration;

use slipring_core::mutation::{Mutated, Mutation};
use slipring_core::{Base, Batch, Change, Effect, Entry, Error, Key, Retry, Revision, Start};
use tokio::time::Instant;

use crate::backoff::{Backoff, PAUSE_MAX};

/// A pause that nobody lives to see end.
const NEVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// How long to pause after an error that trying again soon does not mend, such as wrong credentials.
const PAUSE_PERMANENT: Duration = Duration::from_secs(10);

/// Follows a range of the store over any number of watches, and says what changes.
///
/// Gaps, compaction, disconnects, silence, slow readers and restored stores all end in one recovery: a fresh
/// snapshot, compared with what is held. Until it comes the last entries are kept, and [`State`] says so.
/// Applying every change that was returned, in order, to an empty map gives [`entries`](Self::entries).
///
/// A watch is never gone on with after its end, not even where the store could: while nobody looked the store may
/// have been put back to an earlier time and have come past the revision that was seen last, with another history
/// than the entries are of. Neither its revisions nor anything else that is kept in it would tell.
///
/// # Order of calls
/// At every wake-up, first what happened, then [`poll`](Self::poll). On [`Step::Open`]: drop the watch that
/// is open, if any, open one from there, and answer with [`handle_watch`](Self::handle_watch) or
/// [`handle_end`](Self::handle_end); then give every item of that watch to
/// [`handle_batch`](Self::handle_batch) or [`handle_end`](Self::handle_end). Only the watch asked for last
/// counts: after a new [`Step::Open`] nothing of an earlier one may be handed in. Answers that fit no watch
/// are ignored. `now` never goes back.
#[derive(Debug)]
pub struct Mirror {
    options: Options,
    entries: BTreeMap<Key, Entry>,
    state: State,
    phase: Phase,
    /// The revision of the entries, once there was a snapshot.
    seen: Option<Revision>,
    /// When something was heard last, or a watch was asked for.
    heard: Instant,
    /// When the next full comparison is due; at once before the first.
    reconcile: Instant,
    backoff: Backoff,
}

/// How a [`Mirror`] follows its range.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Options {
    /// After so long without an item a watch counts as dead; the same bounds the opening of one.
    pub silence_max: Duration,
    /// How often everything is compared with a fresh snapshot, even if nothing seems wrong.
    pub reconcile: Duration,
    #[doc(hidden)]
    pub mutation: Mutated,
}

impl Options {
    /// For a store that declares this; everything is compared once a minute.
    pub fn new(silence_max: Duration) -> Self {
        Self { silence_max, reconcile: Duration::from_secs(60), mutation: Mutated::default() }
    }

    /// Compares with a fresh snapshot this often, at most once a second.
    #[must_use]
    pub fn with_reconcile(mut self, every: Duration) -> Self {
        self.reconcile = every.max(PAUSE_MAX);
        self
    }
}

/// What a mirror's entries are worth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// There was no snapshot yet. After a failure, with its cause.
    Syncing {
        /// Why it takes so long.
        cause: Option<Error>,
    },
    /// The entries are those of the store at this revision; what follows is being watched.
    Live(Revision),
    /// The watch is broken. The entries are what was seen last.
    Stale {
        /// When the store was heard last.
        since: Instant,
        /// What broke the watch.
        cause: Error,
    },
    /// There was no snapshot, and trying again soon will not help: this [code](Error::code) says why. It is
    /// tried again all the same, now and then.
    Failed(&'static str),
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Drop the watch that is open, and open one from here. Said once.
    Open(Start),
    /// Nothing to do until then, unless the watch yields something.
    Wait(Instant),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// No watch; one is due then.
    Closed(Instant),
    /// A watch was asked for.
    Opening,
    /// A watch is open since then, and its base is known.
    Open(Instant),
}

impl Mirror {
    /// Knows nothing yet; the first step is to open a watch. The seed decides the jitter.
    pub fn new(now: Instant, options: Options, seed: u64) -> Self {
        Self {
            options,
            entries: BTreeMap::new(),
            state: State::Syncing { cause: None },
            phase: Phase::Closed(now),
            seen: None,
            heard: now,
            reconcile: now,
            backoff: Backoff::new(seed),
        }
    }

    /// The entries, as far as they are known.
    pub fn entries(&self) -> &BTreeMap<Key, Entry> {
        &self.entries
    }

    /// What the entries are worth.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// What to do next.
    pub fn poll(&mut self, now: Instant) -> Step {
        let silent = self.heard + self.options.silence_max;
        match self.phase {
            Phase::Opening | Phase::Open(_) if now >= silent => {
                let cause = format!("nothing was heard for {:?}", self.options.silence_max);
                self.fail(now, Error::unavailable("watch", cause, Effect::None), false);
                self.poll(now)
            }
            Phase::Opening => Step::Wait(silent),
            Phase::Open(_) if now < self.reconcile => Step::Wait(silent.min(self.reconcile)),
            Phase::Closed(due) if now < due => Step::Wait(due),
            // A comparison that is due leaves the state as it is: nothing is known to be wrong.
            Phase::Open(_) | Phase::Closed(_) => {
                self.phase = Phase::Opening;
                self.heard = now;
                Step::Open(self.start(now))
            }
        }
    }

    /// The watch that was asked for is open. Returns what changed: puts in key order, then deletions.
    pub fn handle_watch(&mut self, now: Instant, base: Base) -> Vec<Change> {
        if self.phase != Phase::Opening {
            return Vec::new();
        }
        match base {
            Base::Snapshot(snapshot) => {
                let every = self.options.reconcile;
                self.reconcile = now + every - self.backoff.up_to(every / 10);
                self.phase = Phase::Open(now);
                self.hear(now, snapshot.revision);
                self.replace(snapshot.entries)
            }
            Base::Resumed(revision) if self.start(now) == Start::After(revision) => {
                self.phase = Phase::Open(now);
                self.hear(now, revision);
                Vec::new()
            }
            Base::Resumed(revision) => {
                let cause = format!("asked for a snapshot, it went on after revision {revision}");
                self.fail(now, Error::unavailable("watch", cause, Effect::None), true);
                Vec::new()
            }
        }
    }

    /// The open watch yielded a batch. Returns what really changed, in the order of the batch.
    pub fn handle_batch(&mut self, now: Instant, batch: Batch) -> Vec<Change> {
        let (Phase::Open(_), State::Live(seen)) = (self.phase, &self.state) else { return Vec::new() };
        // Progress may repeat a revision, changes never do: this is another history, or a mix-up.
        if batch.revision < *seen || (batch.revision == *seen && !batch.changes.is_empty()) {
            let cause = format!("revision {} came after revision {seen}", batch.revision);
            self.fail(now, Error::unavailable("watch", cause, Effect::None), true);
            return Vec::new();
        }
        self.hear(now, batch.revision);
        batch.changes.into_iter().filter_map(|change| self.apply(change)).collect()
    }

    /// The watch ended, or could not be opened.
    pub fn handle_end(&mut self, now: Instant, cause: Error) {
        let resync = cause.retry() == Retry::Resync;
        self.fail(now, cause, resync);
    }

    /// Where a watch begins: with a snapshot, unless a bug is switched on.
    fn start(&self, now: Instant) -> Start {
        let skips = self.options.mutation.is(Mutation::MirrorSkipsOne);
        match self.seen.filter(|_| now < self.reconcile) {
            Some(seen) if skips || self.options.mutation.is(Mutation::IdentityIsIgnored) => {
                Start::After(Revision(seen.0 + u64::from(skips)))
            }
            _ => Start::Snapshot,
        }
    }

    fn hear(&mut self, now: Instant, revision: Revision) {
        self.heard = now;
        self.state = State::Live(revision);
        self.seen = Some(revision);
    }

    /// Without a watch: decides when to open the next one; on `resync` that mends what is wrong, and nothing has to
    /// be waited for.
    fn fail(&mut self, now: Instant, cause: Error, resync: bool) {
        match self.phase {
            Phase::Closed(_) => return,
            // Only a watch that worked for a while begins a new count, or one that ends at once would spin.
            Phase::Open(since) if now >= since + PAUSE_MAX => self.backoff.reset(),
            Phase::Open(_) | Phase::Opening => {}
        }
        let first = self.backoff.failures() == 0;
        let mut pause = self.backoff.fail();
        if self.options.mutation.is(Mutation::BrokenWatchIsLeft) {
            pause = NEVER;
        }
        self.phase = Phase::Closed(match resync {
            true if first && pause != NEVER => now,
            false if is_permanent(&cause) => now + PAUSE_PERMANENT + pause,
            _ => now + pause,
        });
        if resync {
            self.seen = None;
        }
        self.doubt(cause);
    }

    fn doubt(&mut self, cause: Error) {
        self.state = match &self.state {
            State::Live(_) => State::Stale { since: self.heard, cause },
            State::Stale { since, .. } => State::Stale { since: *since, cause },
            State::Syncing { .. } | State::Failed(_) if is_permanent(&cause) => State::Failed(cause.code()),
            State::Syncing { .. } | State::Failed(_) => State::Syncing { cause: Some(cause) },
        };
    }

    fn replace(&mut self, entries: Vec<Entry>) -> Vec<Change> {
        let mut gone = std::mem::take(&mut self.entries);
        let mut changes = Vec::new();
        for entry in entries {
            if gone.remove(&entry.key).as_ref() != Some(&entry) {
                changes.push(Change::Put(entry.clone()));
            }
            self.entries.insert(entry.key.clone(), entry);
        }
        if self.options.mutation.is(Mutation::ResyncKeepsGhosts) {
            self.entries.append(&mut gone);
        }
        // Deletions last: a set whose members were all replaced is never seen empty in between.
        changes.extend(gone.into_keys().map(Change::Delete));
        changes
    }

    /// The change, if it is one.
    fn apply(&mut self, change: Change) -> Option<Change> {
        let real = match &change {
            Change::Put(entry) => {
                self.entries.insert(entry.key.clone(), entry.clone()).as_ref() != Some(entry)
            }
            Change::Delete(key) => self.entries.remove(key).is_some(),
        };
        real.then_some(change)
    }
}

fn is_permanent(cause: &Error) -> bool {
    matches!(cause, Error::Unauthorized { .. } | Error::Unsupported { .. } | Error::Invalid { .. })
}

#[cfg(test)]
mod tests;
