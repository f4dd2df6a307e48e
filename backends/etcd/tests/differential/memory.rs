//! The simulated store, as it says etcd is.

use std::sync::Arc;
use std::time::Duration;

use slipring_core::{Result, Revision, SystemEnvironment, async_trait};
use slipring_memory::{MemoryWorld, Profile};

use crate::side::Operator;

/// etcd, with the elections of a test: then leases of one second are granted.
pub(crate) fn profile() -> Profile {
    let etcd = Profile::etcd();
    let discovery = etcd.discovery.with_ttl_min(Duration::from_secs(1));
    etcd.with_discovery(discovery)
}

/// A world of its own.
pub(crate) fn world() -> MemoryWorld {
    MemoryWorld::with(profile(), Arc::new(SystemEnvironment::new()))
}

#[async_trait]
impl Operator for MemoryWorld {
    async fn compact(&self, revision: Revision) -> Result<()> {
        self.compact_to(revision)
    }
}
