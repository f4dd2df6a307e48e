//! A world in memory as the kit wants it.

use std::sync::Arc;

use slipring_conformance::{Action, Fixture};
use slipring_core::{Discovery, Environment, Messaging, Result, SystemEnvironment, async_trait};
use slipring_memory::{MemoryWorld, Profile};

#[derive(Debug)]
pub(crate) struct WorldFixture {
    world: MemoryWorld,
    environment: Arc<dyn Environment>,
}

impl WorldFixture {
    /// A fresh world with this profile.
    pub(crate) fn of(profile: Profile) -> Arc<Self> {
        let environment: Arc<dyn Environment> = Arc::new(SystemEnvironment::new());
        Arc::new(Self { world: MemoryWorld::with(profile, environment.clone()), environment })
    }
}

#[async_trait]
impl Fixture for WorldFixture {
    fn environment(&self) -> Arc<dyn Environment> {
        self.environment.clone()
    }

    async fn discovery(&self) -> Result<Option<Arc<dyn Discovery>>> {
        Ok(Some(Arc::new(self.world.discovery())))
    }

    async fn messaging(&self) -> Result<Option<Arc<dyn Messaging>>> {
        Ok(Some(Arc::new(self.world.messaging())))
    }

    fn can(&self, action: Action) -> bool {
        action == Action::Compact
    }

    async fn act(&self, action: Action) -> Result<()> {
        assert_eq!(action, Action::Compact);
        self.world.compact();
        Ok(())
    }
}
