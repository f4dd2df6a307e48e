//! What an adapter adds to a network that may fall silent: a bound on each call, and on a watch.

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream;
use slipring_core::{
    Commit, Discovery, DiscoveryCapabilities, Effect, Error, Lease, LeaseId, Message, Messaging,
    MessagingCapabilities, Range, Result, Snapshot, Start, Subscriber, Subscription, Txn, Watch, async_trait,
};
use tokio::time::timeout;

const CALL_MAX: Duration = Duration::from_secs(3);

async fn bounded<T>(what: &str, effect: Effect, call: impl Future<Output = Result<T>>) -> Result<T> {
    let late = |_| Err(Error::deadline_exceeded(what, CALL_MAX, effect));
    timeout(CALL_MAX, call).await.unwrap_or_else(late)
}

/// A store whose calls end, and whose watches are not silent for longer than declared.
#[derive(Debug)]
pub(crate) struct BoundedDiscovery(pub(crate) Arc<dyn Discovery>);

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Discovery for BoundedDiscovery {
    async fn capabilities(&self) -> Result<DiscoveryCapabilities> {
        bounded("capabilities", Effect::None, self.0.capabilities()).await
    }

    async fn read(&self, range: Range) -> Result<Snapshot> {
        bounded("a read", Effect::None, self.0.read(range)).await
    }

    async fn commit(&self, txn: Txn) -> Result<Commit> {
        bounded("a transaction", Effect::Unknown, self.0.commit(txn)).await
    }

    async fn watch(&self, range: Range, start: Start) -> Result<Watch> {
        let silence_max = self.capabilities().await?.watch_silence_max;
        let Watch { base, events } = bounded("a watch", Effect::None, self.0.watch(range, start)).await?;
        let events = stream::unfold(Some(events), move |events| async move {
            use futures_util::StreamExt;
            let mut events = events?;
            match timeout(silence_max, events.next()).await {
                Ok(item) => Some((item?, Some(events))),
                Err(_) => Some((Err(Error::unavailable("the store", "silence", Effect::None)), None)),
            }
        });
        Ok(Watch { base, events: Box::pin(events) })
    }

    async fn grant(&self, ttl: Duration) -> Result<Lease> {
        bounded("a grant", Effect::Unknown, self.0.grant(ttl)).await
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<Duration> {
        bounded("a heartbeat", Effect::Unknown, self.0.keep_alive(lease)).await
    }

    async fn revoke(&self, lease: LeaseId) -> Result<()> {
        bounded("a revocation", Effect::Unknown, self.0.revoke(lease)).await
    }
}

/// A broker whose calls end.
#[derive(Debug)]
pub(crate) struct BoundedMessaging(pub(crate) Arc<dyn Messaging>);

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Messaging for BoundedMessaging {
    async fn capabilities(&self) -> Result<MessagingCapabilities> {
        bounded("capabilities", Effect::None, self.0.capabilities()).await
    }

    async fn publish(&self, message: Message) -> Result<()> {
        bounded("a publish", Effect::Unknown, self.0.publish(message)).await
    }

    async fn subscribe(&self, subscription: Subscription) -> Result<Subscriber> {
        bounded("a subscription", Effect::None, self.0.subscribe(subscription)).await
    }

    async fn request(&self, message: Message, timeout: Duration) -> Result<Message> {
        // A link bounds it itself.
        self.0.request(message, timeout).await
    }

    async fn flush(&self) -> Result<()> {
        bounded("a flush", Effect::Unknown, self.0.flush()).await
    }

    async fn close(&self, grace: Duration) -> Result<()> {
        // A link bounds it itself.
        self.0.close(grace).await
    }
}
