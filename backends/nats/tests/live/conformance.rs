//! Messaging on NATS keeps the contract, on the old server and on the new one.

use std::sync::Arc;

use slipring_conformance::{Action, Fixture, Need, Suite};
use slipring_core::{Environment, Error, Messaging, Result, SystemEnvironment, async_trait};
use slipring_nats::{Config, NatsMessaging};
use slipring_servers::{Nats, Proxied, Version};

/// How many cases run side by side.
const CONCURRENT_MAX: usize = 4;

#[derive(Debug)]
struct NatsFixture {
    server: Proxied<Nats>,
    environment: Arc<dyn Environment>,
}

impl NatsFixture {
    async fn start(version: Version) -> Arc<Self> {
        let server = Proxied::new(Nats::start(version).await).await;
        Arc::new(Self { server, environment: Arc::new(SystemEnvironment::new()) })
    }
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

    fn can(&self, action: Action) -> bool {
        action != Action::Compact
    }

    async fn act(&self, action: Action) -> Result<()> {
        match action {
            Action::Stop => self.server.stop().await,
            Action::Start => self.server.start().await,
            Action::Pause => self.server.pause().await,
            Action::Resume => self.server.resume().await,
            Action::Cut => self.server.cut().await,
            other => return Err(Error::unsupported(format!("{other:?}"), "there is no history")),
        }
        Ok(())
    }
}

#[expect(clippy::print_stdout, reason = "what was measured is of interest, also where all passes")]
async fn passes(version: Version) {
    let whole = Suite::new().only(|case| case.needs.contains(&Need::Messaging));
    let suite = whole.with_concurrent_max(CONCURRENT_MAX);
    let report = suite.run_each(async || NatsFixture::start(version).await).await;
    println!("{report}");
    report.assert_passed(&[]);
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
