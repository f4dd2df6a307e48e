use std::time::Duration;

use slipring_core::mutation::Mutated;
use slipring_core::{DiscoveryCapabilities, MessagingCapabilities, ReadConsistency, Subject, WatchFidelity};

/// What a world can do and how it behaves. The default is [`Profile::exact`].
///
/// The capabilities are not only declared: what is switched off is refused, and what is weaker is weaker.
/// The one exception is `read`: reads are linearizable, which a reader of a `Sequential` store cannot rely on.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Profile {
    /// What the store declares and enforces.
    pub discovery: DiscoveryCapabilities,
    /// What the bus declares and enforces.
    pub messaging: MessagingCapabilities,
    /// The largest transaction, in bytes: the keys of its guards and writes, and the values.
    pub txn_bytes_max: usize,
    /// Times to live are raised to whole multiples of this; zero takes them as they are.
    pub ttl_unit: Duration,
    /// How often the store looks for leases that ended. A lease is removed at the first look at or after its
    /// end; zero means exactly at its end. The phase of the looks comes from the seed.
    pub expiry_granularity: Duration,
    /// How many leases one look removes at most; the others wait for the next. Without meaning if
    /// `expiry_granularity` is zero.
    pub expiries_per_scan: usize,
    /// How many revisions of history are kept for watches, at least 1.
    pub history_revisions_max: usize,
    /// After how much silence a watch says how far it is.
    pub watch_progress_interval: Duration,
    /// What becomes of the watches when the store is restored or emptied.
    pub on_restore: OnRestore,
    /// How fast the broker's clock runs, in millionths of the clock of its users, at least 1.
    pub clock_rate_ppm: u32,
    #[doc(hidden)]
    pub mutation: Mutated,
}

/// What becomes of the watches when the store is restored or emptied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnRestore {
    /// They never yield anything again, not even an error.
    Silence,
    /// They end with `Unavailable`.
    End,
}

impl Profile {
    /// Everything at once and exactly on time: leases from 1 ms up that end to the moment, transactions over
    /// 128 keys, values and messages up to 1 MiB. For programs in one process and for unit tests.
    pub fn exact() -> Self {
        Self {
            discovery: DiscoveryCapabilities::minimal()
                .with_atomic_keys_max(128)
                .with_watch(WatchFidelity::EveryRevision)
                .with_read(ReadConsistency::Linearizable)
                .with_resume(true)
                .with_expiry_atomic(true)
                .with_ttl_min(Duration::from_millis(1))
                .with_value_bytes_max(1024 * 1024)
                .with_watch_silence_max(Duration::from_secs(15)),
            messaging: MessagingCapabilities::minimal()
                .with_queue_groups(true)
                .with_wildcards(true)
                .with_headers(true)
                .with_no_responders(true)
                .with_payload_bytes_max(1024 * 1024)
                .with_subject_bytes_max(Subject::BYTES_MAX),
            txn_bytes_max: usize::MAX,
            ttl_unit: Duration::ZERO,
            expiry_granularity: Duration::ZERO,
            expiries_per_scan: 500,
            history_revisions_max: 10_000,
            watch_progress_interval: Duration::from_secs(5),
            on_restore: OnRestore::Silence,
            clock_rate_ppm: 1_000_000,
            mutation: Mutated::default(),
        }
    }

    /// The store behaves as etcd was measured to: leases of 2 s and more, in whole seconds, that end up to half
    /// a second late, at most 500 of them each half second. The bus is that of [`Profile::exact`].
    pub fn etcd() -> Self {
        let exact = Self::exact();
        let discovery =
            exact.discovery.with_ttl_min(Duration::from_secs(2)).with_value_bytes_max(1024 * 1024);
        Self {
            discovery,
            // 1.5 MiB for the whole request, framing included.
            txn_bytes_max: 1536 * 1024 - 4096,
            ttl_unit: Duration::from_secs(1),
            expiry_granularity: Duration::from_millis(500),
            ..exact
        }
    }

    /// The bus has the limits of a NATS server as it is installed: 1 MiB for headers and payload. The store
    /// is that of [`Profile::exact`].
    pub fn nats() -> Self {
        let exact = Self::exact();
        let messaging = exact.messaging.with_payload_bytes_max(1024 * 1024);
        Self { messaging, ..exact }
    }

    /// With these capabilities of the store.
    #[must_use]
    pub fn with_discovery(mut self, capabilities: DiscoveryCapabilities) -> Self {
        self.discovery = capabilities;
        self
    }

    /// With these capabilities of the bus.
    #[must_use]
    pub fn with_messaging(mut self, capabilities: MessagingCapabilities) -> Self {
        self.messaging = capabilities;
        self
    }

    /// With transactions up to this size, in bytes.
    #[must_use]
    pub fn with_txn_bytes_max(mut self, bytes: usize) -> Self {
        self.txn_bytes_max = bytes;
        self
    }

    /// With times to live in whole multiples of this; zero takes them as they are.
    #[must_use]
    pub fn with_ttl_unit(mut self, unit: Duration) -> Self {
        self.ttl_unit = unit;
        self
    }

    /// With looks for ended leases this far apart; zero ends leases exactly on time.
    #[must_use]
    pub fn with_expiry_granularity(mut self, granularity: Duration) -> Self {
        self.expiry_granularity = granularity;
        self
    }

    /// With this bound on the leases that one look removes, at least 1.
    #[must_use]
    pub fn with_expiries_per_scan(mut self, leases: usize) -> Self {
        self.expiries_per_scan = leases.max(1);
        self
    }

    /// With this many revisions of history, at least 1.
    #[must_use]
    pub fn with_history_revisions_max(mut self, revisions: usize) -> Self {
        self.history_revisions_max = revisions.max(1);
        self
    }

    /// With progress after this much silence; at least 1 ms.
    #[must_use]
    pub fn with_watch_progress_interval(mut self, interval: Duration) -> Self {
        self.watch_progress_interval = interval.max(Duration::from_millis(1));
        self
    }

    /// With this fate of watches when the store is restored or emptied.
    #[must_use]
    pub fn with_on_restore(mut self, on_restore: OnRestore) -> Self {
        self.on_restore = on_restore;
        self
    }

    /// With a broker whose clock runs at this rate, in millionths, at least 1.
    #[must_use]
    pub fn with_clock_rate_ppm(mut self, ppm: u32) -> Self {
        self.clock_rate_ppm = ppm.max(1);
        self
    }
}

impl Default for Profile {
    fn default() -> Self {
        Self::exact()
    }
}
