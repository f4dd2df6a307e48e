//! Which backends a scenario runs on.

use std::sync::Arc;
use std::time::Duration;

use slipring::record::Record;
use slipring::{Discovery, DistributedRuntime, MemoryWorld, Messaging, Plane, Settings, SystemEnvironment};
use slipring_core::{Entry, Range};
use slipring_etcd::EtcdDiscovery;
use slipring_nats::NatsMessaging;
use slipring_servers::{Etcd, Nats, Version};
use tokio::time::Instant;

use crate::worker::Addresses;

/// The lease's time to live: as short as etcd grants with the elections of a test, twice over.
pub(crate) const TTL: Duration = Duration::from_secs(2);
/// The endpoint that is served and called.
pub(crate) const WORK: &str = "fleet/worker/work";

/// A store and a bus, each in memory or a real server that lives as long as this value.
#[derive(Debug)]
pub(crate) struct Backends {
    world: MemoryWorld,
    /// The store, if it is a real one.
    pub(crate) etcd: Option<Etcd>,
    /// The bus, if it is a real one.
    pub(crate) nats: Option<Nats>,
}

impl Backends {
    /// Everything in memory.
    pub(crate) fn memory() -> Self {
        Self { world: MemoryWorld::new(), etcd: None, nats: None }
    }

    /// With a real store.
    pub(crate) async fn with_etcd(self, version: Version) -> Self {
        Self { etcd: Some(Etcd::start(version).await), ..self }
    }

    /// With a real bus.
    pub(crate) async fn with_nats(self, version: Version) -> Self {
        Self { nats: Some(Nats::start(version).await), ..self }
    }

    /// Where the servers are; both are real ones.
    pub(crate) fn addresses(&self) -> Addresses {
        let (etcd, nats) = (self.etcd.as_ref().unwrap(), self.nats.as_ref().unwrap());
        Addresses { etcd: vec![etcd.endpoint()], nats: nats.endpoint(), plane: Plane::Broker }
    }

    /// A handle to the store on a connection of its own, as another process would have it.
    pub(crate) fn discovery(&self) -> Arc<dyn Discovery> {
        match &self.etcd {
            Some(etcd) => Arc::new(etcd_at([etcd.endpoint()])),
            None => Arc::new(self.world.discovery()),
        }
    }

    /// A handle to the bus on a connection of its own.
    pub(crate) fn messaging(&self) -> Arc<dyn Messaging> {
        match &self.nats {
            Some(nats) => Arc::new(nats_at(nats.endpoint())),
            None => Arc::new(self.world.messaging()),
        }
    }

    /// A runtime on connections of its own, with a short lease.
    pub(crate) async fn runtime(&self) -> DistributedRuntime {
        self.runtime_with(settings(|_| {})).await
    }

    /// A runtime on connections of its own.
    pub(crate) async fn runtime_with(&self, settings: Settings) -> DistributedRuntime {
        let builder = DistributedRuntime::builder().discovery(self.discovery()).messaging(self.messaging());
        builder.settings(settings).build().await.unwrap()
    }

    /// The records that are in the store, by key.
    pub(crate) async fn records(&self) -> Vec<Record> {
        records(&*self.discovery()).await
    }
}

/// A handle to an etcd on a connection of its own.
pub(crate) fn etcd_at(endpoints: impl IntoIterator<Item = String>) -> EtcdDiscovery {
    let config = slipring_etcd::Config::new(endpoints);
    EtcdDiscovery::new(config, Arc::new(SystemEnvironment::new())).unwrap()
}

/// A handle to a nats-server on a connection of its own.
pub(crate) fn nats_at(server: String) -> NatsMessaging {
    let config = slipring_nats::Config::new([server]);
    NatsMessaging::new(config, Arc::new(SystemEnvironment::new())).unwrap()
}

/// Settings with a short lease, and with some more of them changed.
pub(crate) fn settings(change: impl FnOnce(&mut Settings)) -> Settings {
    let mut settings = Settings::default();
    settings.lease_ttl = TTL;
    change(&mut settings);
    settings
}

/// The records that are in a store, by key.
pub(crate) async fn records(store: &dyn Discovery) -> Vec<Record> {
    let entries = store.read(Range::All).await.unwrap().entries;
    entries.iter().filter_map(decode).collect()
}

/// The record that an entry holds, if it is one.
pub(crate) fn decode(entry: &Entry) -> Option<Record> {
    Record::decode(&entry.key, &entry.value).ok()
}

/// Waits until a condition holds; fails after half a minute, with what it was waiting for.
pub(crate) async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let limit = Instant::now() + Duration::from_secs(30);
    while !condition().await {
        assert!(Instant::now() < limit, "it never happens: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
