//! The component model on backends that can do as little as is allowed.

use std::sync::Arc;
use std::time::Duration;

use crate::common::{eventually, linked, records, runtime};
use futures_util::{StreamExt, stream};
use slipring::{Client, Context, DistributedRuntime, Fault, HealthCheck, LeaseState, MemoryWorld, Settings};
use slipring_core::{
    DiscoveryCapabilities, DiscoveryExt, MessagingCapabilities, ReadConsistency, WatchFidelity,
};
use slipring_memory::Profile;
use slipring_sim::SimEnvironment;

const SECOND: Duration = Duration::from_secs(1);

/// Each weakness alone, and all of them together.
fn profiles() -> Vec<(&'static str, Profile)> {
    let exact = Profile::exact();
    let store = |change: fn(DiscoveryCapabilities) -> DiscoveryCapabilities| {
        exact.clone().with_discovery(change(exact.discovery))
    };
    let bus = |change: fn(MessagingCapabilities) -> MessagingCapabilities| {
        exact.clone().with_messaging(change(exact.messaging))
    };
    vec![
        ("one key", store(|can| can.with_atomic_keys_max(1))),
        ("two keys", store(|can| can.with_atomic_keys_max(2))),
        ("no resuming", store(|can| can.with_resume(false))),
        ("coalesced", store(|can| can.with_watch(WatchFidelity::Coalesced))),
        ("sequential", store(|can| can.with_read(ReadConsistency::Sequential))),
        ("no wildcards", bus(|can| can.with_wildcards(false))),
        ("no queue groups", bus(|can| can.with_queue_groups(false))),
        ("no no-responders", bus(|can| can.with_no_responders(false))),
        (
            "the least",
            exact
                .clone()
                .with_discovery(DiscoveryCapabilities::minimal())
                .with_messaging(MessagingCapabilities::minimal()),
        ),
    ]
}

/// On every weak backend: start, call, stream, change, lose the lease, heal what was deleted, stop.
#[tokio::test(start_paused = true)]
async fn weak_backends_will_do() {
    for (name, profile) in profiles() {
        let world = MemoryWorld::with(profile, Arc::new(SimEnvironment::new(1)));
        start_call_heal_stop(name, &world).await;
        let left = || (world.leases().len(), world.watches(), world.messaging().subscriptions());
        eventually(name, || left() == (0, 0, 0) && records(&world).is_empty()).await;
    }
}

async fn start_call_heal_stop(name: &str, world: &MemoryWorld) {
    let (worker, store, _bus) = linked(world, Settings::default()).await;
    let caller = runtime(world).await;
    let count = |to: u64, _: Context| async move { Ok(stream::iter((0..to).map(Ok::<_, Fault>))) };
    let well = HealthCheck::new(|| async { Ok(()) });
    let serving = worker.endpoint("a/b/count").unwrap().serve(count).health(well).await.unwrap();
    let others: Vec<_> = {
        let mut others = Vec::new();
        for other in 0..5 {
            let endpoint = worker.endpoint(&format!("a/b/e{other}")).unwrap();
            others.push(endpoint.serve(count).await.unwrap());
        }
        others
    };
    let client: Client<u64, u64> = caller.endpoint("a/b/count").unwrap().client().await.unwrap();
    client.wait_for_instances(1, SECOND).await.unwrap();
    let call = async || {
        let items = client.generate(&1000).await.unwrap();
        let items: Vec<_> = items.map(Result::unwrap).collect().await;
        assert!(items.into_iter().eq(0..1000), "{name}");
    };
    call().await;

    // A lease that is lost.
    store.silence();
    worker.lease().wait_for(|state| matches!(state, LeaseState::Lost { .. })).await.unwrap();
    eventually("the records are gone", || records(world).is_empty()).await;
    store.open();
    let all_back = |epoch| records(world).iter().filter(|record| record.epoch == epoch).count() == 6;
    eventually(name, || all_back(2)).await;
    call().await;

    // Records that are deleted.
    for serving in &others {
        world.discovery().delete(serving.path().key()).await.unwrap();
    }
    eventually(name, || all_back(2)).await;
    call().await;

    // An instance that is gone without a word, with a stream under way.
    let dying = runtime(world).await;
    let endless = |_: u64, _: Context| async {
        let forever = stream::repeat(7).then(|item| async move {
            tokio::time::sleep(SECOND).await;
            Ok::<u64, Fault>(item)
        });
        Ok(forever)
    };
    let endpoint = dying.endpoint("a/b/dying").unwrap();
    let served = endpoint.serve(endless).await.unwrap();
    let orphan: Client<u64, u64> = caller.endpoint("a/b/dying").unwrap().client().await.unwrap();
    let mut items = orphan.request(&0).deadline(120 * SECOND).generate().await.unwrap();
    items.next().await.unwrap().unwrap();
    drop((served, endpoint, dying));
    let error = items.map(Result::err).filter_map(std::future::ready).next().await.unwrap();
    assert!(matches!(error.code(), "stream_interrupted" | "cancelled"), "{name}: {error}");
    drop(orphan);
    eventually("its record is gone", || records(world).len() == 6).await;

    stop(name, world, &worker, serving).await;
    drop(others);
    drop((client, caller.stop().await));
}

async fn stop(name: &str, world: &MemoryWorld, worker: &DistributedRuntime, serving: slipring::Serving) {
    assert!(serving.stop().await.is_clean(), "{name}");
    assert_eq!(records(world).len(), 5, "{name}");
    let report = worker.stop().await;
    assert!(report.is_clean(), "{name}: {report}");
}

/// A bus without headers is refused at the start, with what to do about it.
#[tokio::test(start_paused = true)]
async fn a_bus_without_headers_is_refused() {
    let exact = Profile::exact();
    let profile = exact.clone().with_messaging(exact.messaging.with_headers(false));
    let world = MemoryWorld::with(profile, Arc::new(SimEnvironment::new(1)));
    let error = DistributedRuntime::builder().memory(&world).build().await.unwrap_err();
    assert_eq!(error.code(), "unsupported");
    assert_eq!((world.leases().len(), world.messaging().subscriptions()), (0, 0));
}
