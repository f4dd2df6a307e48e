use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

use slipring_core::{Error, Message, Result, Subscription};

use crate::tap::Sink;
use crate::wire;

/// What a subscription got and its reader has not read yet. It outlives connections.
pub(crate) struct Route {
    pub(crate) subscription: Subscription,
    buffer: Mutex<Buffer>,
}

#[derive(Default)]
struct Buffer {
    slots: VecDeque<Slot>,
    /// How many of the slots are messages.
    messages: usize,
    reader: Option<Waker>,
    /// Set once nothing more will come: the error that the stream ends with, if any.
    end: Option<Option<Error>>,
    /// No message is accepted any more, although the end may not be there yet.
    stopped: bool,
}

enum Slot {
    Message(async_nats::Message),
    /// So many messages were lost here; 0 if nobody knows how many.
    Lost(u64),
}

impl Route {
    pub(crate) fn new(subscription: Subscription) -> Self {
        Self { subscription, buffer: Mutex::default() }
    }

    /// The next message, or what was lost before it.
    pub(crate) fn poll_next(&self, cx: &Context<'_>) -> Poll<Option<Result<Message>>> {
        let mut buffer = self.lock();
        let replaced = match buffer.slots.pop_front() {
            Some(Slot::Message(message)) => {
                buffer.messages -= 1;
                drop(buffer);
                return Poll::Ready(Some(wire::inbound(message).map_err(|error| {
                    tracing::warn!(%error, "a message from NATS that cannot be read");
                    Error::lagged(1)
                })));
            }
            Some(Slot::Lost(missed)) => return Poll::Ready(Some(Err(Error::lagged(missed)))),
            None => match &mut buffer.end {
                Some(error) => return Poll::Ready(error.take().map(Err)),
                None => buffer.reader.replace(cx.waker().clone()),
            },
        };
        drop(buffer);
        // A waker may own the last part of a task that owns this reader.
        drop(replaced);
        Poll::Pending
    }

    /// Messages may have been lost, nobody knows how many.
    pub(crate) fn gap(&self) {
        self.change(|buffer| {
            if buffer.end.is_none() {
                buffer.lose(0);
            }
        });
    }

    /// Nothing more will come. The first end counts.
    pub(crate) fn end(&self, error: Option<Error>) {
        self.change(|buffer| {
            buffer.end.get_or_insert(error);
        });
    }

    /// The server is asked for no more: a new connection will not ask again. False if it had been already.
    pub(crate) fn stop(&self) -> bool {
        !std::mem::replace(&mut self.lock().stopped, true)
    }

    /// Is the server asked for no more?
    pub(crate) fn is_stopped(&self) -> bool {
        self.lock().stopped
    }

    /// The error it ended with, if it did.
    pub(crate) fn refusal(&self) -> Option<Error> {
        self.lock().end.clone().flatten()
    }

    fn change(&self, change: impl FnOnce(&mut Buffer)) {
        let reader = {
            let mut buffer = self.lock();
            change(&mut buffer);
            buffer.reader.take()
        };
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Buffer> {
        self.buffer.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Buffer {
    /// Notes a loss at the end. Together with a loss of an unknown number, a known number is unknown.
    fn lose(&mut self, missed: u64) {
        match self.slots.back_mut() {
            Some(Slot::Lost(before)) if *before > 0 && missed > 0 => *before += missed,
            Some(Slot::Lost(before)) => *before = 0,
            _ => self.slots.push_back(Slot::Lost(missed)),
        }
    }
}

impl Sink for Route {
    fn accept(&self, message: async_nats::Message) -> Option<Waker> {
        let mut buffer = self.lock();
        if buffer.end.is_some() {
            return None;
        }
        if buffer.messages < self.subscription.messages_max {
            buffer.messages += 1;
            buffer.slots.push_back(Slot::Message(message));
        } else {
            buffer.lose(1);
        }
        buffer.reader.take()
    }

    /// The next connection will tell the gap, and go on.
    fn cut(&self) {}
}
