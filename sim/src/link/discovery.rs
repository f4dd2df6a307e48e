use std::sync::Arc;
use std::time::Duration;

use futures_util::stream;
use slipring_core::{
    Batch, BoxStream, Commit, Discovery, DiscoveryCapabilities, Effect, Lease, LeaseId, Range, Result,
    Snapshot, Start, Txn, Watch, async_trait,
};

use super::{Connection, Link};

/// A store behind a link.
#[derive(Debug)]
pub(super) struct LinkedDiscovery {
    link: Link,
    inner: Arc<dyn Discovery>,
}

impl LinkedDiscovery {
    pub(super) fn new(link: Link, inner: Arc<dyn Discovery>) -> Self {
        Self { link, inner }
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Discovery for LinkedDiscovery {
    async fn capabilities(&self) -> Result<DiscoveryCapabilities> {
        self.link.connect()?.carry(Effect::None, self.inner.capabilities()).await
    }

    async fn read(&self, range: Range) -> Result<Snapshot> {
        self.link.connect()?.carry(Effect::None, self.inner.read(range)).await
    }

    async fn commit(&self, txn: Txn) -> Result<Commit> {
        self.link.connect()?.carry_write(self.inner.commit(txn)).await
    }

    async fn watch(&self, range: Range, start: Start) -> Result<Watch> {
        let connection = self.link.connect()?;
        let watch = connection.carry(Effect::None, self.inner.watch(range, start)).await?;
        Ok(Watch { base: watch.base, events: through(connection, watch.events) })
    }

    async fn grant(&self, ttl: Duration) -> Result<Lease> {
        self.link.connect()?.carry_write(self.inner.grant(ttl)).await
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<Duration> {
        self.link.connect()?.carry(Effect::Unknown, self.inner.keep_alive(lease)).await
    }

    async fn revoke(&self, lease: LeaseId) -> Result<()> {
        self.link.connect()?.carry_write(self.inner.revoke(lease)).await
    }
}

/// The events that this connection lets through; its end is their last item.
fn through(
    connection: Connection,
    events: BoxStream<'static, Result<Batch>>,
) -> BoxStream<'static, Result<Batch>> {
    Box::pin(stream::unfold(Some((connection, events)), |alive| async {
        let (connection, mut events) = alive?;
        match connection.next(&mut events).await {
            Ok(event) => Some((event?, Some((connection, events)))),
            Err(severed) => Some((Err(severed.with_effect(Effect::None)), None)),
        }
    }))
}
