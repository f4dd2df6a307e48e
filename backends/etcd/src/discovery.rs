use std::sync::Arc;
use std::time::Duration;

use slipring_core::{
    Commit, Discovery, DiscoveryCapabilities, Environment, Error, Lease, LeaseId, Range, Result, Snapshot,
    Start, Txn, Watch, async_trait,
};

use crate::Config;

/// A store of keys, leases and watches on etcd. Clones share one connection.
#[derive(Debug, Clone)]
pub struct EtcdDiscovery {
    _config: Config,
    _environment: Arc<dyn Environment>,
}

impl EtcdDiscovery {
    /// A handle. Nothing is dialled before the first call.
    ///
    /// # Errors
    /// [`Invalid`](Error::Invalid) naming what is wrong with the configuration.
    pub fn new(config: Config, environment: Arc<dyn Environment>) -> Result<Self> {
        Ok(Self { _config: config, _environment: environment })
    }
}

fn absent<T>() -> Result<T> {
    Err(Error::unsupported("etcd", "under construction"))
}

#[async_trait]
impl Discovery for EtcdDiscovery {
    async fn capabilities(&self) -> Result<DiscoveryCapabilities> {
        absent()
    }
    async fn read(&self, _range: Range) -> Result<Snapshot> {
        absent()
    }
    async fn commit(&self, _txn: Txn) -> Result<Commit> {
        absent()
    }
    async fn watch(&self, _range: Range, _start: Start) -> Result<Watch> {
        absent()
    }
    async fn grant(&self, _ttl: Duration) -> Result<Lease> {
        absent()
    }
    async fn keep_alive(&self, _lease: LeaseId) -> Result<Duration> {
        absent()
    }
    async fn revoke(&self, _lease: LeaseId) -> Result<()> {
        absent()
    }
}
