//! Messaging on NATS keeps the contract, on the old server and on the new one.

use std::sync::Arc;

use slipring_conformance::{Fixture, Suite};
use slipring_core::{Environment, Messaging, Result, SystemEnvironment, async_trait};
use slipring_nats::{Config, NatsMessaging};
use slipring_servers::{Nats, Version};

#[derive(Debug)]
struct NatsFixture {
    server: Nats,
    environment: Arc<dyn Environment>,
}

#[async_trait]
impl Fixture for NatsFixture {
    fn environment(&self) -> Arc<dyn Environment> {
        self.environment.clone()
    }

    async fn messaging(&self) -> Result<Option<Arc<dyn Messaging>>> {
        let config = Config::new([self.server.endpoint()]);
        Ok(Some(Arc::new(NatsMessaging::new(config, self.environment())?)))
    }
}

async fn passes(version: Version) {
    let fixture =
        NatsFixture { server: Nats::start(version).await, environment: Arc::new(SystemEnvironment) };
    let has_store = |group| ["keys", "leases", "revisions", "transactions", "watches"].contains(&group);
    let suite = Suite::new().only(|case| !has_store(case.group));
    let report = suite.run(Arc::new(fixture)).await;
    report.assert_passed(&["store_declares_what_it_can", "store_works_behind_pointers"]);
}

/// The kit passes on nats-server 2.9.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_old_server_passes() {
    passes(Version::Debian).await;
}

/// The kit passes on the newer nats-server.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_newer_server_passes() {
    passes(Version::Newer).await;
}

/// It does not depend on a second thread.
#[tokio::test]
async fn one_thread_is_enough() {
    passes(Version::Newer).await;
}
