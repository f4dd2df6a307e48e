//! Which instance a call goes to.

use std::collections::BTreeMap;
use std::future::pending;

use crate::common::{WORK, register_dead, runtime, runtime_on, seconds, who, worker};
use slipring::{Client, Context, DistributedRuntime, Fault, HealthCheck, MemoryWorld, Routing, Serving};
use slipring_sim::World;
use tokio::task::JoinSet;

/// Workers, a runtime that calls them, and a client that sees them all.
async fn fleet(count: usize) -> (MemoryWorld, Vec<(DistributedRuntime, Serving)>, Client<(), u64>) {
    let world = MemoryWorld::new();
    let mut workers = Vec::new();
    for _ in 0..count {
        workers.push(worker(&world).await);
    }
    let client = runtime(&world).await.endpoint(WORK).unwrap().client().await.unwrap();
    client.wait_for_instances(count, seconds(5)).await.unwrap();
    (world, workers, client)
}

/// How many of `calls` calls, one after the other, each instance answered.
async fn shares(client: &Client<(), u64>, calls: usize) -> BTreeMap<u64, usize> {
    let mut shares = BTreeMap::new();
    for _ in 0..calls {
        *shares.entry(client.call(&()).await.unwrap()).or_default() += 1;
    }
    shares
}

/// Keeps an instance busy with a call that never ends.
fn occupy(busy: &mut JoinSet<()>, client: &Client<bool, u64>, instance: u64) {
    let client = client.clone();
    busy.spawn(async move {
        let _ = client.request(&true).instance(instance).deadline(seconds(3600)).call().await;
    });
}

/// A worker that answers `false` with its id, and never answers `true`.
async fn stuck_worker(world: &MemoryWorld) -> (DistributedRuntime, Serving) {
    let runtime = runtime(world).await;
    let stick = |stuck: bool, cx: Context| async move {
        if stuck {
            pending::<()>().await;
        }
        Ok::<u64, Fault>(cx.instance())
    };
    let serving = runtime.endpoint(WORK).unwrap().serve_unary(stick).await.unwrap();
    (runtime, serving)
}

/// Round robin gives every instance the same number of calls.
#[tokio::test(start_paused = true)]
async fn round_robin_is_even() {
    let (_world, _workers, client) = fleet(3).await;
    let shares = shares(&client, 300).await;
    assert_eq!(shares.into_values().collect::<Vec<_>>(), [100, 100, 100]);
}

/// Random routing reaches every instance about equally often.
#[tokio::test(start_paused = true)]
async fn random_reaches_all() {
    let world = World::new(7);
    let mut workers = Vec::new();
    for name in ["a", "b", "c"] {
        let runtime = runtime_on(&world.node(name)).await;
        let serving = runtime.endpoint(WORK).unwrap().serve_unary(who).await.unwrap();
        workers.push((runtime, serving));
    }
    let caller = runtime_on(&world.node("caller")).await;
    let client = caller.endpoint(WORK).unwrap().client().await.unwrap().with_routing(Routing::Random);
    client.wait_for_instances(3, seconds(5)).await.unwrap();
    let shares = shares(&client, 300).await;
    assert_eq!(shares.len(), 3);
    assert!(shares.values().all(|share| (60..140).contains(share)), "{shares:?}");
}

/// With two instances, power of two choices and least loaded send everything to the one that is not busy
/// with calls of our own.
#[tokio::test(start_paused = true)]
async fn our_own_calls_count_as_load() {
    for routing in [Routing::PowerOfTwoChoices, Routing::LeastLoaded] {
        let world = MemoryWorld::new();
        let (busy, _busy) = stuck_worker(&world).await;
        let (free, _free) = stuck_worker(&world).await;
        let client = runtime(&world).await.endpoint(WORK).unwrap().client::<bool, u64>().await.unwrap();
        client.wait_for_instances(2, seconds(5)).await.unwrap();
        let mut calls = JoinSet::new();
        (0..5).for_each(|_| occupy(&mut calls, &client, busy.instance_id()));
        let instances = client.instances();
        while instances.by_id(busy.instance_id()).unwrap().in_flight() < 5 {
            tokio::task::yield_now().await;
        }
        let client = client.with_routing(routing);
        for _ in 0..20 {
            assert_eq!(client.call(&false).await.unwrap(), free.instance_id(), "{routing:?}");
        }
        calls.shutdown().await;
        assert_eq!(instances.by_id(busy.instance_id()).unwrap().in_flight(), 0);
    }
}

