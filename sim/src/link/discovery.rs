use std::sync::Arc;
use std::time::Duration;

use futures_util::stream;
use slipring_core::{
    Batch, BoxStream, Commit, Discovery, DiscoveryCapabilities, Effect, Error, Lease, LeaseId, Range, Result,
    Snapshot, Start, Txn, Watch, async_trait,
};

use super::connection::Connection;
use super::flight::Flight;
use super::{Link, Side};
use crate::history::{Call, Event};

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

    /// A call that has an effect.
    async fn write<T: Send + 'static>(
        &self,
        call: Call,
        of: impl FnOnce(Option<&T>) -> Option<LeaseId> + Send,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        self.link.answered(call, of, async { self.link.connect(Side::Store)?.carry_write(work).await }).await
    }

    /// What the member that is asked knows.
    async fn read_there(&self, range: Range) -> Result<Snapshot> {
        let stale = self.link.state().stale.clone();
        let Some(content) = stale else { return self.inner.read(range).await };
        let entries = content.entries.iter().filter(|entry| range.contains(&entry.key));
        Ok(Snapshot { revision: content.revision, entries: entries.cloned().collect() })
    }

    async fn read_only<T>(&self, work: impl Future<Output = Result<T>> + Send) -> Result<T> {
        self.link.connect(Side::Store)?.carry(Effect::None, work).await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Discovery for LinkedDiscovery {
    async fn capabilities(&self) -> Result<DiscoveryCapabilities> {
        self.read_only(self.inner.capabilities()).await
    }

    async fn read(&self, range: Range) -> Result<Snapshot> {
        self.read_only(self.read_there(range)).await
    }

    async fn commit(&self, txn: Txn) -> Result<Commit> {
        let inner = self.inner.clone();
        self.write(Call::Commit, |_| None, async move { inner.commit(txn).await }).await
    }

    async fn watch(&self, range: Range, start: Start) -> Result<Watch> {
        let connection = self.link.connect(Side::Store)?.for_watch();
        let watch = connection.carry(Effect::None, self.inner.watch(range.clone(), start)).await?;
        let name = self.link.0.wiring.log.as_ref().map_or(0, |(log, _)| log.name_watch());
        self.link.tell(|| Event::WatchOpened { watch: name, range, base: watch.base.clone() });
        let open = OpenWatch { connection, name, flight: Flight::new(), events: watch.events };
        Ok(Watch { base: watch.base, events: open.stream() })
    }

    async fn grant(&self, ttl: Duration) -> Result<Lease> {
        let inner = self.inner.clone();
        let granted = |lease: Option<&Lease>| Some(lease?.id);
        self.write(Call::Grant, granted, async move { inner.grant(ttl).await }).await
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<Duration> {
        let beat = async { self.link.connect(Side::Store)?.carry_beat(self.inner.keep_alive(lease)).await };
        self.link.answered(Call::KeepAlive, |_| Some(lease), beat).await
    }

    async fn revoke(&self, lease: LeaseId) -> Result<()> {
        let inner = self.inner.clone();
        self.write(Call::Revoke, move |_| Some(lease), async move { inner.revoke(lease).await }).await
    }
}

impl Link {
    /// Tells how a call ended, if its caller waits for the end. `of` names the lease that it is about, which
    /// may be known from the answer only.
    pub(super) async fn answered<T>(
        &self,
        call: Call,
        of: impl FnOnce(Option<&T>) -> Option<LeaseId>,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let sent = self.now();
        let answer = work.await;
        self.tell(|| {
            let code = answer.as_ref().err().map(Error::code);
            Event::Answered { call, sent, lease: of(answer.as_ref().ok()), code }
        });
        answer
    }
}

/// A watch and the way to it.
struct OpenWatch {
    connection: Connection,
    name: u64,
    flight: Flight<Result<Batch>>,
    events: BoxStream<'static, Result<Batch>>,
}

impl OpenWatch {
    /// The events that this connection lets through; its end is their last item.
    fn stream(self) -> BoxStream<'static, Result<Batch>> {
        Box::pin(stream::unfold(Some(self), |open| async {
            let mut open = open?;
            let item = match open.connection.next(&mut open.flight, &mut open.events).await {
                Ok(item) => item?,
                Err(severed) => Err(severed.with_effect(Effect::None)),
            };
            let watch = open.name;
            open.connection.link.tell(|| match &item {
                Ok(batch) => Event::WatchDelivered { watch, batch: batch.clone() },
                Err(error) => Event::WatchEnded { watch, code: error.code() },
            });
            let goes_on = item.is_ok();
            Some((item, goes_on.then_some(open)))
        }))
    }
}
