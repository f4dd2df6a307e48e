//! The adapter on the simulated server keeps all contracts of messaging, as on real ones.

use std::sync::Arc;

use slipring_conformance::{Action, Fixture, Need, Suite};
use slipring_core::{Environment, Error, Messaging, Result, SystemEnvironment, async_trait};
use slipring_nats::{Config, NatsMessaging};
use slipring_sim_nats::{Options, Version};

use crate::loopback::Loopback;

/// How many cases run side by side.
const CONCURRENT_MAX: usize = 4;

#[derive(Debug)]
struct Simulated(Loopback);

#[async_trait]
impl Fixture for Simulated {
    fn environment(&self) -> Arc<dyn Environment> {
        Arc::new(SystemEnvironment::new())
    }

    async fn messaging(&self) -> Result<Option<Arc<dyn Messaging>>> {
        let config = Config::new([self.0.endpoint()]);
        Ok(Some(Arc::new(NatsMessaging::new(config, self.environment())?)))
    }

    fn can(&self, action: Action) -> bool {
        action != Action::Compact
    }

    async fn act(&self, action: Action) -> Result<()> {
        match action {
            Action::Stop => self.0.end().await,
            Action::Start => self.0.begin().await,
            Action::Pause => self.0.nats.pause(),
            Action::Resume => self.0.nats.resume(),
            Action::Cut => self.0.nats.cut().await,
            other => return Err(Error::unsupported(format!("{other:?}"), "there is no history")),
        }
        Ok(())
    }
}

async fn passes(version: Version) {
    let whole = Suite::new().only(|case| case.needs.contains(&Need::Messaging));
    let suite = whole.with_concurrent_max(CONCURRENT_MAX);
    let start = async || Arc::new(Simulated(Loopback::start(Options::new(version)).await));
    let report = suite.run_each(start).await;
    println!("{version:?}: {report}");
    report.assert_passed(&[]);
}

/// The kit passes whole on a simulated nats-server 2.9, also while it is away, stands still, or loses connections.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_kit_passes_on_2_9() {
    passes(Version::V2_9).await;
}

/// The kit passes whole on a simulated nats-server 2.15; a second thread is not needed.
#[tokio::test]
async fn the_kit_passes_on_2_15() {
    passes(Version::V2_15).await;
}
