//! A store with a planted difference: the test of the test.

use std::time::Duration;

use bytes::Bytes;
use slipring_core::{
    Commit, Discovery, DiscoveryCapabilities, Entry, Lease, LeaseId, Op, Range, Result, Snapshot, Start, Txn,
    Watch, async_trait,
};

/// What a [`Planted`] store does wrong.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Flaw {
    /// A put without a lease leaves the key on the lease that it had.
    NeverDetaches,
    /// A put of the value that is there already is no write.
    EqualPutIsNone,
    /// The events of a revision come in the order of their keys.
    SortsEvents,
    /// A prefix watch that starts after a revision begins with the one after it.
    SkipsOne,
}

/// A store with one flaw.
#[derive(Debug)]
pub(crate) struct Planted<D> {
    pub store: D,
    pub flaw: Flaw,
}

impl<D: Discovery> Planted<D> {
    async fn entry(&self, op: &Op) -> Result<Option<Entry>> {
        Ok(self.store.read(Range::Key(op.key().clone())).await?.entries.pop())
    }

    async fn flawed(&self, mut txn: Txn) -> Result<Txn> {
        let mut kept: Vec<Op> = Vec::new();
        for op in txn.ops {
            let before = self.entry(&op).await?;
            kept.extend(match (self.flaw, op, before) {
                (Flaw::NeverDetaches, Op::Put { key, value, lease: None }, Some(before)) => {
                    Some(Op::Put { key, value, lease: before.lease })
                }
                (Flaw::EqualPutIsNone, op, Some(before)) if is_equal(&op, &before.value) => None,
                (_, op, _) => Some(op),
            });
        }
        txn.ops = kept;
        Ok(txn)
    }
}

fn is_equal(op: &Op, have: &Bytes) -> bool {
    matches!(op, Op::Put { value, .. } if value == have)
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<D: Discovery> Discovery for Planted<D> {
    async fn capabilities(&self) -> Result<DiscoveryCapabilities> {
        self.store.capabilities().await
    }

    async fn read(&self, range: Range) -> Result<Snapshot> {
        self.store.read(range).await
    }

    async fn commit(&self, txn: Txn) -> Result<Commit> {
        self.store.commit(self.flawed(txn).await?).await
    }

    async fn watch(&self, range: Range, start: Start) -> Result<Watch> {
        use futures_util::StreamExt;
        let resumed = matches!((&range, start), (Range::Prefix(_), Start::After(_)));
        let mut watch = self.store.watch(range, start).await?;
        match self.flaw {
            Flaw::SkipsOne if resumed => watch.events = watch.events.skip(1).boxed(),
            Flaw::SortsEvents => {
                watch.events = watch
                    .events
                    .map(|batch| {
                        batch.map(|mut batch| {
                            batch.changes.sort_by(|one, other| one.key().cmp(other.key()));
                            batch
                        })
                    })
                    .boxed();
            }
            _ => {}
        }
        Ok(watch)
    }

    async fn grant(&self, ttl: Duration) -> Result<Lease> {
        self.store.grant(ttl).await
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<Duration> {
        self.store.keep_alive(lease).await
    }

    async fn revoke(&self, lease: LeaseId) -> Result<()> {
        self.store.revoke(lease).await
    }
}
