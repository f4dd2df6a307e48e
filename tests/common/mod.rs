//! What several test files need.
#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test may")]

pub(crate) mod slow;

use std::sync::Arc;
use std::time::Duration;

use slipring::record::Record;
use slipring::{Context, DistributedRuntime, Endpoint, MemoryWorld, Serve, Settings};
use slipring_core::{Discovery, Messaging};
use slipring_sim::Link;
use tokio::time::Instant;

/// A runtime with the default settings.
pub(crate) async fn runtime(world: &MemoryWorld) -> DistributedRuntime {
    runtime_with(world, Settings::default()).await
}

/// A runtime with these settings.
pub(crate) async fn runtime_with(world: &MemoryWorld, settings: Settings) -> DistributedRuntime {
    DistributedRuntime::builder().memory(world).settings(settings).build().await.unwrap()
}

/// Settings with some of them changed.
pub(crate) fn settings(change: impl FnOnce(&mut Settings)) -> Settings {
    let mut settings = Settings::default();
    change(&mut settings);
    settings
}

/// A runtime whose store is behind the first link and whose bus is behind the second.
pub(crate) async fn linked(world: &MemoryWorld, settings: Settings) -> (DistributedRuntime, Link, Link) {
    let (store, bus) = (Link::new(), Link::new());
    let discovery: Arc<dyn Discovery> = Arc::new(world.discovery());
    let messaging: Arc<dyn Messaging> = Arc::new(world.messaging());
    let builder = DistributedRuntime::builder()
        .discovery(store.discovery(discovery))
        .messaging(bus.messaging(messaging))
        .settings(settings);
    (builder.build().await.unwrap(), store, bus)
}

/// Serves what it is sent.
pub(crate) fn echo(endpoint: &Endpoint) -> Serve {
    endpoint.serve_unary(|text: String, _: Context| async move { Ok(text) })
}

/// Serves its instance id.
pub(crate) fn who(endpoint: &Endpoint) -> Serve {
    endpoint.serve_unary(|(): (), context: Context| async move { Ok(context.instance()) })
}

/// The records that are in the store.
pub(crate) fn records(world: &MemoryWorld) -> Vec<Record> {
    let entries = world.entries().entries;
    entries.iter().filter_map(|entry| Record::decode(&entry.key, &entry.value).ok()).collect()
}

/// Waits until a condition holds; fails after a minute.
pub(crate) async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let limit = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < limit, "it never happens: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
