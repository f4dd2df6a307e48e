use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use futures_util::StreamExt;
use slipring_core::service::Requests;
use slipring_core::{Message, Result};
use tokio::task::coop;

/// The requests of an endpoint as they arrive, and whether they are taken as fast as they do.
pub(super) struct Arrivals {
    requests: Requests,
    /// So many were there already when they were asked for.
    in_a_row: usize,
}

/// More requests than this in a row are more than one task keeps up with.
const IN_A_ROW_MAX: usize = 1024;

impl Arrivals {
    pub(super) fn new(requests: Requests) -> Self {
        Self { requests, in_a_row: 0 }
    }

    /// The next message, as [`Requests`] yield it. Cancel-safe.
    pub(super) async fn next(&mut self) -> Option<Result<Message>> {
        let Self { requests, in_a_row } = self;
        poll_fn(|cx| {
            let next = requests.poll_next_unpin(cx);
            match &next {
                Poll::Ready(_) => *in_a_row = in_a_row.saturating_add(1),
                Poll::Pending if coop::has_budget_remaining() => *in_a_row = 0,
                // There may be one: the task has to let others run.
                Poll::Pending => {}
            }
            next
        })
        .await
    }

    /// Do they arrive no faster than they are taken?
    pub(super) fn are_few(&self) -> bool {
        self.in_a_row <= IN_A_ROW_MAX
    }

    /// Unsubscribes; what had already arrived is still yielded.
    pub(super) fn stop(&mut self) {
        self.requests.stop();
    }

    /// Subscribes again, for as long as it takes.
    pub(super) async fn reopen(&mut self) {
        let mut pause = Duration::from_millis(50);
        while let Err(error) = self.requests.reopen().await {
            tracing::debug!(%error, "the subscription cannot be opened yet");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(1));
        }
    }
}
