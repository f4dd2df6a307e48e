use std::time::Duration;

use futures_util::StreamExt;
use slipring_core::{
    Commit, Discovery, DiscoveryCapabilities, Effect, Error, Lease, LeaseId, Range, Result, Snapshot, Start,
    Txn, Watch, async_trait,
};

use super::client::{Client, Line};
use super::{Item, Reply, Request};

/// A store at the far end of a connection. Its capabilities are known here.
#[derive(Debug)]
pub(crate) struct WireDiscovery {
    client: Client,
    capabilities: DiscoveryCapabilities,
}

impl WireDiscovery {
    pub(crate) fn new(client: Client, capabilities: DiscoveryCapabilities) -> Self {
        Self { client, capabilities }
    }

    /// A transaction that bears this number in the history.
    pub(crate) async fn commit_as(&self, number: u64, txn: Txn) -> Result<Commit> {
        match self.client.call(Request::Commit { number, txn }, Effect::Unknown).await? {
            Reply::Commit { commit } => Ok(commit),
            other => Err(unexpected(&other)),
        }
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Discovery for WireDiscovery {
    async fn capabilities(&self) -> Result<DiscoveryCapabilities> {
        self.client.call(Request::Flush, Effect::None).await?;
        Ok(self.capabilities)
    }

    async fn read(&self, range: Range) -> Result<Snapshot> {
        match self.client.call(Request::Read { range }, Effect::None).await? {
            Reply::Snapshot { snapshot } => Ok(snapshot),
            other => Err(unexpected(&other)),
        }
    }

    async fn commit(&self, txn: Txn) -> Result<Commit> {
        self.commit_as(NO_NUMBER, txn).await
    }

    async fn watch(&self, range: Range, start: Start) -> Result<Watch> {
        let (reply, items) = self.client.open(Request::Watch { range, start }, Line::watch()).await?;
        let Reply::Base { base } = reply else { return Err(unexpected(&reply)) };
        let events = items.map(|item| match item? {
            Item::Batch { batch } => Ok(batch),
            Item::Message { .. } => {
                Err(Error::unavailable("the broker", "a message in a watch", Effect::None))
            }
        });
        Ok(Watch { base, events: events.boxed() })
    }

    async fn grant(&self, ttl: Duration) -> Result<Lease> {
        match self.client.call(Request::Grant { ttl }, Effect::Unknown).await? {
            Reply::Lease { lease } => Ok(lease),
            other => Err(unexpected(&other)),
        }
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<Duration> {
        match self.client.call(Request::KeepAlive { lease }, Effect::Unknown).await? {
            Reply::Ttl { ttl } => Ok(ttl),
            other => Err(unexpected(&other)),
        }
    }

    async fn revoke(&self, lease: LeaseId) -> Result<()> {
        self.client.call(Request::Revoke { lease }, Effect::Unknown).await.map(drop)
    }
}

/// The number of a transaction that no history knows.
pub(super) const NO_NUMBER: u64 = 0;

/// The far side answered something else than was asked.
pub(super) fn unexpected(reply: &Reply) -> Error {
    Error::unavailable("the broker", format!("an unexpected answer: {reply:?}"), Effect::Unknown)
}
