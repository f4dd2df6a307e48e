//! A world in memory behind one link, in an environment out of one seed.

use std::sync::Arc;

use slipring_conformance::{Action, Fixture};
use slipring_core::{Discovery, Environment, Messaging, Result, async_trait};
use slipring_memory::{MemoryWorld, Profile};
use slipring_sim::{Link, SimEnvironment};

use crate::bounded::{BoundedDiscovery, BoundedMessaging};

/// To whoever looks through the link, a server that stopped is one whose connections are cut and that takes no
/// new ones, and a server that stands still is one that is silent.
#[derive(Debug)]
pub(crate) struct Linked {
    pub(crate) world: MemoryWorld,
    pub(crate) link: Link,
    environment: Arc<dyn Environment>,
}

impl Linked {
    pub(crate) fn new() -> Self {
        let environment: Arc<dyn Environment> = Arc::new(SimEnvironment::new(7));
        let world = MemoryWorld::with(Profile::etcd(), environment.clone());
        Self { world, link: Link::new(), environment }
    }

    /// A store that waits for ever when the link is silent.
    pub(crate) fn unbounded_discovery(&self) -> Arc<dyn Discovery> {
        self.link.discovery(Arc::new(self.world.discovery()))
    }

    /// A broker that waits for ever when the link is silent.
    pub(crate) fn unbounded_messaging(&self) -> Arc<dyn Messaging> {
        self.link.messaging(Arc::new(self.world.messaging()))
    }
}

#[async_trait]
impl Fixture for Linked {
    fn environment(&self) -> Arc<dyn Environment> {
        self.environment.clone()
    }

    async fn discovery(&self) -> Result<Option<Arc<dyn Discovery>>> {
        Ok(Some(Arc::new(BoundedDiscovery(self.unbounded_discovery()))))
    }

    async fn messaging(&self) -> Result<Option<Arc<dyn Messaging>>> {
        Ok(Some(Arc::new(BoundedMessaging(self.unbounded_messaging()))))
    }

    fn can(&self, _: Action) -> bool {
        true
    }

    async fn act(&self, action: Action) -> Result<()> {
        match action {
            Action::Compact => self.world.compact(),
            Action::Stop => self.link.cut(),
            Action::Pause => self.link.silence(),
            Action::Start | Action::Resume => self.link.open(),
            Action::Cut => {
                self.link.cut();
                self.link.open();
            }
            other => unreachable!("the kit knows no {other:?}"),
        }
        Ok(())
    }
}
