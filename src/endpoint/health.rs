use std::fmt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use slipring_core::BoxFuture;

use super::Fault;

/// A question that a served endpoint asks itself again and again: is it well?
///
/// Until the first `Ok`, and after every `Err`, the endpoint's record says that it is not ready; routing
/// prefers instances that are.
#[derive(Clone)]
pub struct HealthCheck {
    check: Arc<dyn Fn() -> BoxFuture<'static, Result<(), Fault>> + Send + Sync>,
    pub(crate) interval: Duration,
    pub(crate) timeout: Duration,
}

impl HealthCheck {
    /// Asks every 5 s; a panic, or an answer that takes longer than 2 s, counts as a failure.
    pub fn new<F, Fut>(check: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), Fault>> + Send + 'static,
    {
        Self {
            check: Arc::new(move || Box::pin(check())),
            interval: Duration::from_secs(5),
            timeout: Duration::from_secs(2),
        }
    }

    /// With this time between two questions.
    #[must_use]
    pub fn with_interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    /// With this time for an answer.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// One question; what is wrong, if something is. A check that panics found something wrong.
    pub(crate) async fn ask(&self) -> Result<(), Fault> {
        let answer = AssertUnwindSafe(async { (self.check)().await }).catch_unwind();
        match tokio::time::timeout(self.timeout, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(Fault::new("panic", "the check panicked")),
            Err(_) => Err(Fault::new("timeout", format!("no answer within {:?}", self.timeout))),
        }
    }
}

impl fmt::Debug for HealthCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HealthCheck").field("interval", &self.interval).finish_non_exhaustive()
    }
}
