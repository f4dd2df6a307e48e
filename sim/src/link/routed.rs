use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::{Stream, StreamExt};
use slipring_core::{Message, Result, Subscriber, Subscription};

use crate::history::Event;
use crate::trace::Log;

/// A subscription that the broker routes to, and tells so.
pub(super) struct Routed {
    subscriber: Subscriber,
    line: u64,
    /// Whom to tell when that ends.
    log: Option<(Log, Arc<str>)>,
}

impl Routed {
    pub(super) fn new(
        subscriber: Subscriber,
        line: u64,
        subscription: &Subscription,
        log: Option<(Log, Arc<str>)>,
    ) -> Self {
        if let Some((log, name)) = &log {
            let Subscription { pattern, queue, .. } = subscription.clone();
            log.add(name, Event::Subscribed { line, pattern, queue });
        }
        Self { subscriber, line, log }
    }

    /// Routes no more to it; what it has is still read.
    pub(super) fn stop(&mut self) {
        self.subscriber.stop();
        self.tell_end();
    }

    fn tell_end(&mut self) {
        if let Some((log, name)) = self.log.take() {
            log.add(&name, Event::Unsubscribed { line: self.line });
        }
    }
}

impl Stream for Routed {
    type Item = Result<Message>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.subscriber.poll_next_unpin(cx)
    }
}

impl Drop for Routed {
    fn drop(&mut self) {
        self.tell_end();
    }
}
