//! Callers that go on calling, in whose calls nothing may fail.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use futures_util::StreamExt;
use slipring::Client;
use tokio::task::JoinSet;

use crate::backends::eventually;

/// Callers of an endpoint that counts to what it is asked for. A call that fails, or whose numbers are not all
/// there, panics, which [`stop`](Self::stop) passes on.
pub(crate) struct Load {
    callers: JoinSet<()>,
    stop: Arc<AtomicBool>,
    calls: Arc<AtomicU64>,
}

impl Load {
    /// So many callers, each with one call at a time.
    pub(crate) fn start(client: &Client<u64, u64>, callers: u64) -> Self {
        let (stop, calls) = <(Arc<AtomicBool>, Arc<AtomicU64>)>::default();
        let mut tasks = JoinSet::new();
        for caller in 0..callers {
            tasks.spawn(keep_calling(client.clone(), caller, stop.clone(), calls.clone()));
        }
        Self { callers: tasks, stop, calls }
    }

    /// Waits until so many more calls were answered.
    pub(crate) async fn more_calls(&self, count: u64) {
        let enough = self.calls.load(Ordering::Relaxed) + count;
        eventually("calls are answered", async || self.calls.load(Ordering::Relaxed) >= enough).await;
    }

    /// Ends the callers after their last calls, and says how many calls there were.
    pub(crate) async fn stop(mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(caller) = self.callers.join_next().await {
            caller.unwrap();
        }
        self.calls.load(Ordering::Relaxed)
    }
}

async fn keep_calling(client: Client<u64, u64>, caller: u64, stop: Arc<AtomicBool>, calls: Arc<AtomicU64>) {
    for call in 0.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let to = (caller + call) % 4;
        let items = client.generate(&to).await.unwrap_or_else(|error| panic!("call {call}: {error}"));
        let items: Vec<_> = items.map(Result::unwrap).collect().await;
        assert_eq!(items, (1..=to).collect::<Vec<_>>());
        calls.fetch_add(1, Ordering::Relaxed);
    }
}
