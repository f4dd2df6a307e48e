use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::AbortHandle;
use futures_util::{StreamExt, future, stream};
use slipring_core::{
    Base, Batch, Change, Commit, Discovery, DiscoveryCapabilities, DiscoveryExt, Entry, Error, Key, Lease,
    LeaseId, Op, Range, Result, Revision, Snapshot, Start, Txn, Watch, async_trait,
};

faults! {
    /// How a store is broken.
    StoreFault {
        LosesDeletions,
        GapAfterBase,
        OverlapsBase,
        Reorders,
        SplitsBatches,
        SilentAboutFuture,
        HidesCompaction,
        NoProgress,
        EndsSilently,
        NoBoundary,
        OutOfOrder,
        FirstPageOnly,
        SplitsTransactions,
        IgnoresGuards,
        RefusalIsSuccess,
        IgnoresLostLease,
        LimitsUnchecked,
        NeverExpires,
        ExpiresEarly,
        HeartbeatIdle,
        HeartbeatRevives,
        HeartbeatMoves,
        PutKeepsLease,
        RevokeLeavesKeys,
        ReadsOld,
        FoldsCase,
        TextOnly,
        EmptyIsAbsent,
        FalseProgress,
        LastWatchOnly,
        OneLeaseForAll,
        ShorterTtl,
        TakesZeroTtl,
        Panics,
        Hangs,
        DeclaresNothing,
        LosesPuts,
        KeyIsPrefix,
        AbsentIsEmpty,
        ReadsMove,
        MissingRefuses,
        DeletionKeepsLease,
    }
}

use StoreFault::*;

/// A store with one fault in front of it.
#[derive(Debug)]
pub(crate) struct BrokenStore {
    inner: Arc<dyn Discovery>,
    fault: StoreFault,
    /// The first snapshot of each range, and whether it is its turn.
    old: Mutex<BTreeMap<Range, (Snapshot, bool)>>,
    /// The watch that was opened last.
    last_watch: Mutex<Option<AbortHandle>>,
    /// The lease that was granted first.
    lease: Mutex<Option<Lease>>,
    /// What was ever written under a lease.
    leased: Mutex<Vec<(LeaseId, Key)>>,
}

impl BrokenStore {
    pub(crate) fn new(inner: Arc<dyn Discovery>, fault: StoreFault) -> Self {
        Self {
            inner,
            fault,
            old: Mutex::default(),
            last_watch: Mutex::default(),
            lease: Mutex::default(),
            leased: Mutex::default(),
        }
    }

    fn has(&self, fault: StoreFault) -> bool {
        self.fault == fault
    }

    async fn snapshot(&self, range: Range) -> Result<Snapshot> {
        if let (Range::Key(key), KeyIsPrefix) = (&range, self.fault) {
            let mut all = self.inner.read(Range::All).await?;
            all.entries.retain(|entry| entry.key.as_str().starts_with(key.as_str()));
            return Ok(all);
        }
        let Range::Prefix(prefix) = &range else { return self.inner.read(range).await };
        if !self.has(NoBoundary) {
            return self.inner.read(range).await;
        }
        let mut all = self.inner.read(Range::All).await?;
        all.entries.retain(|entry| begins_alike(&entry.key, prefix.as_str()));
        Ok(all)
    }

    async fn split(&self, txn: Txn) -> Result<Commit> {
        let mut guards = txn.guards;
        let mut last = Commit::Refused;
        for op in txn.ops {
            let part = Txn { guards: std::mem::take(&mut guards), ops: vec![op] };
            last = self.inner.commit(part).await?;
            tokio::task::yield_now().await;
        }
        Ok(last)
    }

    /// The same transaction, its puts with the leases that their keys have.
    async fn with_old_leases(&self, mut txn: Txn) -> Result<Txn> {
        for op in &mut txn.ops {
            if let Op::Put { key, lease: lease @ None, .. } = op {
                *lease = self.inner.entry(key).await?.and_then(|entry| entry.lease);
            }
        }
        Ok(txn)
    }

