//! A discovery backend of your own: the whole of it, a program that runs on it, and the proof that it keeps
//! the contract.
//!
//! ```text
//! cargo run -p examples --example custom_backend
//! cargo test -p examples --example custom_backend
//! ```
//!
//! The store is a map behind a lock. Its one idea is in the watch: a watcher remembers at which revision it
//! saw each key, and is given the difference whenever the store has moved. So it shows the last of several
//! writes, not each, and it says so: [`WatchFidelity::Coalesced`]. No history is kept, hence no resuming.
#![expect(clippy::print_stdout, reason = "printing is what an example is for")]

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::stream;
use slipring::{Context, DistributedRuntime, Error, MemoryWorld, Result};
use slipring_core::{
    Base, Batch, Change, Commit, Discovery, DiscoveryCapabilities, Entry, Guard, Key, Lease, LeaseId, Op,
    Range, ReadConsistency, Revision, Snapshot, Start, Txn, Watch, async_trait,
};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

/// A handle to the store; clones are handles to the same.
#[derive(Clone, Default)]
struct TinyStore(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// Wakes the watchers.
    moved: watch::Sender<()>,
}

#[derive(Default)]
struct State {
    revision: Revision,
    entries: BTreeMap<Key, Entry>,
    leases: BTreeMap<LeaseId, Term>,
    granted: u64,
}

/// How long a lease lives, and until when.
struct Term {
    ttl: Duration,
    end: Instant,
}

impl TinyStore {
    const TTL_MAX: Duration = Duration::from_secs(365 * 24 * 60 * 60);

    fn can() -> DiscoveryCapabilities {
        DiscoveryCapabilities::minimal()
            .with_atomic_keys_max(64)
            .with_read(ReadConsistency::Linearizable)
            .with_expiry_atomic(true)
            .with_ttl_min(Duration::from_millis(100))
    }

    /// The state as of now: leases that are past their end are gone.
    fn state(&self) -> MutexGuard<'_, State> {
        // Every change is whole before anything can panic.
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let over: Vec<LeaseId> =
            state.leases.iter().filter(|(_, term)| term.end <= now).map(|(id, _)| *id).collect();
        for lease in over {
            self.end(&mut state, lease);
        }
        state
    }

    /// Ends a lease and deletes its keys, all at one revision.
    fn end(&self, state: &mut State, lease: LeaseId) {
        state.leases.remove(&lease);
        let before = state.entries.len();
        state.entries.retain(|_, entry| entry.lease != Some(lease));
        if state.entries.len() < before {
            self.advance(state);
        }
    }

    fn advance(&self, state: &mut State) -> Revision {
        state.revision.0 += 1;
        self.0.moved.send_replace(());
        state.revision
    }
}

impl State {
    fn snapshot(&self, range: &Range) -> Snapshot {
        let entries = self.entries.values().filter(|entry| range.contains(&entry.key)).cloned().collect();
        Snapshot { revision: self.revision, entries }
    }

    fn holds(&self, guard: &Guard) -> bool {
        match guard {
            Guard::Absent(key) => !self.entries.contains_key(key),
            Guard::Unchanged(key, at) => self.entries.get(key).is_some_and(|entry| entry.modified == *at),
        }
    }

    /// Is this an operation that can be executed?
    fn check(&self, op: &Op) -> Result<()> {
        let limit = TinyStore::can().value_bytes_max;
        match op {
            Op::Put { value, .. } if value.len() > limit => Err(Error::payload_too_large(limit, value.len())),
            Op::Put { lease: Some(lease), .. } if !self.leases.contains_key(lease) => {
                Err(Error::lease_lost(*lease))
            }
            _ => Ok(()),
        }
    }
}

#[async_trait]
impl Discovery for TinyStore {
    async fn capabilities(&self) -> Result<DiscoveryCapabilities> {
        Ok(Self::can())
    }

    async fn read(&self, range: Range) -> Result<Snapshot> {
        Ok(self.state().snapshot(&range))
    }

    async fn commit(&self, txn: Txn) -> Result<Commit> {
        txn.check(Self::can().atomic_keys_max)?;
        let mut state = self.state();
        txn.ops.iter().try_for_each(|op| state.check(op))?;
        if !txn.guards.iter().all(|guard| state.holds(guard)) {
            return Ok(Commit::Refused);
        }
        let changes = |op: &Op| matches!(op, Op::Put { .. }) || state.entries.contains_key(op.key());
        if !txn.ops.iter().any(changes) {
            return Ok(Commit::Applied(state.revision));
        }
        let modified = self.advance(&mut state);
        for op in txn.ops {
            match op {
                Op::Put { key, value, lease } => {
                    state.entries.insert(key.clone(), Entry { key, value, modified, lease })
                }
                Op::Delete { key } => state.entries.remove(&key),
            };
        }
        Ok(Commit::Applied(modified))
    }

