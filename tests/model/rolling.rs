//! Restarts under load.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::common::{WORK, runtime, runtime_on, seconds, worker};
use futures_util::{StreamExt, stream};
use slipring::name::InstancePath;
use slipring::{Client, Context, DistributedRuntime, MemoryWorld, Serving};
use slipring_core::{Batch, Change, Discovery, Fact, Range, Start};
use slipring_sim::World;
use tokio::task::JoinSet;

const INSTANCES: usize = 3;
const CALLERS: usize = 32;
const ROUNDS: usize = 20;

/// An instance that answers with three items, which takes it up to 300 ms.
async fn instance(world: &MemoryWorld) -> (DistributedRuntime, Serving) {
    let runtime = runtime(world).await;
    let work = |pause: u64, _: Context| async move {
        Ok(stream::iter(1..=3_u64).then(move |item| async move {
            tokio::time::sleep(Duration::from_millis(pause)).await;
            Ok(item)
        }))
    };
    let serving = runtime.endpoint(WORK).unwrap().serve(work).await.unwrap();
    (runtime, serving)
}

/// Calls until told to stop; every item of every call has to arrive.
async fn keep_calling(client: Client<u64, u64>, caller: usize, stop: Arc<AtomicBool>, calls: Arc<AtomicU64>) {
    for call in 0.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let pause = (caller * 7 + call * 13) as u64 % 100;
        let responses = client.generate(&pause).await;
        let items: Vec<_> = responses.unwrap_or_else(|error| panic!("call {call}: {error}")).collect().await;
        let items: Vec<_> = items.into_iter().map(Result::unwrap).collect();
        assert_eq!(items, [1, 2, 3]);
        calls.fetch_add(1, Ordering::Relaxed);
    }
}

/// Promise 5: three instances under the load of 32 callers are restarted one after another, twenty times over;
/// not one request fails, every stop is clean, and what the instances served is what the callers got.
#[tokio::test(start_paused = true)]
async fn zero_failed_requests_in_a_rolling_restart() {
    let world = MemoryWorld::new();
    let mut instances = Vec::new();
    for _ in 0..INSTANCES {
        instances.push(instance(&world).await);
    }
    let caller = runtime(&world).await;
    let client = caller.endpoint(WORK).unwrap().client::<u64, u64>().await.unwrap();
    client.wait_for_instances(INSTANCES, seconds(5)).await.unwrap();
    let (stop, calls) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut callers = JoinSet::new();
    for caller in 0..CALLERS {
        callers.spawn(keep_calling(client.clone(), caller, stop.clone(), calls.clone()));
    }
    let mut served = 0;
    for round in 0..ROUNDS {
        for at in 0..INSTANCES {
            tokio::time::sleep(Duration::from_millis(200)).await;
            let (old, serving) = instances.remove(at);
            let report = old.stop().await;
            assert!(report.is_clean() && report.abandoned == 0, "round {round}: {report}");
            served += report.requests;
            drop(serving);
            instances.insert(at, instance(&world).await);
        }
    }
    stop.store(true, Ordering::Relaxed);
    while let Some(ended) = callers.join_next().await {
        ended.unwrap();
    }
    for (runtime, _) in &instances {
        served += runtime.stop().await.requests;
    }
    let calls = calls.load(Ordering::Relaxed);
    println!("{} restarts under {CALLERS} callers: {calls} calls, 0 failed", ROUNDS * INSTANCES);
    assert_eq!(served, calls, "no request was executed twice");
    assert!(calls > 5_000, "{calls}");
    caller.stop().await;
    assert!(world.leases().is_empty());
}

/// M13: a call is never sent to an instance whose removal the view that it was chosen from had seen; before
/// that, instances that come and go get their share.
#[tokio::test(start_paused = true)]
async fn m13_a_removed_instance_is_never_chosen() {
    let world = World::new(13);
    let node = world.node("caller");
    let client = runtime_on(&node).await.endpoint(WORK).unwrap().client::<(), u64>().await.unwrap();
    let range = Range::Prefix(client.endpoint().path().instances());
    let mut watch = world.memory().discovery().watch(range, Start::Snapshot).await.unwrap();
    let _stays = worker(world.memory()).await;
    for _ in 0..20 {
        let (comes, _serving) = worker(world.memory()).await;
        client.wait_for_instances(2, seconds(5)).await.unwrap();
        let calls = async {
            for _ in 0..50 {
                client.call(&()).await.unwrap();
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let ((), report) = tokio::join!(calls, comes.stop());
        assert!(report.is_clean(), "{report}");
    }
    let mut removed = BTreeMap::new();
    while let Ok(Some(batch)) = tokio::time::timeout(seconds(1), watch.events.next()).await {
        let Batch { revision, changes } = batch.unwrap();
        for change in changes.iter().filter(|change| matches!(change, Change::Delete(_))) {
            removed.insert(InstancePath::from_key(change.key()).unwrap().id(), revision);
        }
    }
    assert_eq!(removed.len(), 20);
    let routes = node.environment().facts().into_iter().filter_map(|fact| match fact {
        Fact::RouteChosen { instance, revision, .. } => Some((instance, revision)),
        _ => None,
    });
    let (mut to_those_that_went, mut too_late) = (BTreeSet::new(), Vec::new());
    for (instance, revision) in routes {
        let Some(at) = removed.get(&instance) else { continue };
        to_those_that_went.insert(instance);
        too_late.extend((revision >= *at).then_some((instance, revision)));
    }
    assert!(too_late.is_empty(), "{too_late:?}");
    assert!(!to_those_that_went.is_empty(), "the test shows nothing");
}
