//! Stores that are broken in what they do about outages.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::{StreamExt, future, stream};
use slipring_core::{
    Base, BoxStream, Commit, Discovery, DiscoveryCapabilities, Effect, Environment, EnvironmentExt, Error,
    Lease, LeaseId, Range, Result, Snapshot, Start, Txn, Watch, async_trait,
};
use tokio::time::sleep;

/// How a store is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StoreFault {
    /// Tries again by itself, whatever may have happened.
    RetriesBlindly,
    /// Says that nothing happened where it cannot know.
    DoubtIsNone,
    /// Sends every write twice.
    WritesTwice,
    /// Keeps a write that it refused, and executes it later.
    QueuesWrites,
    /// Waits for the server instead of refusing.
    WaitsForTheServer,
    /// Says that something may have happened where nothing was sent.
    AlwaysDoubts,
    /// Gives up a write that waits, says that nothing will happen, and lets it happen.
    LateIsNone,
    /// A watch falls silent where it ended.
    HidesTheEnd,
    /// A watch ends without an error.
    EndsSilently,
    /// A watch that should resume begins anew.
    GoesOnFromNow,
    /// A watch resumes by itself, and not where it was.
    SkipsTheOutage,
    /// A watch falls silent where its history is compacted.
    HidesCompaction,
    /// A heartbeat revives a lease that was lost.
    Revives,
    /// Counts leases up to ten, and then anew.
    ReusesLeaseIds,
}

use StoreFault::*;

/// A store with one fault in front of it.
#[derive(Debug)]
pub(crate) struct BrokenStore {
    inner: Arc<dyn Discovery>,
    fault: StoreFault,
    environment: Arc<dyn Environment>,
    /// The real ids of the leases that were granted.
    granted: Mutex<Vec<LeaseId>>,
}

fn is_outage(error: &Error) -> bool {
    matches!(error, Error::Unavailable { .. } | Error::DeadlineExceeded { .. })
}

const PAUSE: Duration = Duration::from_millis(10);

/// Commits until it is answered.
async fn stubborn(inner: Arc<dyn Discovery>, txn: Txn) -> Result<Commit> {
    loop {
        match inner.commit(txn.clone()).await {
            Err(error) if is_outage(&error) => sleep(PAUSE).await,
            answer => return answer,
        }
    }
}

impl BrokenStore {
    pub(crate) fn new(
        inner: Arc<dyn Discovery>,
        fault: StoreFault,
        environment: Arc<dyn Environment>,
    ) -> Self {
        Self { inner, fault, environment, granted: Mutex::default() }
    }

    fn later(&self, txn: Txn) {
        let inner = self.inner.clone();
        let late = async move { drop(stubborn(inner, txn).await) };
        self.environment.start("a late write", late).detach();
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Discovery for BrokenStore {
    async fn capabilities(&self) -> Result<DiscoveryCapabilities> {
        self.inner.capabilities().await
    }

    async fn read(&self, range: Range) -> Result<Snapshot> {
        self.inner.read(range).await
    }

    async fn commit(&self, txn: Txn) -> Result<Commit> {
        let nothing = || Error::unavailable("the store", "broken", Effect::None);
        match (self.fault, self.inner.commit(txn.clone()).await) {
            (RetriesBlindly, Err(error)) if error.effect() == Effect::Unknown => {
                stubborn(self.inner.clone(), txn).await
            }
            (WritesTwice, Ok(_)) => self.inner.commit(txn).await,
            (WaitsForTheServer, Err(error)) if is_outage(&error) => stubborn(self.inner.clone(), txn).await,
            (DoubtIsNone, Err(error)) if is_outage(&error) => Err(nothing()),
            (AlwaysDoubts, Err(error)) if is_outage(&error) => Err(error.raise(Effect::Unknown)),
            (QueuesWrites, Err(error)) if error.effect() == Effect::None => {
                self.later(txn);
                Err(error)
            }
            (LateIsNone, Err(Error::DeadlineExceeded { .. })) => {
                self.later(txn);
                Err(nothing())
            }
            (_, answer) => answer,
        }
    }

    async fn watch(&self, range: Range, start: Start) -> Result<Watch> {
        let Watch { base, events } = match (self.fault, start) {
            (GoesOnFromNow, Start::After(after)) => {
                let now = self.inner.watch(range.clone(), Start::Snapshot).await?;
                Watch { base: Base::Resumed(after), ..now }
            }
            (HidesCompaction, Start::After(after)) => match self.inner.watch(range.clone(), start).await {
                Err(Error::Compacted { .. }) => {
                    Watch { base: Base::Resumed(after), events: stream::pending().boxed() }
                }
                answer => answer?,
            },
            _ => self.inner.watch(range.clone(), start).await?,
        };
        let events: BoxStream<'static, _> = match self.fault {
            HidesTheEnd => {
                events.take_while(|item| future::ready(item.is_ok())).chain(stream::pending()).boxed()
            }
            EndsSilently => events.take_while(|item| future::ready(item.is_ok())).boxed(),
            SkipsTheOutage => {
                let first = events.take_while(|item| future::ready(item.is_ok()));
                let again = stream::unfold((self.inner.clone(), range), |(inner, range)| async {
                    let watch = loop {
                        match inner.watch(range.clone(), Start::Snapshot).await {
                            Ok(watch) => break watch,
                            Err(_) => sleep(PAUSE).await,
                        }
                    };
                    let events = watch.events.take_while(|item| future::ready(item.is_ok()));
                    Some((events, (inner, range)))
                });
                first.chain(again.flatten()).boxed()
            }
            _ => events,
        };
        Ok(Watch { base, events })
    }

    async fn grant(&self, ttl: Duration) -> Result<Lease> {
        let mut lease = self.inner.grant(ttl).await?;
        if self.fault == ReusesLeaseIds {
            let mut granted = self.granted.lock().unwrap();
            let counted = LeaseId(granted.len() as u64 % 10 + 1);
            granted.push(std::mem::replace(&mut lease.id, counted));
        }
        Ok(lease)
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<Duration> {
        match (self.fault, self.inner.keep_alive(lease).await) {
            (Revives, Err(Error::LeaseLost { .. })) => Ok(Duration::from_secs(60)),
            (_, answer) => answer,
        }
    }

    async fn revoke(&self, lease: LeaseId) -> Result<()> {
        let real = match self.fault {
            ReusesLeaseIds => {
                let granted = self.granted.lock().unwrap();
                let last = granted.iter().enumerate().rfind(|(at, _)| *at as u64 % 10 + 1 == lease.0);
                last.map_or(lease, |(_, real)| *real)
            }
            _ => lease,
        };
        self.inner.revoke(real).await
    }
}
