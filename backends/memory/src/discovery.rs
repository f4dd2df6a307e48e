use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::Stream;
use slipring_core::{
    Batch, Commit, Discovery, DiscoveryCapabilities, Lease, LeaseId, Range, Result, Snapshot, Start, Txn,
    Watch,
};
use tokio::task::consume_budget;
use tokio::task::coop::poll_proceed;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::store::{Store, WatchId};
use crate::world::{Polled, Shared};

/// [`Discovery`] in memory: a handle to the store of a [`MemoryWorld`](crate::MemoryWorld).
///
/// Every call is answered at once; only a watch ever waits.
#[derive(Clone)]
pub struct MemoryDiscovery {
    world: Arc<Shared>,
}

impl MemoryDiscovery {
    pub(crate) fn new(world: Arc<Shared>) -> Self {
        Self { world }
    }

    /// One call to the store. It counts against the task's budget, so that a loop of calls, none of which
    /// ever waits, cannot keep the other tasks of its thread from running.
    async fn step<R>(&self, act: impl FnOnce(&mut Store, Duration) -> R) -> R {
        consume_budget().await;
        self.world.step(act)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Discovery for MemoryDiscovery {
    async fn capabilities(&self) -> Result<DiscoveryCapabilities> {
        Ok(self.world.profile.discovery)
    }

    async fn read(&self, range: Range) -> Result<Snapshot> {
        Ok(self.step(|store, now| store.read(now, &range)).await)
    }

    async fn commit(&self, txn: Txn) -> Result<Commit> {
        self.step(|store, now| store.commit(now, txn)).await
    }

    async fn watch(&self, range: Range, start: Start) -> Result<Watch> {
        let (watch, base) = self.step(|store, now| store.watch(now, range, start)).await?;
        Ok(Watch { base, events: Box::pin(Events::new(self.world.clone(), watch)) })
    }

    async fn grant(&self, ttl: Duration) -> Result<Lease> {
        self.step(|store, now| store.grant(now, ttl)).await
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<Duration> {
        self.step(|store, now| store.keep_alive(now, lease)).await
    }

    async fn revoke(&self, lease: LeaseId) -> Result<()> {
        self.step(|store, now| store.revoke(now, lease)).await
    }
}

impl fmt::Debug for MemoryDiscovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryDiscovery").finish_non_exhaustive()
    }
}

/// The events of one watch.
struct Events {
    world: Arc<Shared>,
    watch: WatchId,
    /// When the reader is told how far it is, if nothing else happens.
    progress_at: Instant,
    /// Made at the first wait, set anew only when it must ring earlier than it would, or has rung.
    alarm: Option<Pin<Box<Sleep>>>,
    ended: bool,
}

impl Events {
    fn new(world: Arc<Shared>, watch: WatchId) -> Self {
        let progress_at = Instant::now() + world.profile.watch_progress_interval;
        Self { world, watch, progress_at, alarm: None, ended: false }
    }

    /// Ready when the alarm has rung, which is at `at` or before.
    fn poll_alarm(&mut self, cx: &mut Context<'_>, at: Instant) -> Poll<()> {
        let alarm = self.alarm.get_or_insert_with(|| Box::pin(sleep_until(at)));
        if alarm.is_elapsed() || alarm.deadline() > at {
            alarm.as_mut().reset(at);
        }
        alarm.as_mut().poll(cx)
    }
}

impl Stream for Events {
    type Item = Result<Batch>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let budget = ready!(poll_proceed(cx));
        while !self.ended {
            match self.world.poll(self.watch, self.progress_at, cx.waker()) {
                Polled::Item(item) => {
                    budget.made_progress();
                    self.progress_at = Instant::now() + self.world.profile.watch_progress_interval;
                    self.ended = item.is_err();
                    return Poll::Ready(Some(item));
                }
                Polled::Wait(None) => return Poll::Pending,
                Polled::Wait(Some(at)) if self.poll_alarm(cx, at).is_pending() => return Poll::Pending,
                Polled::Wait(Some(_)) => {}
            }
        }
        Poll::Ready(None)
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.world.unwatch(self.watch);
    }
}
