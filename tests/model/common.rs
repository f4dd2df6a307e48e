//! What several test files need.

mod faulty;
pub(crate) mod slow;

use std::sync::Arc;
use std::time::Duration;

pub(crate) use faulty::{Logged, Lossy};
use slipring::record::Record;
use slipring::{Context, DistributedRuntime, Endpoint, Fault, MemoryWorld, Serve, Serving, Settings};
use slipring_core::{Discovery, DiscoveryExt, LeaseId, Messaging, Result, Revision};
use slipring_sim::{Link, Node};
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
pub(crate) fn serve_id(endpoint: &Endpoint) -> Serve {
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

/// The endpoint that most tests serve and call.
pub(crate) const WORK: &str = "fleet/worker/work";

/// That many seconds.
pub(crate) fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A runtime on a node of a simulation, with defaults.
pub(crate) async fn runtime_on(node: &Node) -> DistributedRuntime {
    let builder = DistributedRuntime::builder().discovery(node.discovery()).messaging(node.messaging());
    builder.environment(node.environment()).build().await.unwrap()
}

/// A runtime of its own that serves [`WORK`]: it answers with the id of its instance.
pub(crate) async fn worker(world: &MemoryWorld) -> (DistributedRuntime, Serving) {
    let runtime = runtime(world).await;
    let serving = runtime.endpoint(WORK).unwrap().serve_unary(who).await.unwrap();
    (runtime, serving)
}

/// Answers with the id of its instance.
pub(crate) async fn who(_: (), cx: Context) -> Result<u64, Fault> {
    Ok(cx.instance())
}

/// Registers an instance that nobody serves, for ever.
pub(crate) async fn register_dead(world: &MemoryWorld, endpoint: &Endpoint, id: u64) -> Revision {
    let path = endpoint.path().instance(id);
    let record = Record::new(path.clone(), LeaseId(id));
    let record = record.with_transport(Record::BROKER, path.subject().as_str());
    world.discovery().put(path.key(), record.encode(), None).await.unwrap()
}
