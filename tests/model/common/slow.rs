//! A store and a bus that take their time.

use std::sync::Arc;
use std::time::Duration;

use slipring::{DistributedRuntime, MemoryWorld};
use slipring_core::{
    Commit, Discovery, DiscoveryCapabilities, Lease, LeaseId, Message, Messaging, MessagingCapabilities,
    Range, Result, Snapshot, Start, Subscriber, Subscription, Txn, Watch, async_trait,
};
use tokio::time::sleep;

/// Each call takes as long on its way there as on its way back, so that it may be dropped before it is
/// executed and after.
#[derive(Debug)]
pub(crate) struct Slow<T: ?Sized> {
    way: Duration,
    inner: Arc<T>,
}

/// A runtime whose every call to store and bus takes twice as long as `way`.
pub(crate) async fn runtime(world: &MemoryWorld, way: Duration) -> DistributedRuntime {
    let discovery = Slow { way, inner: Arc::new(world.discovery()) };
    let messaging = Slow { way, inner: Arc::new(world.messaging()) };
    DistributedRuntime::builder().discovery(discovery).messaging(messaging).build().await.unwrap()
}

impl<T: ?Sized> Slow<T> {
    async fn carry<R>(&self, call: impl Future<Output = R>) -> R {
        sleep(self.way).await;
        let answer = call.await;
        sleep(self.way).await;
        answer
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<D: Discovery> Discovery for Slow<D> {
    async fn capabilities(&self) -> Result<DiscoveryCapabilities> {
        self.carry(self.inner.capabilities()).await
    }

    async fn read(&self, range: Range) -> Result<Snapshot> {
        self.carry(self.inner.read(range)).await
    }

    async fn commit(&self, txn: Txn) -> Result<Commit> {
        self.carry(self.inner.commit(txn)).await
    }

    async fn watch(&self, range: Range, start: Start) -> Result<Watch> {
        self.carry(self.inner.watch(range, start)).await
    }

    async fn grant(&self, ttl: Duration) -> Result<Lease> {
        self.carry(self.inner.grant(ttl)).await
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<Duration> {
        self.carry(self.inner.keep_alive(lease)).await
    }

    async fn revoke(&self, lease: LeaseId) -> Result<()> {
        self.carry(self.inner.revoke(lease)).await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<M: Messaging> Messaging for Slow<M> {
    async fn capabilities(&self) -> Result<MessagingCapabilities> {
        self.carry(self.inner.capabilities()).await
    }

    async fn publish(&self, message: Message) -> Result<()> {
        self.carry(self.inner.publish(message)).await
    }

    async fn subscribe(&self, subscription: Subscription) -> Result<Subscriber> {
        self.carry(self.inner.subscribe(subscription)).await
    }

    async fn request(&self, message: Message, timeout: Duration) -> Result<Message> {
        self.carry(self.inner.request(message, timeout)).await
    }

    async fn flush(&self) -> Result<()> {
        self.carry(self.inner.flush()).await
    }

    async fn close(&self, grace: Duration) -> Result<()> {
        self.carry(self.inner.close(grace)).await
    }
}
