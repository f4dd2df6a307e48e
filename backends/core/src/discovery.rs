use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::{
    Commit, Entry, Key, Lease, LeaseId, Prefix, Range, Result, Revision, Snapshot, Start, Txn, Watch,
};

/// What a store can do. A backend starts from [`DiscoveryCapabilities::minimal`] and declares more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct DiscoveryCapabilities {
    /// How many keys one transaction may guard and write, at least 1.
    pub atomic_keys_max: usize,
    /// Can a write depend on another key being unchanged? Impossible below two atomic keys.
    pub fencing: bool,
    /// What a watch shows of several writes to one key.
    pub watch: WatchFidelity,
    /// What a read may miss.
    pub read: ReadConsistency,
    /// Can a watch go on after a revision?
    pub resume: bool,
    /// Do all keys of a lease that ended vanish at one revision?
    pub expiry_atomic: bool,
    /// The shortest time to live that is granted; less is raised to it.
    pub ttl_min: Duration,
    /// The largest value, in bytes.
    pub value_bytes_max: usize,
    /// A watch yields an item at least this often; after more silence its reader opens it anew.
    pub watch_silence_max: Duration,
}

/// What a watch shows of several writes to one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum WatchFidelity {
    /// Each write, in order.
    EveryRevision,
    /// At least the last one.
    Coalesced,
}

/// What a read may miss.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReadConsistency {
    /// Nothing that was acknowledged, to whomever, before the read began.
    Linearizable,
    /// The newest writes of others; it never goes back in time for one handle.
    Sequential,
}

impl DiscoveryCapabilities {
    /// The least a store may do: one key per transaction, coalesced watches, sequential reads, no resuming.
    pub fn minimal() -> Self {
        Self {
            atomic_keys_max: 1,
            fencing: false,
            watch: WatchFidelity::Coalesced,
            read: ReadConsistency::Sequential,
            resume: false,
            expiry_atomic: false,
            ttl_min: Duration::from_secs(1),
            value_bytes_max: 64 * 1024,
            watch_silence_max: Duration::from_secs(30),
        }
    }

    /// With transactions over several keys; two or more mean fencing.
    #[must_use]
    pub fn with_atomic_keys_max(mut self, keys: usize) -> Self {
        self.atomic_keys_max = keys.max(1);
        self.fencing = keys >= 2;
        self
    }

    /// With this fidelity of watches.
    #[must_use]
    pub fn with_watch(mut self, watch: WatchFidelity) -> Self {
        self.watch = watch;
        self
    }

    /// With this consistency of reads.
    #[must_use]
    pub fn with_read(mut self, read: ReadConsistency) -> Self {
        self.read = read;
        self
    }

    /// With watches that resume, or not.
    #[must_use]
    pub fn with_resume(mut self, resume: bool) -> Self {
        self.resume = resume;
        self
    }

    /// With leases whose keys vanish at one revision, or not.
    #[must_use]
    pub fn with_expiry_atomic(mut self, atomic: bool) -> Self {
        self.expiry_atomic = atomic;
        self
    }

    /// With this shortest time to live.
    #[must_use]
    pub fn with_ttl_min(mut self, ttl: Duration) -> Self {
        self.ttl_min = ttl;
        self
    }

    /// With values up to this size, in bytes.
    #[must_use]
    pub fn with_value_bytes_max(mut self, bytes: usize) -> Self {
        self.value_bytes_max = bytes;
        self
    }

    /// With this bound on a watch's silence.
    #[must_use]
    pub fn with_watch_silence_max(mut self, silence: Duration) -> Self {
        self.watch_silence_max = silence;
        self
    }
}

