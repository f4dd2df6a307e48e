use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use tokio::time::{Instant, Sleep, sleep_until};

/// Items of a stream on their way, in order. What is pulled takes its time; what is not stays at the broker.
pub(super) struct Flight<T> {
    items: VecDeque<(Instant, Option<T>)>,
    ended: bool,
    arrival: Option<Pin<Box<Sleep>>>,
}

/// Items on their way at a time; the next ones wait at the broker.
const ITEMS_MAX: usize = 1024;

impl<T> Flight<T> {
    pub(super) fn new() -> Self {
        Self { items: VecDeque::new(), ended: false, arrival: None }
    }

    /// The next item to arrive; none at the end of the stream. Cancel-safe.
    pub(super) async fn next<S>(&mut self, items: &mut S, latency: impl Fn() -> Duration) -> Option<T>
    where
        S: Stream<Item = T> + Unpin,
    {
        poll_fn(|cx| {
            self.pull(cx, items, &latency);
            self.poll_arrival(cx)
        })
        .await
    }

    fn pull<S>(&mut self, cx: &mut Context<'_>, items: &mut S, latency: &impl Fn() -> Duration)
    where
        S: Stream<Item = T> + Unpin,
    {
        while !self.ended && self.items.len() < ITEMS_MAX {
            let Poll::Ready(item) = items.poll_next_unpin(cx) else { return };
            self.ended = item.is_none();
            let arrives = Instant::now() + latency();
            let arrives = self.items.back().map_or(arrives, |(last, _)| arrives.max(*last));
            self.items.push_back((arrives, item));
        }
    }

    fn poll_arrival(&mut self, cx: &mut Context<'_>) -> Poll<Option<T>> {
        loop {
            let Some((arrives, _)) = self.items.front() else {
                return if self.ended { Poll::Ready(None) } else { Poll::Pending };
            };
            if *arrives <= Instant::now() {
                self.arrival = None;
                let (_, item) = self.items.pop_front().expect("it was just looked at");
                return Poll::Ready(item);
            }
            let arrival = self.arrival.get_or_insert_with(|| Box::pin(sleep_until(*arrives)));
            if arrival.deadline() != *arrives {
                arrival.as_mut().reset(*arrives);
            }
            if arrival.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }
}
