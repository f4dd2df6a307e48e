//! A link that is open changes nothing: what is behind it keeps all contracts.

use std::sync::Arc;

use slipring_conformance::{Action, Fixture};
use slipring_core::{Discovery, Environment, Messaging, Result, async_trait};
use slipring_memory::{MemoryWorld, Profile};
use slipring_sim::{Link, SimEnvironment};

/// A world in memory behind one link, in an environment out of one seed.
#[derive(Debug)]
struct Linked {
    world: MemoryWorld,
    link: Link,
    environment: Arc<dyn Environment>,
}

#[async_trait]
impl Fixture for Linked {
    fn environment(&self) -> Arc<dyn Environment> {
        self.environment.clone()
    }

    async fn discovery(&self) -> Result<Option<Arc<dyn Discovery>>> {
        Ok(Some(self.link.discovery(Arc::new(self.world.discovery()))))
    }

    async fn messaging(&self) -> Result<Option<Arc<dyn Messaging>>> {
        Ok(Some(self.link.messaging(Arc::new(self.world.messaging()))))
    }

    fn can(&self, action: Action) -> bool {
        action == Action::Compact
    }

    async fn act(&self, _compact: Action) -> Result<()> {
        self.world.compact();
        Ok(())
    }
}

/// The whole kit passes through an open link, and nothing is skipped.
#[tokio::test(start_paused = true)]
async fn an_open_link_keeps_all_contracts() {
    let environment: Arc<dyn Environment> = Arc::new(SimEnvironment::new(7));
    let world = MemoryWorld::with(Profile::etcd(), environment.clone());
    let linked = Linked { world, link: Link::new(), environment };
    slipring_conformance::run(Arc::new(linked)).await.assert_passed(&[]);
}
