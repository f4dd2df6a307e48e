//! Calling: which instance, how often, how long.

mod request;
mod responses;
pub mod retry;
mod route;

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use slipring_core::{Effect, Error, Result};

pub use self::request::Request;
pub use self::responses::Responses;
pub(crate) use self::retry::RetryBudget;
pub use self::route::Routing;
use crate::DistributedRuntime;
use crate::component::Endpoint;
use crate::registry::{Instances, Watcher};

/// Calls an endpoint. Cheap to clone; all clients of an endpoint in a runtime share one watch of its
/// instances.
///
/// # Contract
/// Every call ends by its deadline (10 s unless something else is said) with a typed outcome. A call that
/// finds no instance waits for one until then. What can be tried elsewhere without harm is: a call that was
/// refused or reached nobody (effect none), never one that may have been executed (unless it is declared
/// [idempotent](Request::idempotent)), never after the first item. Dropping a call, or a stream of responses,
/// cancels the work at the far end.
pub struct Client<Req, Resp> {
    runtime: DistributedRuntime,
    endpoint: Endpoint,
    watcher: Arc<Watcher>,
    routing: Routing,
    labels: Arc<BTreeMap<String, String>>,
    turn: Arc<AtomicU64>,
    types: PhantomData<fn(Req) -> Resp>,
}

impl<Req, Resp> Client<Req, Resp> {
    pub(crate) async fn open(endpoint: &Endpoint) -> Result<Self> {
        let runtime = endpoint.runtime().clone();
        runtime.check_open()?;
        let watcher = runtime.registry().watcher(endpoint.path());
        let client = Self {
            endpoint: endpoint.clone(),
            watcher,
            routing: Routing::default(),
            labels: Arc::default(),
            // Clients that start together do not all begin with the same instance.
            turn: Arc::new(AtomicU64::new(runtime.platform().environment.random("round robin") >> 1)),
            types: PhantomData,
            runtime,
        };
        Ok(client)
    }

    /// The same client, choosing instances in another way. Shares nothing but the watch.
    #[must_use]
    pub fn with_routing(&self, routing: Routing) -> Self {
        Self { routing, turn: Arc::new(AtomicU64::new(self.turn.load(Ordering::Relaxed))), ..self.clone() }
    }

    /// The same client, limited to instances with this label.
    #[must_use]
    pub fn with_label(&self, name: impl Into<String>, value: impl Into<String>) -> Self {
        let mut labels = BTreeMap::clone(&self.labels);
        labels.insert(name.into(), value.into());
        Self { labels: Arc::new(labels), ..self.clone() }
    }

    /// The endpoint that it calls.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The endpoint's instances, to look at and to follow.
    pub fn instances(&self) -> Instances {
        Instances::new(self.watcher.clone())
    }

    /// Waits until at least `count` instances are ready.
    ///
    /// # Errors
    /// `DeadlineExceeded` after `timeout`.
    pub async fn wait_for_instances(&self, count: usize, timeout: Duration) -> Result<()> {
        let mut version = self.watcher.view().observe();
        let enough = async {
            while self.watcher.view().lock().ready.len() < count {
                // It lives in the view, which the client keeps.
                let _ = version.changed().await;
            }
        };
        tokio::time::timeout(timeout, enough).await.map_err(|_| {
            let have = self.watcher.view().lock().ready.len();
            let what =
                format!("waiting for {count} instances of {} ({have} are ready)", self.endpoint.path());
            Error::deadline_exceeded(what, timeout, Effect::None)
        })
    }

    /// Calls with defaults and returns the stream of responses, once the first one is there (or the end).
    ///
    /// # Errors
    /// See [`Request::generate`].
    pub async fn generate(&self, request: &Req) -> Result<Responses<Resp>>
    where
        Req: Serialize + Sync,
        Resp: DeserializeOwned,
    {
        self.request(request).generate().await
    }

    /// Calls with defaults and returns the one response.
    ///
    /// # Errors
    /// See [`Request::call`].
    pub async fn call(&self, request: &Req) -> Result<Resp>
    where
        Req: Serialize + Sync,
        Resp: DeserializeOwned,
    {
        self.request(request).call().await
    }

    /// A call to be described further: its deadline, its instance, its metadata.
    pub fn request<'a>(&'a self, request: &'a Req) -> Request<'a, Req, Resp> {
        Request::new(self, request)
    }
}

impl<Req, Resp> Clone for Client<Req, Resp> {
    fn clone(&self) -> Self {
        Self {
            runtime: self.runtime.clone(),
            endpoint: self.endpoint.clone(),
            watcher: self.watcher.clone(),
            routing: self.routing,
            labels: self.labels.clone(),
            turn: self.turn.clone(),
            types: PhantomData,
        }
    }
}

impl<Req, Resp> fmt::Debug for Client<Req, Resp> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("endpoint", &self.endpoint)
            .field("routing", &self.routing)
            .field("labels", &self.labels)
            .finish_non_exhaustive()
    }
}