    async fn start(&self, range: Range, start: Start) -> Result<Watch> {
        match (self.fault, &range, start) {
            (GapAfterBase, _, Start::Snapshot) => {
                let base = Base::Snapshot(self.inner.read(range.clone()).await?);
                for _ in 0..3 {
                    tokio::task::yield_now().await;
                }
                Ok(Watch { base, ..self.inner.watch(range, start).await? })
            }
            (NoBoundary, Range::Prefix(prefix), _) => {
                let prefix = prefix.clone();
                let alike = move |change: &Change| begins_alike(change.key(), prefix.as_str());
                let Watch { events, .. } = self.inner.watch(Range::All, start).await?;
                let base = Base::Snapshot(self.snapshot(range).await?);
                let events = events.map(move |batch| {
                    batch.map(|Batch { revision, mut changes }| {
                        changes.retain(&alike);
                        Batch { revision, changes }
                    })
                });
                Ok(Watch { base, events: events.boxed() })
            }
            (KeyIsPrefix, Range::Key(key), _) => {
                let key = key.clone();
                let watch = self.inner.watch(Range::All, start).await?;
                let begins = move |change: &Change| change.key().as_str().starts_with(key.as_str());
                let events = watch.events.map(move |batch| {
                    batch.map(|Batch { revision, mut changes }| {
                        changes.retain(&begins);
                        Batch { revision, changes }
                    })
                });
                let base = Base::Snapshot(self.snapshot(range).await?);
                Ok(Watch { base, events: events.boxed() })
            }
            (SilentAboutFuture | HidesCompaction, _, Start::After(after)) => {
                let open = self.inner.watch(range, start).await;
                let events = match open {
                    Ok(watch) => watch.events.filter(|item| future::ready(item.is_ok())).boxed(),
                    Err(_) => stream::empty().boxed(),
                };
                Ok(Watch { base: Base::Resumed(after), events: events.chain(stream::pending()).boxed() })
            }
            _ => self.inner.watch(range, start).await,
        }
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Discovery for BrokenStore {
    async fn capabilities(&self) -> Result<DiscoveryCapabilities> {
        let mut can = self.inner.capabilities().await?;
        if self.has(DeclaresNothing) {
            can.atomic_keys_max = 0;
        }
        let limited = can.with_value_bytes_max(2000).with_atomic_keys_max(8);
        Ok(if self.has(LimitsUnchecked) { limited } else { can })
    }

    async fn read(&self, range: Range) -> Result<Snapshot> {
        let range = if self.has(FoldsCase) { folded_range(range) } else { range };
        let mut snapshot = self.snapshot(range.clone()).await?;
        match self.fault {
            ReadsOld => {
                let mut old = self.old.lock().unwrap();
                let (first, turn) = old.entry(range).or_insert_with(|| (snapshot.clone(), false));
                if std::mem::replace(turn, !*turn) {
                    snapshot = first.clone();
                }
            }
            TextOnly => {
                for entry in &mut snapshot.entries {
                    entry.value = String::from_utf8_lossy(&entry.value).into_owned().into();
                }
            }
            AbsentIsEmpty if snapshot.entries.is_empty() => {
                if let Range::Key(key) = range {
                    let (value, modified) = (Default::default(), snapshot.revision);
                    snapshot.entries.push(Entry { key, value, modified, lease: None });
                }
            }
            ReadsMove => drop(self.inner.put(Key::new("reads")?, "".into(), None).await?),
            EmptyIsAbsent => snapshot.entries.retain(|entry| !entry.value.is_empty()),
            OutOfOrder => snapshot.entries.reverse(),
            FirstPageOnly => snapshot.entries.truncate(1000),
            _ => {}
        }
        Ok(snapshot)
    }

    async fn commit(&self, mut txn: Txn) -> Result<Commit> {
        match self.fault {
            Panics => panic!("a store that panics"),
            Hangs => return future::pending().await,
            SplitsTransactions => return self.split(txn).await,
            IgnoresGuards => txn.guards.clear(),
            LosesPuts => txn.ops.retain(|op| matches!(op, Op::Delete { .. })),
            MissingRefuses => {
                for op in &txn.ops {
                    if matches!(op, Op::Delete { .. }) && self.inner.entry(op.key()).await?.is_none() {
                        return Ok(Commit::Refused);
                    }
                }
            }
            DeletionKeepsLease => {
                let mut leased = self.leased.lock().unwrap();
                for op in &txn.ops {
                    if let Op::Put { key, lease: Some(lease), .. } = op {
                        leased.push((*lease, key.clone()));
                    }
                }
            }
            PutKeepsLease => txn = self.with_old_leases(txn).await?,
            FoldsCase => {
                for op in &mut txn.ops {
                    let (Op::Put { key, .. } | Op::Delete { key }) = op;
                    *key = folded(key);
                }
            }
            _ => {}
        }
        match self.inner.commit(txn.clone()).await {
            Ok(Commit::Refused) if self.has(RefusalIsSuccess) => {
                Ok(Commit::Applied(self.inner.read(Range::All).await?.revision))
            }
            Err(Error::LeaseLost { .. }) if self.has(IgnoresLostLease) => {
                for op in &mut txn.ops {
                    if let Op::Put { lease, .. } = op {
                        *lease = None;
                    }
                }
                self.inner.commit(txn).await
            }
            answer => answer,
        }
    }

    async fn watch(&self, range: Range, start: Start) -> Result<Watch> {
        let Watch { base, events } = self.start(range, start).await?;
        let events = match self.fault {
            LosesDeletions => events
                .map(|batch| {
                    batch.map(|Batch { revision, mut changes }| {
                        changes.retain(|change| matches!(change, Change::Put(_)));
                        Batch { revision, changes }
                    })
                })
                .boxed(),
            OverlapsBase => stream::iter(again(&base)).chain(events).boxed(),
            Reorders => {
                let pairs = events.ready_chunks(2);
                pairs.flat_map(|pair| stream::iter(pair.into_iter().rev())).boxed()
            }
            SplitsBatches => events.flat_map(|batch| stream::iter(split(batch))).boxed(),
            NoProgress => {
                let silent = |item: &Result<Batch>| !item.as_ref().is_ok_and(|b| b.changes.is_empty());
                events.filter(move |item| future::ready(silent(item))).boxed()
            }
            EndsSilently => events.take(20).boxed(),
            FalseProgress => {
                let Base::Snapshot(Snapshot { revision, .. }) = base else {
                    return Ok(Watch { base, events });
                };
                let ahead = Batch { revision: Revision(revision.0 + 1), changes: Vec::new() };
                stream::iter([Ok(ahead)]).chain(events).boxed()
            }
            LastWatchOnly => {
                let (events, abort) = stream::abortable(events);
                if let Some(before) = self.last_watch.lock().unwrap().replace(abort) {
                    before.abort();
                }
                events.chain(stream::pending()).boxed()
            }
            _ => events,
        };
        Ok(Watch { base, events })
    }

    async fn grant(&self, ttl: Duration) -> Result<Lease> {
        let real = match self.fault {
            OneLeaseForAll => {
                let fresh = self.inner.grant(ttl).await?;
                return Ok(*self.lease.lock().unwrap().get_or_insert(fresh));
            }
            ShorterTtl => return Ok(Lease { ttl: ttl / 2, ..self.inner.grant(ttl).await? }),
            TakesZeroTtl => return self.inner.grant(ttl.max(Duration::from_millis(1))).await,
            NeverExpires => ttl * 100_000,
            ExpiresEarly => ttl / 2,
            _ => return self.inner.grant(ttl).await,
        };
        Ok(Lease { ttl, ..self.inner.grant(real).await? })
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<Duration> {
        match self.fault {
            HeartbeatIdle => Ok(Duration::from_secs(1)),
            HeartbeatRevives => self.inner.keep_alive(lease).await.or(Ok(Duration::from_secs(1))),
            HeartbeatMoves => {
                self.inner.put(Key::new(format!("heartbeats/{lease}"))?, "".into(), None).await?;
                self.inner.keep_alive(lease).await
            }
            _ => self.inner.keep_alive(lease).await,
        }
    }

    async fn revoke(&self, lease: LeaseId) -> Result<()> {
        if self.has(RevokeLeavesKeys) {
            return Ok(());
        }
        let mut keys = self.leased.lock().unwrap().clone();
        keys.retain(|(held, _)| *held == lease);
        for (_, key) in keys {
            self.inner.delete(key).await?;
        }
        self.inner.revoke(lease).await
    }
}

fn begins_alike(key: &Key, prefix: &str) -> bool {
    key.as_str().starts_with(prefix.trim_end_matches(['/', ':']))
}

fn folded(key: &Key) -> Key {
    Key::new(key.as_str().to_lowercase()).unwrap()
}

fn folded_range(range: Range) -> Range {
    match range {
        Range::Key(key) => folded(&key).into(),
        other => other,
    }
}

/// What a base holds, as events.
fn again(base: &Base) -> Vec<Result<Batch>> {
    let Base::Snapshot(Snapshot { entries, .. }) = base else { return Vec::new() };
    let batch = |entry: &Entry| Batch { revision: entry.modified, changes: vec![Change::Put(entry.clone())] };
    entries.iter().map(|entry| Ok(batch(entry))).collect()
}

/// A batch as one for each change.
fn split(batch: Result<Batch>) -> Vec<Result<Batch>> {
    let parts = |revision: Revision, changes: Vec<Change>| {
        changes.into_iter().map(|change| Ok(Batch { revision, changes: vec![change] })).collect()
    };
    match batch {
        Ok(Batch { revision, changes }) if changes.len() > 1 => parts(revision, changes),
        whole => vec![whole],
    }
}