/// A store of keys with leases and watches.
///
/// # Contract
/// *One history.* The store is at one [`Revision`] at a time; every transaction that changes something moves
/// it forward. Grants, heartbeats, reads, refused and no-op transactions do not.
///
/// *Errors.* Effect none means that nothing happened and nothing will; unknown means that the write may have
/// been, or may yet be, executed at most once. A read or a watch that fails leaves nothing behind. While
/// there is no connection calls fail with [`Error::Unavailable`](crate::Error::Unavailable); they are never
/// queued to be executed later.
///
/// *Silence.* A store that stands still is noticed. Where there is a network, every call ends within a bound that
/// the backend documents, as `DeadlineExceeded` or `Unavailable`, and a watch ends once it has been silent for
/// longer than `watch_silence_max`.
///
/// *Cancellation.* Every method may be dropped at any await point. A dropped write has effect unknown; a
/// dropped [`grant`](Self::grant) may leave a lease that nobody keeps alive and that ends by itself; a
/// dropped [`watch`](Self::watch) leaves nothing.
///
/// *Concurrency.* Calls on one handle may overtake each other; who needs order awaits the first.
///
/// *No hidden loops.* An implementation does not renew leases, retry writes or resume watches by itself:
/// these loops live above the trait, once for all backends.
///
/// # Wrappers
/// Forward every method, and set `#[deny(clippy::missing_trait_methods)]` on the impl.
///
/// # Minimal implementation
/// The example `custom_backend` implements all of it in under 150 lines and passes `slipring-conformance`.
#[async_trait]
pub trait Discovery: Debug + Send + Sync + 'static {
    /// Reaches the backend and says what it can do. Waits, within a bound that the backend documents, until
    /// it is usable. The answer never changes for one handle.
    ///
    /// # Errors
    /// `Unavailable` when the bound has passed; `Unauthorized`; `Unsupported` for a server too old.
    async fn capabilities(&self) -> Result<DiscoveryCapabilities>;

    /// The entries of a range at one revision, in key order; all of them, however many. Linearizable where
    /// declared.
    ///
    /// # Errors
    /// `Unavailable`, `DeadlineExceeded`; effect none.
    async fn read(&self, range: Range) -> Result<Snapshot>;

    /// Executes a transaction: all guards hold and all operations happen at one revision, or nothing does.
    /// Watchers see the changes in the order of the operations. A transaction that changes nothing (no
    /// operations, or deletions of keys that do not exist) is applied at the current revision.
    ///
    /// # Errors
    /// `Invalid` (a key written twice), `Unsupported` (over `atomic_keys_max`), `PayloadTooLarge`,
    /// `LeaseLost` (a lease that does not exist): effect none. `Unavailable` and `DeadlineExceeded` have
    /// effect unknown if the request may have left.
    async fn commit(&self, txn: Txn) -> Result<Commit>;

    /// Watches a range. With [`Start::Snapshot`] the base is a snapshot and the events are exactly what
    /// follows it; with [`Start::After`] the base is `Resumed` with the same revision.
    ///
    /// Events come in the order of their revisions, each revision once and whole, and only for keys in the
    /// range. An item (perhaps an empty [`Batch`](crate::Batch)) comes at least every `watch_silence_max`.
    /// The stream never ends silently: its last item is an error, unless the reader drops it. A slow reader
    /// never delays others and never costs unbounded memory: it is given `Compacted`.
    ///
    /// # Errors
    /// `Compacted`, here or as the last item of the stream, if the revision is too old or is beyond the
    /// store's: the one way back is a snapshot. `Unsupported` for `After` without `resume`. `Unavailable`.
    async fn watch(&self, range: Range, start: Start) -> Result<Watch>;

    /// Grants a lease of at least `ttl`. Its id was never used before.
    ///
    /// # Errors
    /// `Invalid` if the ttl is zero or too long for the backend. `Unavailable`; effect unknown means that a
    /// lease may exist and will end by itself.
    async fn grant(&self, ttl: Duration) -> Result<Lease>;

    /// One heartbeat: the lease lives for the returned time from a moment between the call and its answer.
    /// A lease never ends earlier than that, whatever else happens.
    ///
    /// # Errors
    /// `LeaseLost` if the lease does not exist, or is past its end even if its keys still stand: a heartbeat
    /// never revives. Anything else leaves the lease as it was or renewed.
    async fn keep_alive(&self, lease: LeaseId) -> Result<Duration>;

    /// Ends the lease and deletes its keys, in key order and at one revision where `expiry_atomic`.
    ///
    /// # Errors
    /// `LeaseLost` if there is no such lease (also the second time). `Unavailable`, effect unknown.
    async fn revoke(&self, lease: LeaseId) -> Result<()>;
}

/// What is handy, written once over the primitives.
#[async_trait]
pub trait DiscoveryExt: Discovery {
    /// The entry under a key, if there is one.
    async fn entry(&self, key: &Key) -> Result<Option<Entry>> {
        Ok(self.read(Range::Key(key.clone())).await?.entries.pop())
    }

    /// All entries below a prefix.
    async fn list(&self, prefix: &Prefix) -> Result<Vec<Entry>> {
        Ok(self.read(Range::Prefix(prefix.clone())).await?.entries)
    }

    /// Writes a key, whatever it was, and returns the revision.
    async fn put(&self, key: Key, value: Bytes, lease: Option<LeaseId>) -> Result<Revision> {
        match self.commit(Txn::new().put(key, value, lease)).await? {
            Commit::Applied(revision) => Ok(revision),
            Commit::Refused => unreachable!("a transaction without guards cannot be refused"),
        }
    }

    /// Writes a key if it does not exist; `Refused` if it does.
    async fn create(&self, key: Key, value: Bytes, lease: Option<LeaseId>) -> Result<Commit> {
        self.commit(Txn::new().absent(key.clone()).put(key, value, lease)).await
    }

    /// Deletes a key, if it exists.
    async fn delete(&self, key: Key) -> Result<()> {
        self.commit(Txn::new().delete(key)).await.map(|_| ())
    }
}

impl<D: Discovery + ?Sized> DiscoveryExt for D {}

macro_rules! forward {
    ($pointer:ident) => {
        #[async_trait]
        #[deny(clippy::missing_trait_methods)]
        impl<D: Discovery + ?Sized> Discovery for $pointer<D> {
            async fn capabilities(&self) -> Result<DiscoveryCapabilities> {
                (**self).capabilities().await
            }

            async fn read(&self, range: Range) -> Result<Snapshot> {
                (**self).read(range).await
            }

            async fn commit(&self, txn: Txn) -> Result<Commit> {
                (**self).commit(txn).await
            }

            async fn watch(&self, range: Range, start: Start) -> Result<Watch> {
                (**self).watch(range, start).await
            }

            async fn grant(&self, ttl: Duration) -> Result<Lease> {
                (**self).grant(ttl).await
            }

            async fn keep_alive(&self, lease: LeaseId) -> Result<Duration> {
                (**self).keep_alive(lease).await
            }

            async fn revoke(&self, lease: LeaseId) -> Result<()> {
                (**self).revoke(lease).await
            }
        }
    };
}

forward!(Arc);
forward!(Box);
