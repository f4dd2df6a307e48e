//! A store that can do the least: one key per transaction, watches that compare what is there with what was
//! there, and nothing to resume from. It lives in memory, and its server is a switch.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::stream;
use slipring_core::{
    Base, Batch, Change, Commit, Discovery, DiscoveryCapabilities, Effect, Entry, Error, Guard, Key, Lease,
    LeaseId, Op, Range, Result, Revision, Snapshot, Start, Txn, Watch, async_trait,
};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

/// A handle to the store; clones are handles to the same.
#[derive(Debug, Clone, Default)]
pub struct Notebook(Arc<Mutex<Pages>>);

#[derive(Debug, Default)]
struct Pages {
    /// Nobody can reach it.
    closed: bool,
    /// How often all connections were ended.
    cuts: u64,
    revision: Revision,
    entries: BTreeMap<Key, Entry>,
    granted: u64,
    leases: BTreeMap<LeaseId, (Duration, Instant)>,
    turned: watch::Sender<()>,
}

const TTL_MAX: Duration = Duration::from_secs(365 * 24 * 60 * 60);

fn can() -> DiscoveryCapabilities {
    DiscoveryCapabilities::minimal()
}

fn away() -> Error {
    Error::unavailable("the notebook", "it is closed", Effect::None)
}

impl Notebook {
    /// Takes the store away: calls are refused, watches end.
    pub fn close(&self) {
        let mut pages = self.pages();
        pages.closed = true;
        pages.cut();
    }

    /// Brings it back.
    pub fn open(&self) {
        self.pages().closed = false;
    }

    /// Ends all watches.
    pub fn cut(&self) {
        self.pages().cut();
    }

    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The pages as of now, if they can be reached.
    fn reach(&self) -> Result<MutexGuard<'_, Pages>> {
        let mut pages = self.pages();
        if pages.closed {
            return Err(away());
        }
        let over = pages.leases.iter().filter(|(_, (_, end))| *end <= Instant::now());
        for lease in over.map(|(lease, _)| *lease).collect::<Vec<_>>() {
            pages.end(lease);
        }
        Ok(pages)
    }
}

impl Pages {
    fn cut(&mut self) {
        self.cuts += 1;
        self.turned.send_replace(());
    }

    fn snapshot(&self, range: &Range) -> Snapshot {
        let entries = self.entries.values().filter(|entry| range.contains(&entry.key)).cloned().collect();
        Snapshot { revision: self.revision, entries }
    }

    fn put(&mut self, key: Key, value: bytes::Bytes, lease: Option<LeaseId>) {
        self.revision.0 += 1;
        let entry = Entry { key: key.clone(), value, modified: self.revision, lease };
        self.entries.insert(key, entry);
        self.turned.send_replace(());
    }

    fn delete(&mut self, key: &Key) {
        if self.entries.remove(key).is_some() {
            self.revision.0 += 1;
            self.turned.send_replace(());
        }
    }

    fn end(&mut self, lease: LeaseId) -> bool {
        let held = self.entries.values().filter(|entry| entry.lease == Some(lease));
        for key in held.map(|entry| entry.key.clone()).collect::<Vec<_>>() {
            self.delete(&key);
        }
        self.leases.remove(&lease).is_some()
    }
}

/// A watch: what it has told, and what it tells next.
struct Reader {
    notebook: Notebook,
    range: Range,
    told: Snapshot,
    cuts: u64,
}

impl Reader {
    async fn next(mut self) -> Result<Option<(Batch, Self)>> {
        let progress_at = Instant::now() + can().watch_silence_max / 2;
        loop {
            let (now, until, mut turned) = {
                let pages = self.notebook.reach()?;
                if pages.cuts != self.cuts {
                    return Err(away());
                }
                let until = pages.leases.values().map(|(_, end)| *end).fold(progress_at, Instant::min);
                (pages.snapshot(&self.range), until, pages.turned.subscribe())
            };
            let changes = difference(&self.told.entries, &now.entries);
            self.told = now;
            if !changes.is_empty() || Instant::now() >= progress_at {
                return Ok(Some((Batch { revision: self.told.revision, changes }, self)));
            }
            let _ = timeout_at(until, turned.changed()).await;
        }
    }
}

/// What became of the entries.
fn difference(before: &[Entry], now: &[Entry]) -> Vec<Change> {
    let gone = before.iter().filter(|old| now.iter().all(|entry| entry.key != old.key));
    let new = now.iter().filter(|entry| !before.contains(entry));
    gone.map(|old| Change::Delete(old.key.clone())).chain(new.cloned().map(Change::Put)).collect()
}

#[async_trait]
impl Discovery for Notebook {
    async fn capabilities(&self) -> Result<DiscoveryCapabilities> {
        Ok(can())
    }

    async fn read(&self, range: Range) -> Result<Snapshot> {
        Ok(self.reach()?.snapshot(&range))
    }

    async fn commit(&self, txn: Txn) -> Result<Commit> {
        txn.check(can().atomic_keys_max)?;
        let limit = can().value_bytes_max;
        let mut pages = self.reach()?;
        for op in &txn.ops {
            match op {
                Op::Put { value, .. } if value.len() > limit => {
                    return Err(Error::payload_too_large(limit, value.len()));
                }
                Op::Put { lease: Some(lease), .. } if !pages.leases.contains_key(lease) => {
                    return Err(Error::lease_lost(*lease));
                }
                _ => {}
            }
        }
        let holds = |guard: &Guard| match guard {
            Guard::Absent(key) => !pages.entries.contains_key(key),
            Guard::Unchanged(key, at) => pages.entries.get(key).is_some_and(|entry| entry.modified == *at),
        };
        if !txn.guards.iter().all(holds) {
            return Ok(Commit::Refused);
        }
        for op in txn.ops {
            match op {
                Op::Put { key, value, lease } => pages.put(key, value, lease),
                Op::Delete { key } => pages.delete(&key),
            }
        }
        Ok(Commit::Applied(pages.revision))
    }

    async fn watch(&self, range: Range, start: Start) -> Result<Watch> {
        if let Start::After(_) = start {
            return Err(Error::unsupported("resuming a watch", "begin with a snapshot"));
        }
        let pages = self.reach()?;
        let (told, cuts) = (pages.snapshot(&range), pages.cuts);
        drop(pages);
        let base = Base::Snapshot(told.clone());
        let reader = Reader { notebook: self.clone(), range, told, cuts };
        // Ends with the first error.
        Ok(Watch { base, events: Box::pin(stream::try_unfold(reader, Reader::next)) })
    }

    async fn grant(&self, ttl: Duration) -> Result<Lease> {
        if ttl.is_zero() || ttl > TTL_MAX {
            return Err(Error::invalid("ttl", format!("{ttl:?}"), "allowed: above zero, up to a year"));
        }
        let mut pages = self.reach()?;
        pages.granted += 1;
        let lease = Lease { id: LeaseId(pages.granted), ttl: ttl.max(can().ttl_min) };
        pages.leases.insert(lease.id, (lease.ttl, Instant::now() + lease.ttl));
        Ok(lease)
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<Duration> {
        let mut pages = self.reach()?;
        let (ttl, end) = pages.leases.get_mut(&lease).ok_or_else(|| Error::lease_lost(lease))?;
        *end = Instant::now() + *ttl;
        Ok(*ttl)
    }

    async fn revoke(&self, lease: LeaseId) -> Result<()> {
        self.reach()?.end(lease).then_some(()).ok_or_else(|| Error::lease_lost(lease))
    }
}
