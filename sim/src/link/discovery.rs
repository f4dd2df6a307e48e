use std::sync::Arc;
use std::time::Duration;

use futures_util::stream;
use slipring_core::{
    Batch, BoxStream, Commit, Discovery, DiscoveryCapabilities, Effect, Error, Lease, LeaseId, Range, Result,
    Snapshot, Start, Txn, Watch, async_trait,
};
use tokio::task::{consume_budget, unconstrained};

use super::connection::Connection;
use super::flight::Flight;
use super::{Link, Side};
use crate::history::{Call, Event, Failure, TxnStep};

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
        of: impl Fn(Option<&T>) -> Option<LeaseId> + Send + Sync,
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
        let sent = self.link.now();
        let snapshot = self.read_only(self.read_there(range.clone())).await?;
        self.link.tell(|| Event::Read { sent, range, snapshot: snapshot.clone() });
        Ok(snapshot)
    }

    async fn commit(&self, txn: Txn) -> Result<Commit> {
        let request = self.link.number();
        let (inner, link) = (self.inner.clone(), self.link.clone());
        link.tell(|| Event::Txn { request, step: TxnStep::Sent(txn.clone()) });
        let work = async move {
            if let Some(cable) = &link.0.wiring.cable {
                return cable.commit(request, txn).await;
            }
            // Nobody comes between the arrival and the end, so that it is plain whose commit is whose.
            consume_budget().await;
            link.tell(|| Event::Txn { request, step: TxnStep::Arrived });
            let answer = unconstrained(inner.commit(txn)).await;
            let outcome = answer.as_ref().copied().map_err(Failure::from);
            link.tell(|| Event::Txn { request, step: TxnStep::Executed(outcome) });
            answer
        };
        let answer = self.write(Call::Commit, |_| None, work).await;
        let outcome = answer.as_ref().copied().map_err(Failure::from);
        self.link.tell(|| Event::Txn { request, step: TxnStep::Answered(outcome) });
        answer
    }

    async fn watch(&self, range: Range, start: Start) -> Result<Watch> {
        let connection = self.link.connect(Side::Store)?.for_watch();
        let watch = connection.carry(Effect::None, self.inner.watch(range.clone(), start)).await;
        let watch = watch.inspect_err(|error| {
            let (range, code) = (range.clone(), error.code());
            self.link.tell(|| Event::WatchRefused { range, code });
        })?;
        let name = self.link.0.wiring.log.as_ref().map_or(0, |(log, _)| log.name_watch());
        self.link.tell(|| Event::WatchOpened { watch: name, range, base: watch.base.clone() });
        let open = OpenWatch { connection, name, flight: Flight::new(), events: watch.events, ended: false };
        Ok(Watch { base: watch.base, events: open.stream() })
    }

    async fn grant(&self, ttl: Duration) -> Result<Lease> {
        let inner = self.inner.clone();
        let granted = |lease: Option<&Lease>| Some(lease?.id);
        let lease = self.write(Call::Grant, granted, async move { inner.grant(ttl).await }).await?;
        self.link.tell(|| Event::Leased { asked: ttl, lease });
        Ok(lease)
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
    /// Tells how a call ended, or that its caller did not wait for the end. `of` names the lease that it is about, which
    /// may be known from the answer only.
    pub(super) async fn answered<T>(
        &self,
        call: Call,
        of: impl Fn(Option<&T>) -> Option<LeaseId>,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let sent = self.now();
        let mut waiting = Waiting { link: self, call, sent, lease: of(None), over: false };
        let answer = work.await;
        waiting.over = true;
        self.tell(|| {
            let code = answer.as_ref().err().map(Error::code);
            Event::Answered { call, sent, lease: of(answer.as_ref().ok()), code }
        });
        answer
    }
}

/// A caller that waits; dropped before the answer is there, it gives up.
struct Waiting<'a> {
    link: &'a Link,
    call: Call,
    sent: Duration,
    lease: Option<LeaseId>,
    over: bool,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if !self.over {
            let Self { call, sent, lease, .. } = *self;
            self.link.tell(|| Event::GaveUp { call, sent, lease });
        }
    }
}

/// A watch and the way to it.
struct OpenWatch {
    connection: Connection,
    name: u64,
    flight: Flight<Result<Batch>>,
    events: BoxStream<'static, Result<Batch>>,
    ended: bool,
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
            open.ended = item.is_err();
            open.connection.link.tell(|| match &item {
                Ok(batch) => Event::WatchDelivered { watch, batch: batch.clone() },
                Err(error) => Event::WatchEnded { watch, code: error.code() },
            });
            let goes_on = item.is_ok();
            Some((item, goes_on.then_some(open)))
        }))
    }
}

impl Drop for OpenWatch {
    fn drop(&mut self) {
        if !self.ended {
            self.connection.link.tell(|| Event::WatchDropped { watch: self.name });
        }
    }
}
