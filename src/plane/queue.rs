//! What one call brought, between whoever brings it and whoever reads it.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use slipring_core::Error;

use super::link::Arrival;

/// The arrivals of one call that were not read yet. Whoever brings them bounds how many there can be.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The oldest: most calls bring one thing, which needs no room for others.
    first: Option<Arrival>,
    /// What follows it; nothing without it.
    more: VecDeque<Arrival>,
    /// Items brought so far.
    brought: u64,
    /// Was an end brought, whether it was read or not?
    ended: bool,
    /// Did the announced end come?
    complete: bool,
    reader: Option<Waker>,
}

impl Queue {
    /// Brings items, the first of which has this number, from 1; `last` if nothing follows them.
    pub(crate) fn items(&self, first: u64, items: impl Iterator<Item = Bytes>, last: bool) {
        self.bring(|state| {
            if first != state.brought + 1 {
                let hole = format!("item {first} came next");
                return state.push(Arrival::Failed(Error::stream_interrupted(0, hole)));
            }
            let mut items = items.peekable();
            while let Some(payload) = items.next() {
                state.push(Arrival::Item { payload, last: last && items.peek().is_none() });
            }
        });
    }

    /// Brings the announced end, with the number of items.
    pub(crate) fn end(&self, count: u64) {
        self.bring(|state| {
            let end = if count == state.brought {
                Arrival::End { count }
            } else {
                Arrival::Failed(Error::stream_interrupted(0, format!("it ended after {count} items")))
            };
            state.push(end);
        });
    }

    /// Brings the end, with an error. How many items a stream that is interrupted delivered is said by whoever
    /// delivers them.
    pub(crate) fn fail(&self, error: Error) {
        self.bring(|state| state.push(Arrival::Failed(error)));
    }

    /// Brings what a connection brought, which keeps order and count by itself.
    pub(crate) fn deliver(&self, arrivals: &mut Vec<Arrival>) {
        self.bring(|state| arrivals.drain(..).for_each(|arrival| state.push(arrival)));
    }

    /// Brings nothing, but wakes whoever waits.
    pub(crate) fn wake(&self) {
        self.bring(|_| {});
    }

    fn bring(&self, bring: impl FnOnce(&mut State)) {
        let mut state = self.state();
        bring(&mut state);
        let reader = state.reader.take();
        drop(state);
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    /// What comes next; what waits behind it is moved to `rest`, which is empty.
    pub(crate) fn poll(&self, rest: &mut VecDeque<Arrival>, cx: &mut Context<'_>) -> Poll<Arrival> {
        let mut state = self.state();
        match state.first.take() {
            Some(arrival) => {
                std::mem::swap(&mut state.more, rest);
                Poll::Ready(arrival)
            }
            None => {
                if !state.reader.as_ref().is_some_and(|reader| reader.will_wake(cx.waker())) {
                    state.reader = Some(cx.waker().clone());
                }
                Poll::Pending
            }
        }
    }

    /// Was an end brought, whether it was read or not?
    pub(crate) fn is_ended(&self) -> bool {
        self.state().ended
    }

    /// Did the announced end come, whether all before it was read or not?
    pub(crate) fn is_complete(&self) -> bool {
        self.state().complete
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change under the lock is whole, so a panic elsewhere leaves it usable.
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl State {
    /// Nothing comes after an end.
    fn push(&mut self, arrival: Arrival) {
        if self.ended {
            return;
        }
        self.ended = !matches!(arrival, Arrival::Item { last: false, .. });
        self.complete = self.ended && !matches!(arrival, Arrival::Failed(_));
        self.brought += u64::from(matches!(arrival, Arrival::Item { .. }));
        if self.first.is_none() {
            self.first = Some(arrival);
        } else {
            self.more.push_back(arrival);
        }
    }
}
