//! A server, handles to it, and what other clients see of it.

use std::sync::Arc;
use std::time::Duration;

use slipring_conformance::{Action, Fixture};
use slipring_core::{
    Discovery, DiscoveryExt, Effect, Environment, Error, Key, Result, Revision, SystemEnvironment,
    async_trait,
};
use slipring_etcd::{Config, EtcdDiscovery};
use slipring_servers::{Etcd, Version};

/// How long a test waits for what has to come.
pub(crate) const WAIT_MAX: Duration = Duration::from_secs(60);

/// One etcd, for the conformance kit.
#[derive(Debug)]
pub(crate) struct EtcdFixture {
    server: Etcd,
    environment: Arc<dyn Environment>,
}

impl EtcdFixture {
    pub(crate) async fn start(version: Version) -> Arc<Self> {
        Arc::new(Self { server: Etcd::start(version).await, environment: system() })
    }
}

#[async_trait]
impl Fixture for EtcdFixture {
    fn environment(&self) -> Arc<dyn Environment> {
        self.environment.clone()
    }

    async fn discovery(&self) -> Result<Option<Arc<dyn Discovery>>> {
        let config = Config::new([self.server.endpoint()]);
        Ok(Some(Arc::new(EtcdDiscovery::new(config, self.environment.clone())?)))
    }

    fn can(&self, action: Action) -> bool {
        action == Action::Compact
    }

    async fn act(&self, action: Action) -> Result<()> {
        match action {
            Action::Compact => {
                compact(&self.server.endpoint()).await;
                Ok(())
            }
            other => Err(Error::unsupported(format!("{other:?}"), "not here")),
        }
    }
}

pub(crate) fn system() -> Arc<dyn Environment> {
    Arc::new(SystemEnvironment::new())
}

/// A handle, and a server to it that is ready.
pub(crate) async fn handle(config: Config) -> EtcdDiscovery {
    let store = EtcdDiscovery::new(config, system()).unwrap();
    store.capabilities().await.unwrap();
    store
}

/// A client that is not ours.
pub(crate) async fn raw(endpoint: &str) -> etcd_client::Client {
    etcd_client::Client::connect([endpoint], None).await.unwrap()
}

/// Forgets all before the current revision, which is returned.
pub(crate) async fn compact(endpoint: &str) -> Revision {
    let mut client = raw(endpoint).await;
    let now = client.get("none", None).await.unwrap().header().unwrap().revision();
    client.compact(now, None).await.unwrap();
    Revision(now.unsigned_abs())
}

pub(crate) fn key(text: impl AsRef<str>) -> Key {
    Key::new(text).unwrap()
}

pub(crate) async fn put(store: &EtcdDiscovery, name: impl AsRef<str>, value: impl Into<Vec<u8>>) -> Revision {
    store.put(key(name), value.into().into(), None).await.unwrap()
}

/// Nothing happened and nothing will, or nobody knows?
pub(crate) fn effect<T: std::fmt::Debug>(result: Result<T>) -> Effect {
    result.unwrap_err().effect()
}
