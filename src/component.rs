use std::fmt;
use std::future::Future;

use bytes::Bytes;
use futures_util::Stream;
use serde::Serialize;
use serde::de::DeserializeOwned;
use slipring_core::Result;

use crate::DistributedRuntime;
use crate::client::Client;
use crate::endpoint::{Context, Fault, Raw, Serve, Streaming, Unary};
use crate::event::Events;
use crate::name::{ComponentPath, EndpointPath, NamespacePath};

/// A namespace of a runtime: isolates components, and may hold further namespaces.
#[derive(Clone)]
pub struct Namespace {
    runtime: DistributedRuntime,
    path: NamespacePath,
}

impl Namespace {
    pub(crate) fn new(runtime: DistributedRuntime, path: NamespacePath) -> Self {
        Self { runtime, path }
    }

    /// Where it stands.
    pub fn path(&self) -> &NamespacePath {
        &self.path
    }

    /// A namespace inside this one: `parent.child`.
    ///
    /// # Errors
    /// [`Invalid`](crate::Error::Invalid) with the position of what is wrong.
    pub fn namespace(&self, name: &str) -> Result<Self> {
        let child = self.path.name().child(name)?;
        Ok(Self::new(self.runtime.clone(), self.path.deployment().namespace(child)))
    }

    /// A component of this namespace.
    ///
    /// # Errors
    /// [`Invalid`](crate::Error::Invalid) with the position of what is wrong.
    pub fn component(&self, name: &str) -> Result<Component> {
        Ok(Component { runtime: self.runtime.clone(), path: self.path.component(name.parse()?)? })
    }

    /// The events of this name in this namespace.
    ///
    /// # Errors
    /// [`Invalid`](crate::Error::Invalid) with the position of what is wrong.
    pub fn events<T>(&self, name: &str) -> Result<Events<T>> {
        Ok(Events::new(&self.runtime, self.path.event(name.parse()?)?))
    }
}

/// A component: what is deployed as one.
#[derive(Clone)]
pub struct Component {
    runtime: DistributedRuntime,
    path: ComponentPath,
}

impl Component {
    /// Where it stands, with all its names: [`path`](ComponentPath::path),
    /// [`etcd_path`](ComponentPath::etcd_path), [`service_name`](ComponentPath::service_name).
    pub fn path(&self) -> &ComponentPath {
        &self.path
    }

    /// Where its records are, such as `dynamo/components/processor`.
    pub fn etcd_path(&self) -> String {
        self.path.etcd_path()
    }

    /// Its name in subjects, such as `dynamo|processor`.
    pub fn service_name(&self) -> String {
        self.path.service_name()
    }

    /// An endpoint of this component.
    ///
    /// # Errors
    /// [`Invalid`](crate::Error::Invalid) with the position of what is wrong.
    pub fn endpoint(&self, name: &str) -> Result<Endpoint> {
        Ok(Endpoint::new(self.runtime.clone(), self.path.endpoint(name.parse()?)?))
    }

    /// The events of this name of this component.
    ///
    /// # Errors
    /// [`Invalid`](crate::Error::Invalid) with the position of what is wrong.
    pub fn events<T>(&self, name: &str) -> Result<Events<T>> {
        Ok(Events::new(&self.runtime, self.path.event(name.parse()?)?))
    }
}

/// An endpoint: what can be called.
#[derive(Clone)]
pub struct Endpoint {
    runtime: DistributedRuntime,
    path: EndpointPath,
}

impl Endpoint {
    pub(crate) fn new(runtime: DistributedRuntime, path: EndpointPath) -> Self {
        Self { runtime, path }
    }

    /// Where it stands, with all its names.
    pub fn path(&self) -> &EndpointPath {
        &self.path
    }

    pub(crate) fn runtime(&self) -> &DistributedRuntime {
        &self.runtime
    }

    /// Serves it with a function from a request to a stream of items. Set options on what is returned, then
    /// await it.
    pub fn serve<F, Fut, Req, Items, Item>(&self, handler: F) -> Serve
    where
        F: Fn(Req, Context) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Items, Fault>> + Send + 'static,
        Items: Stream<Item = Result<Item, Fault>> + Send + 'static,
        Req: DeserializeOwned + 'static,
        Item: Serialize + 'static,
    {
        Serve::new(self.clone(), Streaming::new(handler))
    }

    /// Serves it with a function from a request to one response.
    pub fn serve_unary<F, Fut, Req, Resp>(&self, handler: F) -> Serve
    where
        F: Fn(Req, Context) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Resp, Fault>> + Send + 'static,
        Req: DeserializeOwned + 'static,
        Resp: Serialize + 'static,
    {
        Serve::new(self.clone(), Unary::new(handler))
    }

    /// Serves it with a function from bytes to a stream of bytes; the codec is the caller's business.
    pub fn serve_bytes<F, Fut, Items>(&self, handler: F) -> Serve
    where
        F: Fn(Bytes, Context) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Items, Fault>> + Send + 'static,
        Items: Stream<Item = Result<Bytes, Fault>> + Send + 'static,
    {
        Serve::new(self.clone(), Raw(handler))
    }

    /// A client of this endpoint. All clients of an endpoint in a runtime share one watch.
    ///
    /// # Errors
    /// [`Draining`](crate::Error::Draining) if the runtime has stopped. That nothing is served, or that the
    /// backend cannot be reached now, is no error: calls wait until their deadline.
    pub async fn client<Req, Resp>(&self) -> Result<Client<Req, Resp>> {
        Client::open(self).await
    }
}

impl fmt::Debug for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Namespace({})", self.path.name())
    }
}

impl fmt::Debug for Component {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Component({})", self.path.path())
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Endpoint({})", self.path)
    }
}
