//! A discovery backend of your own: the whole of it, a program that runs on it, and the proof that it keeps
//! the contract.
//!
//! ```text
//! cargo run -p examples --example custom_backend
//! cargo test -p examples --example custom_backend
//! ```
//!
//! The store is a map and a log behind a lock. The log holds the newest changes: a watch reads it from where it
//! stands, and one that is overtaken by its end is told so. Time passes whenever somebody looks.
#![expect(clippy::print_stdout, reason = "printing is what an example is for")]

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::stream;
use slipring::{Context, DistributedRuntime, Error, MemoryWorld, Result};
use slipring_core::{
    Base, Batch, Change, Commit, Discovery, DiscoveryCapabilities, Entry, Guard, Key, Lease, LeaseId, Op,
    Range, ReadConsistency, Revision, Snapshot, Start, Txn, Watch, WatchFidelity, async_trait,
};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

/// A handle to the store; clones are handles to the same.
#[derive(Debug, Clone, Default)]
struct TinyStore(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    revision: Revision,
    entries: BTreeMap<Key, Entry>,
    granted: u64,
    /// Each lease with its end.
    leases: BTreeMap<LeaseId, (Lease, Instant)>,
    /// The newest changes, a batch for each revision up to the current one.
    log: VecDeque<Batch>,
    /// Wakes the watchers.
    moved: watch::Sender<()>,
}

/// What a watch reads, and from where on.
type Position = (TinyStore, Range, Revision);

/// In batches; a watch that is further behind begins anew.
const LOG_MAX: usize = 1024;
const TTL_MAX: Duration = Duration::from_secs(365 * 24 * 60 * 60);

fn can() -> DiscoveryCapabilities {
    DiscoveryCapabilities::minimal()
        .with_atomic_keys_max(64)
        .with_watch(WatchFidelity::EveryRevision)
        .with_read(ReadConsistency::Linearizable)
        .with_resume(true)
        .with_expiry_atomic(true)
}

impl TinyStore {
    /// The state as of now: leases that are past their end are gone.
    fn state(&self) -> MutexGuard<'_, State> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let over = state.leases.values().filter(|(_, end)| *end <= Instant::now()).map(|(lease, _)| lease.id);
        for lease in over.collect::<Vec<_>>() {
            state.end(lease);
        }
        state
    }

    /// The next changes for a watch; if there are none for long, how far the store is.
    async fn next((store, range, mut at): Position) -> Result<Option<(Batch, Position)>> {
        let progress_at = Instant::now() + can().watch_silence_max / 2;
        loop {
            let (batch, until, mut moved) = {
                let state = store.state();
                // A lease that ends wakes nobody, so look again by then.
                let until = state.leases.values().map(|(_, end)| *end).fold(progress_at, Instant::min);
                (state.after(at, &range)?, until, state.moved.subscribe())
            };
            at = batch.revision;
            if !batch.changes.is_empty() || Instant::now() >= progress_at {
                return Ok(Some((batch, (store, range, at))));
            }
            let _ = timeout_at(until, moved.changed()).await;
        }
    }
}

impl State {
    fn snapshot(&self, range: &Range) -> Snapshot {
        let entries = self.entries.values().filter(|entry| range.contains(&entry.key)).cloned().collect();
        Snapshot { revision: self.revision, entries }
    }

    /// The first changes in the range after a revision; without any, that there are none up to now.
    fn after(&self, at: Revision, range: &Range) -> Result<Batch> {
        let oldest = self.revision.0 - self.log.len() as u64;
        if !(oldest..=self.revision.0).contains(&at.0) {
            return Err(Error::compacted(Revision(oldest)));
        }
        let seen = |change: &&Change| range.contains(change.key());
        let mut newer = self.log.iter().skip((at.0 - oldest) as usize);
        let next = newer.find(|batch| batch.changes.iter().any(|change| seen(&change)));
        let changes = next.into_iter().flat_map(|batch| &batch.changes).filter(seen).cloned().collect();
        Ok(Batch { revision: next.map_or(self.revision, |batch| batch.revision), changes })
    }

    fn holds(&self, guard: &Guard) -> bool {
        match guard {
            Guard::Absent(key) => !self.entries.contains_key(key),
            Guard::Unchanged(key, at) => self.entries.get(key).is_some_and(|entry| entry.modified == *at),
        }
    }

    fn check(&self, op: &Op) -> Result<()> {
        let limit = can().value_bytes_max;
        match op {
            Op::Put { value, .. } if value.len() > limit => Err(Error::payload_too_large(limit, value.len())),
            Op::Put { lease: Some(id), .. } if !self.leases.contains_key(id) => Err(Error::lease_lost(*id)),
            _ => Ok(()),
        }
    }

    /// Executes operations at one revision: the next one, or the current one if they change nothing.
    fn apply(&mut self, ops: impl IntoIterator<Item = Op>) -> Revision {
        let modified = Revision(self.revision.0 + 1);
        let mut changes = Vec::new();
        for op in ops {
            match op {
                Op::Put { key, value, lease } => {
                    let entry = Entry { key: key.clone(), value, modified, lease };
                    self.entries.insert(key, entry.clone());
                    changes.push(Change::Put(entry));
                }
                Op::Delete { key } => changes.extend(self.entries.remove(&key).map(|_| Change::Delete(key))),
            }
        }
        if !changes.is_empty() {
            self.revision = modified;
            self.log.push_back(Batch { revision: modified, changes });
            self.log.drain(..self.log.len().saturating_sub(LOG_MAX));
            self.moved.send_replace(());
        }
        self.revision
    }

