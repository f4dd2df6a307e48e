use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};

use slipring_core::{Effect, Error, Result, Revision, Subscription};

use crate::turmoil::wire::{Item, Reply};

/// Batches of a watch that wait for their reader before it is told to take a new snapshot.
const BATCHES_MAX: usize = 1024;

/// The node's end of a watch or of a subscription: what has arrived and was not read.
#[derive(Debug)]
pub(in crate::turmoil::wire) struct Line {
    /// What is subscribed to; none for a watch.
    subscription: Option<Subscription>,
    items: VecDeque<Result<Item>>,
    /// How many of them are messages.
    messages: usize,
    stopped: bool,
    ended: bool,
    waker: Option<Waker>,
}

impl Line {
    pub(in crate::turmoil::wire) fn watch() -> Self {
        Self::new(None)
    }

    pub(in crate::turmoil::wire) fn subscription(subscription: Subscription) -> Self {
        Self::new(Some(subscription))
    }

    fn new(subscription: Option<Subscription>) -> Self {
        Self { subscription, items: VecDeque::new(), messages: 0, stopped: false, ended: false, waker: None }
    }

    /// The next item; and the waker that was there before.
    pub(super) fn poll(&mut self, cx: &Context<'_>) -> (Poll<Option<Result<Item>>>, Option<Waker>) {
        match self.items.pop_front() {
            Some(item) => {
                self.messages -= usize::from(matches!(item, Ok(Item::Message { .. })));
                (Poll::Ready(Some(item)), None)
            }
            None if self.ended => (Poll::Ready(None), None),
            None => (Poll::Pending, self.waker.replace(cx.waker().clone())),
        }
    }

    /// Would this be too much for a watch?
    pub(super) fn overflows(&self, item: &Result<Item>) -> bool {
        self.subscription.is_none() && !self.ended && item.is_ok() && self.items.len() >= BATCHES_MAX
    }

    /// An item arrived; whom to wake. A full subscription drops the newest and counts them, a full watch ends.
    pub(super) fn push(&mut self, item: Result<Item>) -> Option<Waker> {
        if self.ended {
            return None;
        }
        match (&self.subscription, &item) {
            (None, Ok(Item::Batch { batch })) if self.items.len() >= BATCHES_MAX => {
                let oldest = Revision(batch.revision.0.saturating_sub(1));
                self.ended = true;
                self.items.push_back(Err(Error::compacted(oldest)));
            }
            (Some(subscription), Ok(_)) if self.messages >= subscription.messages_max => {
                self.miss_one();
            }
            (_, Err(Error::Lagged { .. })) => self.items.push_back(item),
            (_, Err(_)) => {
                self.ended = true;
                self.items.push_back(item);
            }
            (_, Ok(_)) => {
                self.messages += usize::from(matches!(item, Ok(Item::Message { .. })));
                self.items.push_back(item);
            }
        }
        self.waker.take()
    }

    /// Nothing more will arrive.
    pub(super) fn end(&mut self) -> Option<Waker> {
        self.ended = true;
        self.waker.take()
    }

    /// Its reader wants no more than what was accepted.
    pub(super) fn stop(&mut self, connected: bool) -> Option<Waker> {
        self.stopped = true;
        if connected { None } else { self.end() }
    }

    /// The connection broke: a watch is over, a subscription waits for the next one unless nobody wants more.
    pub(super) fn disconnected(&mut self, lost: &Error, closed: bool) -> Option<Waker> {
        if self.subscription.is_none() {
            return self.push(Err(lost.clone()));
        }
        if self.stopped || closed { self.end() } else { None }
    }

    /// What to subscribe to on a new connection.
    pub(super) fn restore(&self) -> Option<Subscription> {
        let wanted = !self.stopped && !self.ended;
        // Its bound is here; at the broker's end it has room to come here.
        self.subscription.clone().filter(|_| wanted).map(at_the_broker)
    }

    /// It is subscribed again: what came in between is lost, and nobody knows how much.
    pub(super) fn restored(&mut self, answer: Result<Reply>) -> Option<Waker> {
        match answer {
            Ok(_) => self.push(Err(Error::lagged(0))),
            Err(error) => self.push(Err(error)),
        }
    }

    /// Counts a message that there is no room for, where it would have been.
    fn miss_one(&mut self) {
        match self.items.back_mut() {
            Some(Err(Error::Lagged { missed, effect: Effect::None })) if *missed > 0 => *missed += 1,
            _ => self.items.push_back(Err(Error::lagged(1))),
        }
    }
}

/// A subscription as it is made at the broker: there it waits only for the connection.
pub(in crate::turmoil::wire) fn at_the_broker(subscription: Subscription) -> Subscription {
    subscription.with_messages_max(Subscription::MESSAGES_MAX)
}

#[cfg(test)]
mod tests {
    use slipring_core::{Batch, Message, Pattern, Subject};

    use super::*;

    fn message() -> Result<Item> {
        Ok(Item::Message { message: Message::new(Subject::new("s").unwrap(), "") })
    }

    fn read(line: &mut Line) -> Vec<Option<Result<Item>>> {
        let cx = Context::from_waker(Waker::noop());
        let mut read = Vec::new();
        loop {
            match line.poll(&cx).0 {
                Poll::Ready(Some(item)) => read.push(Some(item)),
                Poll::Ready(None) => {
                    read.push(None);
                    return read;
                }
                Poll::Pending => return read,
            }
        }
    }

    /// M9, M10: a full subscription counts what it drops, exactly and where it would have been; a reconnection
    /// is told on its own, since nobody knows what it cost.
    #[test]
    fn m10_the_gap_is_counted() {
        let wanted = Subscription::new(Pattern::new("s").unwrap()).with_messages_max(2);
        let mut line = Line::subscription(wanted);
        for _ in 0..5 {
            line.push(message());
        }
        line.restored(Ok(Reply::Done));
        line.push(message());
        let lagged = |missed| Some(Err(Error::lagged(missed)));
        let m = || Some(message());
        assert_eq!(read(&mut line), [m(), m(), lagged(3), lagged(0), lagged(1)]);
        line.push(message());
        line.end();
        line.push(message());
        assert_eq!(read(&mut line), [m(), None]);
    }

    /// W11: a watch that nobody reads ends with `Compacted`, and not without a word.
    #[test]
    fn w11_a_full_watch_ends_with_compacted() {
        let mut line = Line::watch();
        for revision in 1..=BATCHES_MAX as u64 + 3 {
            let item = Ok(Item::Batch { batch: Batch { revision: Revision(revision), changes: Vec::new() } });
            assert_eq!(line.overflows(&item), revision == BATCHES_MAX as u64 + 1);
            line.push(item);
        }
        let read = read(&mut line);
        assert_eq!(read.len(), BATCHES_MAX + 2);
        assert_eq!(read[BATCHES_MAX], Some(Err(Error::compacted(Revision(BATCHES_MAX as u64)))));
        assert_eq!(read[BATCHES_MAX + 1], None);
    }
}