/// Least loaded spreads calls that run at the same time evenly.
#[tokio::test(start_paused = true)]
async fn least_loaded_spreads_what_runs_together() {
    let world = MemoryWorld::new();
    let mut workers = Vec::new();
    for _ in 0..4 {
        workers.push(stuck_worker(&world).await);
    }
    let client = runtime(&world).await.endpoint(WORK).unwrap().client::<bool, u64>().await.unwrap();
    let client = client.with_routing(Routing::LeastLoaded);
    client.wait_for_instances(4, seconds(5)).await.unwrap();
    let mut calls = JoinSet::new();
    for _ in 0..40 {
        let client = client.clone();
        calls.spawn(async move { client.request(&true).deadline(seconds(60)).call().await.map(drop) });
    }
    tokio::time::sleep(seconds(1)).await;
    for (_, serving) in &workers {
        assert_eq!(serving.in_flight(), 10);
    }
    calls.shutdown().await;
}

/// U6314: least loaded believes the load that an instance reports while the report is fresh, and tries the
/// instance again once it is old.
#[tokio::test(start_paused = true)]
async fn u6314_an_old_report_of_load_is_not_believed() {
    let world = MemoryWorld::new();
    let (busy, _busy) = stuck_worker(&world).await;
    let (free, _free) = stuck_worker(&world).await;
    let other = runtime(&world).await.endpoint(WORK).unwrap().client::<bool, u64>().await.unwrap();
    let client = runtime(&world).await.endpoint(WORK).unwrap().client::<bool, u64>().await.unwrap();
    client.wait_for_instances(2, seconds(5)).await.unwrap();
    let mut calls = JoinSet::new();
    (0..5).for_each(|_| occupy(&mut calls, &other, busy.instance_id()));
    while _busy.in_flight() < 5 {
        tokio::task::yield_now().await;
    }
    client.request(&false).instance(busy.instance_id()).call().await.unwrap();
    let client = client.with_routing(Routing::LeastLoaded);
    for _ in 0..10 {
        assert_eq!(client.call(&false).await.unwrap(), free.instance_id());
    }
    tokio::time::sleep(seconds(2)).await;
    let mut answered = Vec::new();
    for _ in 0..2 {
        answered.push(client.call(&false).await.unwrap());
    }
    assert!(answered.contains(&busy.instance_id()), "{answered:?}");
    calls.shutdown().await;
}

/// A call to one instance goes there and nowhere else; if it is not registered, the call waits until its
/// deadline and says so.
#[tokio::test(start_paused = true)]
async fn a_direct_call_goes_to_its_instance() {
    let (_world, workers, client) = fleet(3).await;
    for (runtime, _) in &workers {
        let id = runtime.instance_id();
        for _ in 0..5 {
            assert_eq!(client.request(&()).instance(id).call().await.unwrap(), id);
        }
    }
    let error = client.request(&()).instance(77).deadline(seconds(2)).call().await.unwrap_err();
    assert_eq!(error.code(), "no_instances");
    assert!(error.to_string().contains("instance 4d is not registered"), "{error}");
}

/// The same key goes to the same instance, whichever process asks; when an instance goes, only its keys move,
/// and when one comes, keys move only to it.
#[tokio::test(start_paused = true)]
async fn consistent_hash_moves_only_what_must_move() {
    let (world, mut workers, client) = fleet(5).await;
    let client = client.with_routing(Routing::ConsistentHash);
    let other = runtime(&world).await.endpoint(WORK).unwrap().client::<(), u64>().await.unwrap();
    let other = other.with_routing(Routing::ConsistentHash);
    let before = owners(&client).await;
    assert_eq!(owners(&client).await, before);
    assert_eq!(owners(&other).await, before, "another process");
    let mut shares = BTreeMap::<u64, usize>::new();
    before.iter().for_each(|owner| *shares.entry(*owner).or_default() += 1);
    assert!(shares.len() == 5 && shares.values().all(|keys| (15..75).contains(keys)), "{shares:?}");

    let (gone, _serving) = workers.remove(2);
    gone.stop().await;
    let after = owners(&client).await;
    for (before, after) in before.iter().zip(&after) {
        assert_ne!(*after, gone.instance_id());
        assert!(before == after || *before == gone.instance_id());
    }

    let (new, _serving) = worker(&world).await;
    client.wait_for_instances(5, seconds(5)).await.unwrap();
    let last = owners(&client).await;
    let moved = after.iter().zip(&last).filter(|(after, last)| after != last);
    let moved: Vec<_> = moved.map(|(_, last)| *last).collect();
    assert!(!moved.is_empty() && moved.iter().all(|owner| *owner == new.instance_id()), "{moved:?}");
}