    /// Ends a lease and deletes its keys; `None` if there is no such lease.
    fn end(&mut self, lease: LeaseId) -> Option<Revision> {
        self.leases.remove(&lease)?;
        let held = self.entries.values().filter(|entry| entry.lease == Some(lease));
        let deletions: Vec<_> = held.map(|entry| Op::Delete { key: entry.key.clone() }).collect();
        Some(self.apply(deletions))
    }
}

#[async_trait]
impl Discovery for TinyStore {
    async fn capabilities(&self) -> Result<DiscoveryCapabilities> {
        Ok(can())
    }

    async fn read(&self, range: Range) -> Result<Snapshot> {
        Ok(self.state().snapshot(&range))
    }

    async fn commit(&self, txn: Txn) -> Result<Commit> {
        txn.check(can().atomic_keys_max)?;
        let mut state = self.state();
        txn.ops.iter().try_for_each(|op| state.check(op))?;
        let applies = txn.guards.iter().all(|guard| state.holds(guard));
        Ok(if applies { Commit::Applied(state.apply(txn.ops)) } else { Commit::Refused })
    }

    async fn watch(&self, range: Range, start: Start) -> Result<Watch> {
        let state = self.state();
        let (at, base) = match start {
            Start::Snapshot => (state.revision, Base::Snapshot(state.snapshot(&range))),
            Start::After(at) => state.after(at, &range).map(|_| (at, Base::Resumed(at)))?,
        };
        // Ends with the first error.
        let events = stream::try_unfold((self.clone(), range, at), Self::next);
        Ok(Watch { base, events: Box::pin(events) })
    }

    async fn grant(&self, ttl: Duration) -> Result<Lease> {
        if ttl.is_zero() || ttl > TTL_MAX {
            return Err(Error::invalid("ttl", format!("{ttl:?}"), "allowed: above zero, up to a year"));
        }
        let mut state = self.state();
        state.granted += 1;
        let lease = Lease { id: LeaseId(state.granted), ttl: ttl.max(can().ttl_min) };
        state.leases.insert(lease.id, (lease, Instant::now() + lease.ttl));
        Ok(lease)
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<Duration> {
        let mut state = self.state();
        let (lease, end) = state.leases.get_mut(&lease).ok_or_else(|| Error::lease_lost(lease))?;
        *end = Instant::now() + lease.ttl;
        Ok(lease.ttl)
    }

    async fn revoke(&self, lease: LeaseId) -> Result<()> {
        self.state().end(lease).map(drop).ok_or_else(|| Error::lease_lost(lease))
    }
}

/// The component model neither knows nor cares that its store is a new one.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let store = TinyStore::default();
    let broker = MemoryWorld::new();
    let build =
        || DistributedRuntime::builder().discovery(store.clone()).messaging(broker.messaging()).build();
    let (worker, caller) = (build().await?, build().await?);

    let add = |(a, b): (u32, u32), _: Context| async move { Ok(a + b) };
    let serving = worker.endpoint("shop/till/add")?.serve_unary(add).await?;
    print_keys(&store).await?;
    let client = caller.endpoint("shop/till/add")?.client::<(u32, u32), u32>().await?;
    println!("19 + 23 = {}\n", client.call(&(19, 23)).await?);

    println!("{}\n", serving.stop().await);
    worker.stop().await;
    caller.stop().await;
    print_keys(&store).await?;
    Ok(())
}

async fn print_keys(store: &TinyStore) -> Result<()> {
    println!("in the store:");
    for entry in store.read(Range::All).await?.entries {
        println!("  {}", entry.key);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use slipring::{Environment, SystemEnvironment};
    use slipring_conformance::{Action, Case, Fixture, Need, Suite};

    use super::*;

    #[derive(Debug, Default)]
    struct Tiny(TinyStore);

    #[async_trait]
    impl Fixture for Tiny {
        fn environment(&self) -> Arc<dyn Environment> {
            Arc::new(SystemEnvironment::new())
        }

        async fn discovery(&self) -> Result<Option<Arc<dyn Discovery>>> {
            Ok(Some(Arc::new(self.0.clone())))
        }

        fn can(&self, action: Action) -> bool {
            action == Action::Compact
        }

        async fn act(&self, _: Action) -> Result<()> {
            self.0.state().log.clear();
            Ok(())
        }
    }

    /// The store keeps every promise of the contract that concerns one within the process: it passes each case
    /// of a store that does not take the server away, and none of them is skipped.
    #[tokio::test(start_paused = true)]
    async fn the_kit_passes() {
        let of_a_store = |case: &Case| {
            case.needs.contains(&Need::Discovery) && case.actions().all(|action| action == Action::Compact)
        };
        let report = Suite::new().only(of_a_store).run(Arc::new(Tiny::default())).await;
        report.assert_passed(&[]);
    }
}
