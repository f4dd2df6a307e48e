use std::collections::BTreeMap;
use std::fmt;
use std::future::IntoFuture;
use std::sync::Arc;

use slipring_core::service::StatsHandler;
use slipring_core::{BoxFuture, Result};

use super::{Handler, HealthCheck, Serving};
use crate::codec::Codec;
use crate::component::Endpoint;
use crate::lifecycle::Lifecycle;
use crate::observed::{Observed, Observer};
use crate::plane::Plane;
use crate::plane::worker::Limits;

/// How many requests an endpoint works on at a time, if nothing else is said.
const CONCURRENCY: usize = 1024;
/// How many may wait.
const QUEUE: usize = 1024;

/// An endpoint about to be served: set what differs from the defaults, then await it.
///
/// When the future resolves the endpoint is subscribed and registered: "ready" means both. Dropping the
/// future half-way withdraws everything.
///
/// # Where handlers run
/// In a task for each request. But while the requests of the endpoint are done within 20 us on average without a
/// pause, each begins in the task that receives them, and gets one of its own when it has to wait. A call from
/// within the process is received by whoever calls, which need not be a task at all.
///
/// # Errors
/// [`AlreadyExists`](crate::Error::AlreadyExists) if this runtime serves the endpoint already;
/// [`Draining`](crate::Error::Draining) if it is stopping; `DeadlineExceeded` if it is not subscribed, or
/// then its record not in the store, within `register_timeout`; those of subscribing.
#[must_use = "nothing is served until this is awaited"]
pub struct Serve {
    pub(crate) endpoint: Endpoint,
    pub(crate) handler: Arc<dyn Handler>,
    pub(crate) options: Options,
    pub(crate) lifecycle: Observed<Lifecycle>,
}

/// What differs from endpoint to endpoint.
#[derive(Clone)]
pub(crate) struct Options {
    pub(crate) codec: Codec,
    pub(crate) limits: Limits,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) health: Option<HealthCheck>,
    pub(crate) stats: Option<StatsHandler>,
    pub(crate) planes: Vec<Plane>,
}

impl Serve {
    pub(crate) fn new(endpoint: Endpoint, handler: impl Handler) -> Self {
        let options = Options {
            codec: Codec::Json,
            limits: Limits { concurrency: CONCURRENCY, queue: QUEUE },
            labels: BTreeMap::new(),
            health: None,
            stats: None,
            planes: Plane::ALL.to_vec(),
        };
        Self { endpoint, handler: Arc::new(handler), options, lifecycle: Observed::new(Lifecycle::Created) }
    }

    /// Where the endpoint is in its life, from before it is served. Ends when serving it fails.
    pub fn lifecycle(&self) -> Observer<Lifecycle> {
        self.lifecycle.observe()
    }

    /// How requests and items are written; named in the record. Default JSON.
    pub fn codec(mut self, codec: Codec) -> Self {
        self.options.codec = codec;
        self
    }

    /// How many requests are worked on at a time, at least 1. Default 1,024.
    pub fn concurrency(mut self, requests: usize) -> Self {
        self.options.limits.concurrency = requests.clamp(1, tokio::sync::Semaphore::MAX_PERMITS);
        self
    }

    /// How many more may wait; beyond that the answer is `overloaded`. Default 1,024.
    pub fn queue(mut self, requests: usize) -> Self {
        self.options.limits.queue = requests;
        self
    }

    /// A label for selectors: `zone`, `version`, `weight`, or any other.
    pub fn label(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.options.labels.insert(name.into(), value.into());
        self
    }

    /// The planes that its record lists, of those that the runtime takes part in. The broker is always among them.
    /// Default: all.
    pub fn planes(mut self, planes: impl IntoIterator<Item = Plane>) -> Self {
        self.options.planes = planes.into_iter().collect();
        self
    }

    /// Asks the endpoint now and then whether it is well.
    pub fn health(mut self, check: HealthCheck) -> Self {
        self.options.health = Some(check);
        self
    }

    /// Adds statistics of its own to the service's report.
    pub fn stats(mut self, stats: impl Fn() -> serde_json::Value + Send + Sync + 'static) -> Self {
        self.options.stats = Some(Arc::new(stats));
        self
    }
}

impl IntoFuture for Serve {
    type Output = Result<Serving>;
    type IntoFuture = BoxFuture<'static, Result<Serving>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(Serving::start(self))
    }
}

impl fmt::Debug for Serve {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Serve").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}
