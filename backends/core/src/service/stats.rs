use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// The counters of one endpoint.
#[derive(Debug, Default)]
pub struct EndpointStats {
    requests: AtomicU64,
    errors: AtomicU64,
    in_flight: AtomicU64,
    processing_ns: AtomicU64,
    last_error: Mutex<String>,
    idle: Notify,
}

impl EndpointStats {
    /// Counts a request in; the returned guard counts it out, also when its holder panics or is dropped.
    pub fn begin(self: &Arc<Self>) -> InFlight {
        self.begin_at(Instant::now())
    }

    /// The same, where the time is known.
    pub fn begin_at(self: &Arc<Self>, began: Instant) -> InFlight {
        self.in_flight.fetch_add(1, Ordering::AcqRel);
        InFlight { stats: self.clone(), began }
    }

    /// Requests that ended, well or not.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Acquire)
    }

    /// Requests that ended in an error.
    pub fn errors(&self) -> u64 {
        self.errors.load(Ordering::Acquire)
    }

    /// Requests that are being worked on.
    pub fn in_flight(&self) -> u64 {
        self.in_flight.load(Ordering::Acquire)
    }

    /// Time spent on the requests that ended, in sum.
    pub fn processing(&self) -> Duration {
        Duration::from_nanos(self.processing_ns.load(Ordering::Acquire))
    }

    /// The text of the last error; empty if there was none.
    pub fn last_error(&self) -> String {
        self.last_error.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }

    /// Waits until nothing is in flight. Cancel-safe.
    pub async fn idle(&self) {
        loop {
            let changed = self.idle.notified();
            tokio::pin!(changed);
            // Registered before the check, so that no end is missed.
            changed.as_mut().enable();
            if self.in_flight() == 0 {
                return;
            }
            changed.await;
        }
    }
}

/// A request that is being worked on; dropping it counts it as ended.
#[derive(Debug)]
pub struct InFlight {
    stats: Arc<EndpointStats>,
    began: Instant,
}

impl InFlight {
    /// Counts the request as an error, with a text for the report.
    pub fn failed(&self, error: impl Into<String>) {
        self.stats.errors.fetch_add(1, Ordering::AcqRel);
        *self.stats.last_error.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = error.into();
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let spent = u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.stats.processing_ns.fetch_add(spent, Ordering::AcqRel);
        self.stats.requests.fetch_add(1, Ordering::AcqRel);
        if self.stats.in_flight.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.stats.idle.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// D17: a request counts as ended however its holder ends, and with the time it took.
    #[tokio::test(start_paused = true)]
    async fn d17_a_dropped_guard_counts_the_request_out() {
        let stats = Arc::new(EndpointStats::default());
        let (one, two) = (stats.begin(), stats.begin());
        tokio::time::advance(Duration::from_secs(1)).await;
        let panicking = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
            let _held = one;
            panic!("in a handler");
        }));
        assert!(panicking.is_err());
        assert_eq!((stats.requests(), stats.errors(), stats.in_flight()), (1, 0, 1));
        two.failed("broken");
        drop(two);
        assert_eq!((stats.requests(), stats.errors(), stats.in_flight()), (2, 1, 0));
        assert_eq!((stats.processing(), stats.last_error()), (Duration::from_secs(2), "broken".to_owned()));
    }

    /// Whoever waits for the end of the last request is told of it, also if it was waiting before.
    #[tokio::test(start_paused = true)]
    async fn idle_waits_for_the_last_request() {
        let stats = Arc::new(EndpointStats::default());
        stats.idle().await;
        let (one, two) = (stats.begin(), stats.begin());
        let idle = stats.idle();
        tokio::pin!(idle);
        drop(one);
        assert!(futures_util::poll!(&mut idle).is_pending());
        drop(two);
        assert!(futures_util::poll!(&mut idle).is_ready());
    }
}