/// The instances that answer 200 different keys.
async fn owners(client: &Client<(), u64>) -> Vec<u64> {
    let mut owners = Vec::new();
    for key in 0..200 {
        owners.push(client.request(&()).key(format!("user-{key}")).call().await.unwrap());
    }
    owners
}

/// A selector limits a client to instances with the label; where none has it, the error says what was wanted.
#[tokio::test(start_paused = true)]
async fn labels_select() {
    let world = MemoryWorld::new();
    let mut workers = BTreeMap::new();
    for (zone, version) in [("eu", "1"), ("eu", "2"), ("us", "2")] {
        let runtime = runtime(&world).await;
        let serve = runtime.endpoint(WORK).unwrap().serve_unary(who);
        let serving = serve.label("zone", zone).label("version", version).await.unwrap();
        workers.insert(runtime.instance_id(), (zone, version, serving, runtime));
    }
    let client = runtime(&world).await.endpoint(WORK).unwrap().client::<(), u64>().await.unwrap();
    client.wait_for_instances(3, seconds(5)).await.unwrap();
    let eu = shares(&client.with_label("zone", "eu"), 20).await;
    assert_eq!(eu.values().copied().collect::<Vec<_>>(), [10, 10]);
    assert!(eu.keys().all(|id| workers[id].0 == "eu"));
    let one = shares(&client.with_label("zone", "eu").with_label("version", "2"), 10).await;
    assert_eq!(one.keys().map(|id| (workers[id].0, workers[id].1)).collect::<Vec<_>>(), [("eu", "2")]);
    let none = client.with_label("zone", "mars");
    let error = none.request(&()).fail_fast().call().await.unwrap_err();
    assert_eq!(error.code(), "no_instances");
    assert!(error.to_string().contains("none of 3 has the labels {\"zone\": \"mars\"}"), "{error}");
}

/// Ready instances come first; those that say they are not well are used only when none is ready.
#[tokio::test(start_paused = true)]
async fn ready_instances_are_preferred() {
    let world = MemoryWorld::new();
    let ill = runtime(&world).await;
    let never = HealthCheck::new(|| async { Err(Fault::new("ill", "not today")) });
    let serve = ill.endpoint(WORK).unwrap().serve_unary(who);
    let _ill = serve.health(never).await.unwrap();
    let (well, _well) = worker(&world).await;
    let client = runtime(&world).await.endpoint(WORK).unwrap().client::<(), u64>().await.unwrap();
    client.instances().wait_until(|all| all.len() == 2).await;
    assert_eq!(shares(&client, 20).await, BTreeMap::from([(well.instance_id(), 20)]));
    well.stop().await;
    assert_eq!(shares(&client, 20).await, BTreeMap::from([(ill.instance_id(), 20)]));
}

/// Whichever way instances are chosen, one that could not be reached is skipped, and where all are out of
/// reach a call still tries one at once instead of waiting.
#[tokio::test(start_paused = true)]
async fn every_mode_skips_what_is_set_aside() {
    let modes = [
        Routing::RoundRobin,
        Routing::Random,
        Routing::PowerOfTwoChoices,
        Routing::LeastLoaded,
        Routing::ConsistentHash,
    ];
    for routing in modes {
        let (world, workers, client) = fleet(2).await;
        let client = client.with_routing(routing);
        register_dead(&world, client.endpoint(), 99).await;
        client.wait_for_instances(3, seconds(5)).await.unwrap();
        for key in 0..60 {
            client.request(&()).key(key.to_string()).call().await.unwrap();
        }
        assert!(client.instances().by_id(99).unwrap().is_set_aside(), "{routing:?}");
        for (runtime, _) in &workers {
            runtime.stop().await;
        }
        let began = tokio::time::Instant::now();
        let error = client.request(&()).fail_fast().call().await.unwrap_err();
        assert_eq!(error.code(), "no_responders", "{routing:?}");
        assert!(began.elapsed() < seconds(1));
    }
}
