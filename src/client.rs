//! Calling: which instance, how often, how long.

mod request;
mod responses;
pub mod retry;
mod route;
mod send;

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
pub(crate) use self::retry::SharedBudget;
pub use self::route::Routing;
use crate::DistributedRuntime;
use crate::component::Endpoint;
use crate::plane::Plane;
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
    shared: Arc<Shared>,
    types: PhantomData<fn(Req) -> Resp>,
}

/// What clones of a client share.
struct Shared {
    endpoint: Endpoint,
    watcher: Arc<Watcher>,
    routing: Routing,
    labels: BTreeMap<String, String>,
    planes: Vec<Plane>,
    turn: AtomicU64,
}

impl<Req, Resp> Client<Req, Resp> {
    pub(crate) async fn open(endpoint: &Endpoint) -> Result<Self> {
        let runtime = endpoint.runtime();
        runtime.check_open()?;
        let watcher = runtime.registry().watcher(endpoint.path());
        // Clients that start together do not all begin with the same instance.
        let turn = AtomicU64::new(runtime.platform().environment.random("round robin") >> 1);
        let shared = Shared {
            endpoint: endpoint.clone(),
            watcher,
            routing: Routing::default(),
            labels: BTreeMap::new(),
            planes: Plane::ALL.to_vec(),
            turn,
        };
        Ok(Self { shared: Arc::new(shared), types: PhantomData })
    }

    /// The same client, choosing instances in another way. Shares nothing but the watch.
    #[must_use]
    pub fn with_routing(&self, routing: Routing) -> Self {
        self.changed(|shared| shared.routing = routing)
    }

    /// The same client, limited to instances with this label.
    #[must_use]
    pub fn with_label(&self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.changed(|shared| {
            shared.labels.insert(name.into(), value.into());
        })
    }

    /// The same client, on these planes only: each call takes the first that leads to its instance. Default: all,
    /// the fastest first. An instance that none of them leads to is not called.
    #[must_use]
    pub fn with_planes(&self, planes: impl IntoIterator<Item = Plane>) -> Self {
        self.changed(|shared| shared.planes = planes.into_iter().collect())
    }

    fn changed(&self, change: impl FnOnce(&mut Shared)) -> Self {
        let Shared { endpoint, watcher, routing, labels, planes, turn } = &*self.shared;
        let mut shared = Shared {
            endpoint: endpoint.clone(),
            watcher: watcher.clone(),
            routing: *routing,
            labels: labels.clone(),
            planes: planes.clone(),
            turn: AtomicU64::new(turn.load(Ordering::Relaxed)),
        };
        change(&mut shared);
        Self { shared: Arc::new(shared), types: PhantomData }
    }

    fn runtime(&self) -> &DistributedRuntime {
        self.shared.endpoint.runtime()
    }

    /// The endpoint that it calls.
    pub fn endpoint(&self) -> &Endpoint {
        &self.shared.endpoint
    }

    /// The endpoint's instances, to look at and to follow.
    pub fn instances(&self) -> Instances {
        Instances::new(self.shared.watcher.clone())
    }

    /// Waits until at least `count` instances are ready.
    ///
    /// # Errors
    /// `DeadlineExceeded` after `timeout`.
    pub async fn wait_for_instances(&self, count: usize, timeout: Duration) -> Result<()> {
        let mut version = self.shared.watcher.view().observe();
        let enough = async {
            while self.shared.watcher.view().lock().ready.len() < count {
                // It lives in the view, which the client keeps.
                let _ = version.changed().await;
            }
        };
        tokio::time::timeout(timeout, enough).await.map_err(|_| {
            let have = self.shared.watcher.view().lock().ready.len();
            let what = format!(
                "waiting for {count} instances of {} ({have} are ready)",
                self.shared.endpoint.path()
            );
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
        Self { shared: self.shared.clone(), types: PhantomData }
    }
}

impl<Req, Resp> fmt::Debug for Client<Req, Resp> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("endpoint", &self.shared.endpoint)
            .field("routing", &self.shared.routing)
            .field("labels", &self.shared.labels)
            .finish_non_exhaustive()
    }
}
