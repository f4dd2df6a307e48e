//! Backends that lose messages, or say what was asked of them.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use slipring_core::{
    Commit, Discovery, DiscoveryCapabilities, Lease, LeaseId, Message, Messaging, MessagingCapabilities,
    Range, Result, Snapshot, Start, Subscriber, Subscription, Txn, Watch, async_trait,
};

/// A handle of a broker that loses some of what is published through it.
#[derive(Clone)]
pub(crate) struct Lossy {
    inner: Arc<dyn Messaging>,
    loses: Arc<dyn Fn(&Message) -> bool + Send + Sync>,
}

impl Lossy {
    /// Loses the messages for which `loses` is true; their publisher is none the wiser.
    pub(crate) fn new(
        inner: impl Messaging,
        loses: impl Fn(&Message) -> bool + Send + Sync + 'static,
    ) -> Self {
        Self { inner: Arc::new(inner), loses: Arc::new(loses) }
    }
}

impl fmt::Debug for Lossy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lossy").field("inner", &self.inner).finish_non_exhaustive()
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Messaging for Lossy {
    async fn capabilities(&self) -> Result<MessagingCapabilities> {
        self.inner.capabilities().await
    }

    async fn publish(&self, message: Message) -> Result<()> {
        if (self.loses)(&message) {
            return Ok(());
        }
        self.inner.publish(message).await
    }

    async fn subscribe(&self, subscription: Subscription) -> Result<Subscriber> {
        self.inner.subscribe(subscription).await
    }

    async fn request(&self, message: Message, timeout: Duration) -> Result<Message> {
        self.inner.request(message, timeout).await
    }

    async fn flush(&self) -> Result<()> {
        self.inner.flush().await
    }

    async fn close(&self, grace: Duration) -> Result<()> {
        self.inner.close(grace).await
    }
}

/// A store that writes down what was read and watched.
#[derive(Debug, Clone)]
pub(crate) struct Logged {
    inner: Arc<dyn Discovery>,
    asked: Arc<Mutex<Asked>>,
}

/// What was asked of a [`Logged`] store.
#[derive(Debug, Clone, Default)]
pub(crate) struct Asked {
    pub(crate) reads: Vec<Range>,
    pub(crate) watches: Vec<Range>,
}

impl Logged {
    pub(crate) fn new(inner: impl Discovery) -> Self {
        Self { inner: Arc::new(inner), asked: Arc::default() }
    }

    /// What was asked since the last time.
    pub(crate) fn take(&self) -> Asked {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Discovery for Logged {
    async fn capabilities(&self) -> Result<DiscoveryCapabilities> {
        self.inner.capabilities().await
    }

    async fn read(&self, range: Range) -> Result<Snapshot> {
        self.asked.lock().unwrap().reads.push(range.clone());
        self.inner.read(range).await
    }

    async fn commit(&self, txn: Txn) -> Result<Commit> {
        self.inner.commit(txn).await
    }

    async fn watch(&self, range: Range, start: Start) -> Result<Watch> {
        self.asked.lock().unwrap().watches.push(range.clone());
        self.inner.watch(range, start).await
    }

    async fn grant(&self, ttl: Duration) -> Result<Lease> {
        self.inner.grant(ttl).await
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<Duration> {
        self.inner.keep_alive(lease).await
    }

    async fn revoke(&self, lease: LeaseId) -> Result<()> {
        self.inner.revoke(lease).await
    }
}
