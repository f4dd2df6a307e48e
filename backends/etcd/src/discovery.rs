use std::sync::Arc;
use std::time::Duration;

use slipring_core::{
    Commit, Discovery, DiscoveryCapabilities, Effect, Environment, Error, Lease, LeaseId, Range,
    ReadConsistency, Result, Snapshot, Start, Txn, Watch, WatchFidelity, async_trait,
};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::Config;
use crate::connection::{Channels, Connection, Purpose, no_answer};
use crate::dialer::{BACKOFF_MAX, BACKOFF_MIN, Dialer, jittered};
use crate::error::{ETCD, error_of, is_forbidden};
use crate::kv::{self, ATOMIC_KEYS_MAX, Keys, VALUE_BYTES_MAX};
use crate::lease;
use crate::watch::Watches;

/// The oldest version that works, as (major, minor).
const VERSION_MIN: (u32, u32) = (3, 4);

/// A store of keys, leases and watches on etcd. Clones share its connections.
#[derive(Debug, Clone)]
pub struct EtcdDiscovery(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    config: Arc<Config>,
    environment: Arc<dyn Environment>,
    keys: Keys,
    calls: Arc<Connection>,
    heartbeats: Connection,
    watches: Watches,
}

impl EtcdDiscovery {
    /// A handle. Nothing is dialled before the first call.
    ///
    /// # Errors
    /// [`Invalid`](Error::Invalid) naming what is wrong with the configuration;
    /// [`Unsupported`](Error::Unsupported) for TLS that was not built in.
    pub fn new(config: Config, environment: Arc<dyn Environment>) -> Result<Self> {
        config.check()?;
        let calls = Channels::Dialled(Dialer::new(&config, environment.clone())?);
        let heartbeats = Channels::Dialled(Dialer::new(&config, environment.clone())?);
        Ok(Self::on(config, environment, calls, heartbeats))
    }

    /// A handle on a channel that somebody else made, for calls and heartbeats alike.
    ///
    /// # Errors
    /// [`Invalid`](Error::Invalid) naming what is wrong with the configuration.
    #[cfg(feature = "_channel")]
    #[doc(hidden)]
    pub fn with_channel(
        config: Config,
        environment: Arc<dyn Environment>,
        channel: etcd_client::Channel,
    ) -> Result<Self> {
        config.check()?;
        let channels = Channels::Given(channel);
        Ok(Self::on(config, environment, channels.clone(), channels))
    }

    fn on(config: Config, environment: Arc<dyn Environment>, calls: Channels, beats: Channels) -> Self {
        let keys = Keys::new(config.prefix.as_ref());
        let config = Arc::new(config);
        let connection =
            |purpose, channels| Connection::new(purpose, config.clone(), environment.clone(), channels);
        let calls = Arc::new(connection(Purpose::Calls, calls));
        let heartbeats = connection(Purpose::Heartbeats, beats);
        let watches = Watches::new(config.clone(), environment.clone(), calls.clone(), keys.clone());
        Self(Arc::new(Shared { config, environment, keys, calls, heartbeats, watches }))
    }

    /// Is a server there that is new enough, lets us in, and has a leader?
    async fn probe(&self) -> Result<()> {
        let request = |client: etcd_client::Client| async move { client.maintenance_client().status().await };
        let status = self.0.calls.call(Effect::None, request).await?;
        check_version(status.map_err(|error| error_of(&error, Effect::None))?.version())?;
        let nobody = slipring_core::Key::new("slipring/probe").expect("it is a key");
        match kv::read(&self.0.calls, &self.0.keys, &Range::Key(nobody)).await {
            // We are let in, but to other keys; and there is a leader, who is asked before permissions count.
            Err(Error::Unauthorized { cause, .. }) if is_forbidden(&cause) => Ok(()),
            other => other.map(drop),
        }
    }
}

#[async_trait]
impl Discovery for EtcdDiscovery {
    /// Waits for [`Config::startup_timeout`]. What is declared is what every supported version does with its
    /// default limits; `ttl_min` is the shortest that can be asked for, and a server with slow elections
    /// grants more (2 s by default), as the granted lease says.
    async fn capabilities(&self) -> Result<DiscoveryCapabilities> {
        let after = self.0.config.startup_timeout;
        let deadline = Instant::now() + after;
        let mut pause = BACKOFF_MIN;
        let mut problem = None;
        loop {
            let error = match timeout_at(deadline, self.probe()).await {
                Ok(Ok(())) => break,
                Ok(Err(error @ Error::Unavailable { .. })) => error,
                Ok(Err(error)) => return Err(error),
                Err(_) => {
                    let waited = || Error::unavailable(ETCD, no_answer(after), Effect::None);
                    return Err(problem.unwrap_or_else(waited));
                }
            };
            if problem.is_none() {
                let endpoints = self.0.config.endpoints.join(", ");
                tracing::warn!(endpoints, %error, "waiting for etcd, for up to {after:?}");
            }
            problem = Some(error);
            sleep(jittered(pause, self.0.environment.random("etcd backoff"))).await;
            pause = (pause * 2).min(BACKOFF_MAX);
        }
        Ok(DiscoveryCapabilities::minimal()
            .with_atomic_keys_max(ATOMIC_KEYS_MAX)
            .with_watch(WatchFidelity::EveryRevision)
            .with_read(ReadConsistency::Linearizable)
            .with_resume(true)
            .with_expiry_atomic(true)
            .with_ttl_min(Duration::from_secs(1))
            .with_value_bytes_max(VALUE_BYTES_MAX)
            .with_watch_silence_max(self.0.config.watch_silence_max))
    }

    async fn read(&self, range: Range) -> Result<Snapshot> {
        kv::read(&self.0.calls, &self.0.keys, &range).await
    }

    async fn commit(&self, txn: Txn) -> Result<Commit> {
        kv::commit(&self.0.calls, &self.0.keys, txn).await
    }

    async fn watch(&self, range: Range, start: Start) -> Result<Watch> {
        self.0.watches.watch(range, start).await
    }

    async fn grant(&self, ttl: Duration) -> Result<Lease> {
        lease::grant(&self.0.calls, &*self.0.environment, ttl).await
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<Duration> {
        let bound = self.0.config.call_timeout;
        let beat = timeout(bound, lease::keep_alive(&self.0.heartbeats, lease));
        beat.await.unwrap_or_else(|_| Err(Error::unavailable(ETCD, no_answer(bound), Effect::Unknown)))
    }

    async fn revoke(&self, lease: LeaseId) -> Result<()> {
        lease::revoke(&self.0.calls, lease).await
    }
}

fn check_version(version: &str) -> Result<()> {
    let mut parts = version.split('.').map(|part| part.parse::<u32>().ok());
    match (parts.next().flatten(), parts.next().flatten()) {
        (Some(major), Some(minor)) if (major, minor) >= VERSION_MIN => Ok(()),
        _ => {
            let (major, minor) = VERSION_MIN;
            let hint = format!("slipring needs {major}.{minor} or newer: upgrade the cluster");
            Err(Error::unsupported(format!("etcd {version:?}"), hint))
        }
    }
}