    async fn watch(&self, range: Range, start: Start) -> Result<Watch> {
        if let Start::After(_) = start {
            return Err(Error::unsupported("resuming a watch", "begin with a snapshot"));
        }
        let moved = self.0.moved.subscribe();
        let snapshot = self.state().snapshot(&range);
        let seen = snapshot.entries.iter().map(|entry| (entry.key.clone(), entry.modified)).collect();
        let watcher = Watcher { store: self.clone(), moved, range, seen };
        let events =
            stream::unfold(watcher, |mut watcher| async { Some((Ok(watcher.next().await), watcher)) });
        Ok(Watch { base: Base::Snapshot(snapshot), events: Box::pin(events) })
    }

    async fn grant(&self, ttl: Duration) -> Result<Lease> {
        if ttl.is_zero() || ttl > Self::TTL_MAX {
            return Err(Error::invalid("ttl", format!("{ttl:?}"), "allowed: above zero, up to a year"));
        }
        let ttl = ttl.max(Self::can().ttl_min);
        let mut state = self.state();
        state.granted += 1;
        let id = LeaseId(state.granted);
        state.leases.insert(id, Term { ttl, end: Instant::now() + ttl });
        Ok(Lease { id, ttl })
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<Duration> {
        let mut state = self.state();
        let term = state.leases.get_mut(&lease).ok_or_else(|| Error::lease_lost(lease))?;
        term.end = Instant::now() + term.ttl;
        Ok(term.ttl)
    }

    async fn revoke(&self, lease: LeaseId) -> Result<()> {
        let mut state = self.state();
        if !state.leases.contains_key(&lease) {
            return Err(Error::lease_lost(lease));
        }
        self.end(&mut state, lease);
        Ok(())
    }
}

/// One watch: what it has shown so far.
struct Watcher {
    store: TinyStore,
    moved: watch::Receiver<()>,
    range: Range,
    seen: BTreeMap<Key, Revision>,
}

impl Watcher {
    /// What is different now; nothing (which is progress) if that is so for long.
    async fn next(&mut self) -> Batch {
        let progress_at = Instant::now() + TinyStore::can().watch_silence_max / 2;
        loop {
            self.moved.mark_unchanged();
            let (revision, changes, expiry) = self.look();
            if !changes.is_empty() || Instant::now() >= progress_at {
                return Batch { revision, changes };
            }
            // A lease that ends wakes nobody: whoever cares looks again by then.
            let look_at = expiry.map_or(progress_at, |expiry| expiry.min(progress_at));
            // The sender lives in the store, so this waits for a move or for the time.
            let _ = timeout_at(look_at, self.moved.changed()).await;
        }
    }

    fn look(&mut self) -> (Revision, Vec<Change>, Option<Instant>) {
        let state = self.store.state();
        let expiry = state.leases.values().map(|term| term.end).min();
        let Snapshot { revision, entries } = state.snapshot(&self.range);
        drop(state);
        let now: BTreeMap<Key, Revision> =
            entries.iter().map(|entry| (entry.key.clone(), entry.modified)).collect();
        let gone = self.seen.keys().filter(|key| !now.contains_key(*key)).cloned().map(Change::Delete);
        let new = entries.into_iter().filter(|entry| self.seen.get(&entry.key) != Some(&entry.modified));
        let changes = gone.chain(new.map(Change::Put)).collect();
        self.seen = now;
        (revision, changes, expiry)
    }
}

impl fmt::Debug for TinyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TinyStore")
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

    let serving = worker
        .endpoint("shop/till/add")?
        .serve_unary(|(a, b): (u32, u32), _: Context| async move { Ok(a + b) });
    let serving = serving.await?;
    println!("in the store:");
    for entry in store.read(Range::All).await?.entries {
        println!("  {} (lease {:?})", entry.key, entry.lease);
    }
    let client = caller.endpoint("shop/till/add")?.client::<(u32, u32), u32>().await?;
    println!("19 + 23 = {}", client.call(&(19, 23)).await?);
    println!("{}", serving.stop().await);
    worker.stop().await;
    caller.stop().await;
    println!("left in the store: {}", store.read(Range::All).await?.entries.len());
    Ok(())
}

#[cfg(test)]
mod tests {
    use slipring::{Environment, SystemEnvironment};
    use slipring_conformance::Fixture;

    use super::*;

    #[derive(Debug)]
    struct Tiny(TinyStore);

    #[async_trait]
    impl Fixture for Tiny {
        fn environment(&self) -> Arc<dyn Environment> {
            Arc::new(SystemEnvironment::new())
        }

        async fn discovery(&self) -> Result<Option<Arc<dyn Discovery>>> {
            Ok(Some(Arc::new(self.0.clone())))
        }
    }

    /// The store keeps every promise that it declares, and declares all but history.
    #[tokio::test(start_paused = true)]
    async fn the_kit_passes() {
        use slipring_conformance::{Need, Suite};
        let discovery = |case: &slipring_conformance::Case| case.needs.contains(&Need::Discovery);
        let report = Suite::new().only(discovery).run(Arc::new(Tiny(TinyStore::default()))).await;
        report.assert_passed(&[]);
    }
}
