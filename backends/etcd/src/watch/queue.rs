use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};

use slipring_core::{Batch, Change, Error, Result};
use tokio::sync::Notify;

/// What a batch takes beyond keys and values, in bytes.
const BATCH_BYTES: usize = 64;

/// What waits for the reader of one watch: bounded, and ended by an error.
#[derive(Debug, Clone)]
pub(super) struct Queue(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    batches_max: usize,
    bytes_max: usize,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    batches: VecDeque<Batch>,
    bytes: usize,
    end: End,
}

#[derive(Debug, Default)]
enum End {
    /// It goes on.
    #[default]
    Open,
    /// The reader has still to be told.
    Untold(Error),
    /// The reader was told, or is gone.
    Over,
}

impl Queue {
    pub(super) fn new(batches_max: usize, bytes_max: usize) -> Self {
        Self(Arc::new(Shared { batches_max, bytes_max, state: Mutex::default(), changed: Notify::new() }))
    }

    /// Adds a batch. False if there is no room: then the reader is given `otherwise`, at once, because what
    /// waits is of no use to it any more.
    pub(super) fn push(&self, batch: Batch, otherwise: impl FnOnce() -> Error) -> bool {
        let bytes = bytes_of(&batch);
        let mut state = self.state();
        let full = state.batches.len() >= self.0.batches_max || state.bytes + bytes > self.0.bytes_max;
        // What is alone too large for the queue can be read nevertheless.
        let fits = !full || state.batches.is_empty();
        if fits && matches!(state.end, End::Open) {
            state.bytes += bytes;
            state.batches.push_back(batch);
        } else if !fits {
            *state = State { end: End::Untold(otherwise()), ..State::default() };
        }
        drop(state);
        self.0.changed.notify_one();
        fits
    }

    /// A sign of life, unless something waits already.
    pub(super) fn push_progress(&self, batch: Batch) {
        if self.state().batches.is_empty() {
            self.push(batch, || unreachable!("an empty queue has room"));
        }
    }

    /// The last item. Only the first one counts.
    pub(super) fn end(&self, error: Error) {
        let mut state = self.state();
        if matches!(state.end, End::Open) {
            state.end = End::Untold(error);
        }
        drop(state);
        self.0.changed.notify_one();
    }

    /// The reader is gone.
    pub(super) fn close(&self) {
        *self.state() = State { end: End::Over, ..State::default() };
    }

    pub(super) fn is_closed(&self) -> bool {
        matches!(self.state().end, End::Over)
    }

    /// The next item; none after the last. Cancel-safe.
    pub(super) async fn next(&self) -> Option<Result<Batch>> {
        loop {
            {
                let mut state = self.state();
                if let Some(batch) = state.batches.pop_front() {
                    state.bytes -= bytes_of(&batch);
                    return Some(Ok(batch));
                }
                match std::mem::replace(&mut state.end, End::Over) {
                    End::Open => state.end = End::Open,
                    End::Untold(error) => return Some(Err(error)),
                    End::Over => return None,
                }
            }
            self.0.changed.notified().await;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

fn bytes_of(batch: &Batch) -> usize {
    let bytes = |change: &Change| match change {
        Change::Put(entry) => entry.key.as_str().len() + entry.value.len() + BATCH_BYTES,
        Change::Delete(key) => key.as_str().len() + BATCH_BYTES,
    };
    BATCH_BYTES + batch.changes.iter().map(bytes).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use slipring_core::{Effect, Key, Revision};

    use super::*;

    fn batch(revision: u64) -> Batch {
        let key = Key::new("k").unwrap();
        Batch { revision: Revision(revision), changes: vec![Change::Delete(key)] }
    }

    fn compacted() -> Error {
        Error::compacted(Revision(7))
    }

    fn now(queue: &Queue) -> Option<Option<Result<Batch>>> {
        queue.next().now_or_never()
    }

    /// The reader is given all batches in order, then the end, once.
    #[test]
    fn batches_and_then_the_end() {
        let queue = Queue::new(10, 10_000);
        assert!(queue.push(batch(1), compacted) && queue.push(batch(2), compacted));
        queue.end(Error::unavailable("etcd", "first", Effect::None));
        queue.end(compacted());
        assert_eq!(now(&queue), Some(Some(Ok(batch(1)))));
        assert_eq!(now(&queue), Some(Some(Ok(batch(2)))));
        assert_eq!(now(&queue), Some(Some(Err(Error::unavailable("etcd", "first", Effect::None)))));
        assert_eq!(now(&queue), Some(None));
        assert_eq!(now(&queue), Some(None));
    }

    /// One batch too many, or one byte, and the reader is told at once; nothing is kept for it.
    #[test]
    fn a_full_queue_is_told() {
        let size = bytes_of(&batch(1));
        for queue in [Queue::new(2, 10_000), Queue::new(10, 3 * size - 1)] {
            assert!(queue.push(batch(1), compacted) && queue.push(batch(2), compacted));
            assert!(!queue.push(batch(3), compacted));
            assert!(queue.state().batches.is_empty() && queue.state().bytes == 0);
            assert_eq!(now(&queue), Some(Some(Err(compacted()))));
            assert_eq!(now(&queue), Some(None));
        }
    }

    /// A reader that keeps up is never told, however much goes through; nor is one whose single batch is
    /// larger than the queue.
    #[test]
    fn what_is_read_makes_room() {
        let queue = Queue::new(1, 1);
        for revision in 0..1000 {
            assert!(queue.push(batch(revision), compacted));
            assert_eq!(now(&queue), Some(Some(Ok(batch(revision)))));
        }
        assert_eq!(queue.state().bytes, 0);
    }

    /// Signs of life do not pile up, and never push anything out.
    #[test]
    fn progress_does_not_pile_up() {
        let queue = Queue::new(1, 1);
        let progress = |revision| Batch { revision: Revision(revision), changes: Vec::new() };
        for _ in 0..3 {
            queue.push_progress(progress(1));
        }
        assert_eq!(now(&queue), Some(Some(Ok(progress(1)))));
        assert_eq!(now(&queue), None);
        assert!(queue.push(batch(2), compacted));
        queue.push_progress(progress(2));
        assert_eq!(now(&queue), Some(Some(Ok(batch(2)))));
        assert_eq!(now(&queue), None);
    }

    /// A reader that waits is woken by a batch and by the end.
    #[tokio::test(start_paused = true)]
    async fn a_waiting_reader_is_woken() {
        let queue = Queue::new(1, 1000);
        let (item, ()) = tokio::join!(queue.next(), async {
            tokio::task::yield_now().await;
            queue.push(batch(1), compacted);
        });
        assert_eq!(item, Some(Ok(batch(1))));
        let (item, ()) = tokio::join!(queue.next(), async {
            tokio::task::yield_now().await;
            queue.end(compacted());
        });
        assert_eq!(item, Some(Err(compacted())));
    }

    /// What comes after the reader has gone is not kept.
    #[test]
    fn a_closed_queue_keeps_nothing() {
        let queue = Queue::new(10, 1000);
        queue.push(batch(1), compacted);
        queue.close();
        queue.push(batch(2), compacted);
        queue.end(compacted());
        assert!(queue.is_closed() && queue.state().batches.is_empty());
    }
}
