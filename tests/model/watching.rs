//! How a client sees the instances of its endpoint.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::common::{Logged, WORK, register_dead, runtime, runtime_on, seconds, who, worker};
use futures_util::FutureExt;
use slipring::record::Record;
use slipring::{
    Client, DistributedRuntime, Effect, Error, Fault, HealthCheck, Instance, InstanceChange, MemoryWorld,
    WatchState,
};
use slipring_core::{DiscoveryExt, Range};
use slipring_sim::{Link, World};
use tokio::time::{Instant, timeout};

async fn client(runtime: &DistributedRuntime) -> Client<(), u64> {
    runtime.endpoint(WORK).unwrap().client().await.unwrap()
}

/// A caller whose way to the store can be broken alone.
async fn linked(world: &MemoryWorld) -> (Link, DistributedRuntime) {
    let link = Link::new();
    let discovery = link.discovery(Arc::new(world.discovery()));
    let builder = DistributedRuntime::builder().discovery(discovery).messaging(world.messaging());
    (link, builder.build().await.unwrap())
}

/// Waits until the watcher's state satisfies a condition.
async fn state(client: &Client<(), u64>, wanted: impl Fn(&WatchState) -> bool) {
    let mut instances = client.instances();
    let reached = async {
        while !wanted(&instances.state()) {
            instances.changed().await;
        }
    };
    timeout(seconds(60), reached).await.unwrap();
}

fn is_live(state: &WatchState) -> bool {
    matches!(state, WatchState::Live(_))
}

fn is_stale(state: &WatchState) -> bool {
    matches!(state, WatchState::Stale { .. })
}

/// D05, D06, D07, D08: a broken watch is noticed and said; the last view is kept and calls go on, also those of
/// clients that come later; when the store is back the watcher recovers by itself and has missed nothing.
#[tokio::test(start_paused = true)]
async fn d05_d07_d08_a_broken_watch_keeps_its_view_and_recovers() {
    for silent in [false, true] {
        let world = MemoryWorld::new();
        let (old, _old) = worker(&world).await;
        let (link, caller) = linked(&world).await;
        let early = client(&caller).await;
        early.wait_for_instances(1, seconds(5)).await.unwrap();
        if silent {
            link.silence()
        } else {
            link.cut()
        }
        state(&early, is_stale).await;
        let (new, _new) = worker(&world).await;

        let late = client(&caller).await;
        for client in [&early, &late] {
            let seen: Vec<_> = client.instances().all().iter().map(|instance| instance.id()).collect();
            assert_eq!(seen, [old.instance_id()]);
            assert!(is_stale(&client.instances().state()));
            assert_eq!(client.call(&()).await.unwrap(), old.instance_id());
        }
        old.stop().await;
        // It is still shown, so the call finds out by asking; nobody else is known.
        let error = late.request(&()).deadline(seconds(5)).call().await.unwrap_err();
        assert_eq!((error.code(), error.effect()), ("no_responders", Effect::None));

        link.open();
        state(&early, is_live).await;
        for client in [&early, &late] {
            let mut instances = client.instances();
            let only = |all: &[Arc<Instance>]| all.len() == 1 && all[0].id() == new.instance_id();
            timeout(seconds(5), instances.wait_until(only)).await.unwrap();
            assert_eq!(client.call(&()).await.unwrap(), new.instance_id());
        }
        assert_eq!(caller.registry().watchers(), 1);
    }
}

/// D05, F26: history that was compacted while the watch was away costs nothing but a fresh snapshot.
#[tokio::test(start_paused = true)]
async fn d05_compaction_during_an_outage_is_survived() {
    let world = MemoryWorld::new();
    let (link, caller) = linked(&world).await;
    let client = client(&caller).await;
    let (first, _first) = worker(&world).await;
    client.wait_for_instances(1, seconds(5)).await.unwrap();
    link.cut();
    state(&client, is_stale).await;
    first.stop().await;
    let _workers = [worker(&world).await, worker(&world).await];
    world.compact();
    link.open();
    let mut instances = client.instances();
    let two = |all: &[Arc<Instance>]| all.len() == 2 && all.iter().all(|it| it.id() != first.instance_id());
    timeout(seconds(10), instances.wait_until(two)).await.unwrap();
    assert!(is_live(&instances.state()));
}

/// F25: compaction while the watch is open, and behind, is survived too.
#[tokio::test(start_paused = true)]
async fn f25_compaction_of_an_open_watch_is_survived() {
    let world = MemoryWorld::new();
    let caller = runtime(&world).await;
    let client = client(&caller).await;
    state(&client, is_live).await;
    // No await lets the watcher read in between.
    for id in 1..=50 {
        let endpoint = client.endpoint();
        register_dead(&world, endpoint, id).now_or_never().expect("the store in memory answers at once");
    }
    world.compact();
    let mut instances = client.instances();
    timeout(seconds(10), instances.wait_until(|all| all.len() == 50)).await.unwrap();
}

/// F39: a store that was emptied is noticed although its watches stay silent, and the view follows it.
#[tokio::test(start_paused = true)]
async fn f39_an_emptied_store_is_noticed() {
    let world = MemoryWorld::new();
    let caller = runtime(&world).await;
    let client = client(&caller).await;
    register_dead(&world, client.endpoint(), 1).await;
    register_dead(&world, client.endpoint(), 2).await;
    client.wait_for_instances(2, seconds(5)).await.unwrap();
    world.empty();
    register_dead(&world, client.endpoint(), 3).await;
    let mut instances = client.instances();
    let third = |all: &[Arc<Instance>]| all.len() == 1 && all[0].id() == 3;
    timeout(seconds(90), instances.wait_until(third)).await.unwrap();
}

/// D11, SW3: all clients of an endpoint share one watch, which ends with the last of them; creating them at the
/// same moment makes no second one.
#[tokio::test(start_paused = true)]
async fn d11_one_watch_however_many_clients() {
    let world = MemoryWorld::new();
    let _worker = worker(&world).await;
    let store = Logged::new(world.discovery());
    let builder = DistributedRuntime::builder().discovery(store.clone()).messaging(world.messaging());
    let caller = builder.build().await.unwrap();
    let before = world.watches();
    let clients = futures_util::future::join_all((0..100).map(|_| client(&caller))).await;
    for client in &clients {
        client.wait_for_instances(1, seconds(5)).await.unwrap();
    }
    assert_eq!((store.take().watches.len(), world.watches() - before), (1, 1));
    let one = clients.into_iter().next_back().unwrap();
    tokio::time::sleep(seconds(1)).await;
    assert_eq!(world.watches() - before, 1);
    let instances = one.instances();
    drop(one);
    tokio::time::sleep(seconds(1)).await;
    assert_eq!(world.watches() - before, 1, "whoever looks at the instances needs the watch");
    drop(instances);
    tokio::time::sleep(seconds(1)).await;
    assert_eq!((world.watches() - before, caller.registry().watchers()), (0, 0));
    client(&caller).await.wait_for_instances(1, seconds(5)).await.unwrap();
}

/// D12: a client reads and watches its own endpoint's records and nothing else of the cluster; what others do
/// does not even wake it.
#[tokio::test(start_paused = true)]
async fn d12_only_its_own_prefix_is_read() {
    let world = MemoryWorld::new();
    let _worker = worker(&world).await;
    let store = Logged::new(world.discovery());
    let builder = DistributedRuntime::builder().discovery(store.clone()).messaging(world.messaging());
    let caller = builder.build().await.unwrap();
    store.take();
    let client = client(&caller).await;
    client.wait_for_instances(1, seconds(5)).await.unwrap();
    let mut instances = client.instances();
    instances.wait_until(|all| all.len() == 1).await;
    let others = async {
        for other in
            ["fleet/worker/work2", "fleet/worker/wor", "fleet/worker/work/more", "fleet/worker2/work"]
        {
            register_dead(&world, &caller.endpoint(other).unwrap(), 5).await;
        }
        tokio::time::sleep(seconds(130)).await;
    };
    tokio::select! {
        biased;
        () = instances.changed() => panic!("woken by somebody else's record"),
        () = others => {}
    }
    assert_eq!(instances.len(), 1);
    let own = Range::Prefix(client.endpoint().path().instances());
    let asked = store.take();
    assert!(asked.watches.len() >= 2, "it compares with a fresh snapshot now and then");
    assert!(asked.watches.iter().all(|range| *range == own), "{asked:?}");
    // The store's identity and the runtime's own anchor.
    assert!(asked.reads.iter().all(|range| matches!(range, Range::Key(_))), "{asked:?}");
}

/// D27: progress, reconciliation, and a watch that broke and found the same again wake nobody by way of the
/// set: only its state is told.
#[tokio::test(start_paused = true)]
async fn d27_nobody_is_woken_without_a_change() {
    let world = MemoryWorld::new();
    let _workers = [worker(&world).await, worker(&world).await];
    let (link, caller) = linked(&world).await;
    let client = client(&caller).await;
    client.wait_for_instances(2, seconds(5)).await.unwrap();
    let mut instances = client.instances();
    assert!(matches!(instances.next().await, InstanceChange::Snapshot(all) if all.len() == 2));
    assert!(timeout(seconds(600), instances.changed()).await.is_err(), "ten quiet minutes");
    link.cut();
    timeout(seconds(5), instances.changed()).await.unwrap();
    assert!(is_stale(&instances.state()));
    link.open();
    state(&client, is_live).await;
    assert!(timeout(seconds(60), instances.next()).await.is_err(), "the same set as before");
}

/// D24, SW4: a reader that does not read holds nobody up and costs a bounded list: it is given the whole set
/// again, and goes on without a gap.
#[tokio::test(start_paused = true)]
async fn d24_a_slow_reader_is_given_a_snapshot() {
    let world = MemoryWorld::new();
    let caller = runtime(&world).await;
    let client = client(&caller).await;
    let (mut slow, mut prompt) = (client.instances(), client.instances());
    state(&client, is_live).await;
    assert!(matches!(slow.next().await, InstanceChange::Snapshot(all) if all.is_empty()));
    assert!(matches!(prompt.next().await, InstanceChange::Snapshot(all) if all.is_empty()));
    for round in 0..50 {
        for id in 1..=100 {
            register_dead(&world, client.endpoint(), id).await;
        }
        for id in 1..=100 {
            let change = timeout(seconds(5), prompt.next()).await.unwrap();
            assert!(matches!(&change, InstanceChange::Put(it) if it.id() == id), "round {round}: {change:?}");
        }
    }
    let InstanceChange::Snapshot(all) = slow.next().await else { panic!("5,000 changes were kept") };
    assert_eq!(all.iter().map(|it| it.id()).collect::<Vec<_>>(), (1..=100).collect::<Vec<_>>());
    let put = register_dead(&world, client.endpoint(), 7).await;
    let InstanceChange::Put(seventh) = slow.next().await else { panic!("no gap, no second snapshot") };
    assert_eq!((seventh.id(), seventh.modified()), (7, put));
    let store = world.discovery();
    store.delete(client.endpoint().path().instance(8).key()).await.unwrap();
    assert!(matches!(slow.next().await, InstanceChange::Removed(it) if it.id() == 8));
}

/// A reader that is a little behind gets every change, one by one.
#[tokio::test(start_paused = true)]
async fn a_reader_a_little_behind_misses_nothing() {
    let world = MemoryWorld::new();
    let caller = runtime(&world).await;
    let client = client(&caller).await;
    state(&client, is_live).await;
    let mut instances = client.instances();
    assert!(matches!(instances.next().await, InstanceChange::Snapshot(all) if all.is_empty()));
    for id in 1..=1_000 {
        register_dead(&world, client.endpoint(), id).await;
    }
    for id in 1..=1_000 {
        assert!(matches!(instances.next().await, InstanceChange::Put(it) if it.id() == id));
    }
}

/// U10753: no instance is no error. A call waits until one is there, at most until its deadline; `fail_fast`
/// asks not to.
#[tokio::test(start_paused = true)]
async fn u10753_an_empty_set_is_waited_for() {
    let world = MemoryWorld::new();
    let caller = runtime(&world).await;
    let client = client(&caller).await;
    let began = Instant::now();
    let error = client.request(&()).fail_fast().call().await.unwrap_err();
    assert_eq!(
        (error.code(), error.effect(), began.elapsed().as_millis()),
        ("no_instances", Effect::None, 0)
    );
    let error = client.request(&()).deadline(seconds(3)).call().await.unwrap_err();
    assert_eq!((error.code(), error.effect(), began.elapsed().as_secs()), ("no_instances", Effect::None, 3));
    assert!(error.to_string().contains("no instances of fleet/worker/work: none is registered"), "{error}");
    let start = async {
        tokio::time::sleep(seconds(5)).await;
        worker(&world).await
    };
    let (answer, (runtime, _serving)) = tokio::join!(client.call(&()), start);
    assert_eq!(answer.unwrap(), runtime.instance_id());
}

/// A call that finds no instance because the store cannot be seen says that, and not that there are none.
#[tokio::test(start_paused = true)]
async fn not_seeing_is_not_the_same_as_none() {
    let world = MemoryWorld::new();
    let (link, caller) = linked(&world).await;
    link.silence();
    let client = client(&caller).await;
    let error = client.request(&()).fail_fast().deadline(seconds(3)).call().await.unwrap_err();
    assert!(error.to_string().contains("the discovery backend was not reached yet"), "{error}");
}

/// U1202, U1540, U1280: a name that is nearly right is answered with what is registered and looks like it.
#[tokio::test(start_paused = true)]
async fn u1202_near_misses_are_named() {
    let world = MemoryWorld::new();
    let runtime = runtime(&world).await;
    let serve = |name: &str| runtime.endpoint(name).unwrap().serve_unary(who);
    let _processor = serve("fleet/Processor/generate").await.unwrap();
    let _chat = serve("fleet/api/chat/completions").await.unwrap();
    let _far = serve("fleet/billing/invoice").await.unwrap();
    for (asked, near) in [
        ("fleet/processor/generate", "fleet/Processor/generate"),
        ("fleet/Processor/genrate", "fleet/Processor/generate"),
        ("fleet/api/chat.completions", "fleet/api/chat/completions"),
    ] {
        let client = runtime.endpoint(asked).unwrap().client::<(), u64>().await.unwrap();
        let error = client.request(&()).fail_fast().call().await.unwrap_err();
        let Error::NoInstances { near: named, .. } = &error else { panic!("{error:?}") };
        assert_eq!(named, &[near]);
        assert!(error.to_string().contains(near), "{error}");
        let error = client.request(&()).deadline(seconds(2)).call().await.unwrap_err();
        assert!(error.to_string().contains(near), "also when it waited: {error}");
    }
}

/// U12566: an update of an instance under the same id is seen, by readers and by routing.
#[tokio::test(start_paused = true)]
async fn u12566_an_update_under_the_same_id_is_seen() {
    let world = MemoryWorld::new();
    let asked = Arc::new(AtomicU64::new(0));
    let counter = asked.clone();
    let later = HealthCheck::new(move || {
        let well = counter.fetch_add(1, Ordering::Relaxed) >= 2;
        async move { if well { Ok(()) } else { Err(Fault::new("warming", "up")) } }
    });
    let warm = runtime(&world).await;
    let serve = warm.endpoint(WORK).unwrap().serve_unary(who);
    let _serving = serve.health(later.with_interval(seconds(1))).await.unwrap();
    let client = client(&runtime(&world).await).await;
    let mut instances = client.instances();
    instances.wait_until(|all| all.len() == 1).await;
    let InstanceChange::Snapshot(all) = instances.next().await else { panic!("a snapshot comes first") };
    assert!(!all[0].is_ready());
    let InstanceChange::Put(updated) = timeout(seconds(10), instances.next()).await.unwrap() else {
        panic!("an update is a put")
    };
    assert_eq!((updated.id(), updated.is_ready()), (all[0].id(), true));
    assert!(updated.modified() > all[0].modified());
    client.wait_for_instances(1, seconds(0)).await.unwrap();
}

/// U4904: a caller that is restarted finds every one of its instances.
#[tokio::test(start_paused = true)]
async fn u4904_a_restarted_caller_finds_all() {
    let world = World::new(7);
    let mut workers = Vec::new();
    for number in 0..20 {
        let runtime = runtime_on(&world.node(&format!("worker-{number}"))).await;
        let serving = runtime.endpoint(WORK).unwrap().serve_unary(who).await.unwrap();
        workers.push((runtime, serving));
    }
    for _ in 0..3 {
        let node = world.node("front");
        let front = runtime_on(&node).await;
        let client = client(&front).await;
        client.wait_for_instances(20, seconds(1)).await.unwrap();
        let mut answered = std::collections::BTreeSet::new();
        for _ in 0..20 {
            answered.insert(client.call(&()).await.unwrap());
        }
        assert_eq!(answered.len(), 20);
        node.crash();
    }
}

/// An unreadable record is skipped, and harms neither its neighbours nor what comes after it; one without a way
/// in that this version knows is listed and never called.
#[tokio::test(start_paused = true)]
async fn strange_records_harm_nobody() {
    let world = MemoryWorld::new();
    let (good, _good) = worker(&world).await;
    let client = client(&runtime(&world).await).await;
    let (store, path) = (world.discovery(), client.endpoint().path());
    store.put(path.instance(1).key(), "no record".into(), None).await.unwrap();
    let unknown = Record::new(path.instance(2), slipring_core::LeaseId(2)).with_transport("pigeon", "loft 7");
    store.put(path.instance(2).key(), unknown.encode(), None).await.unwrap();
    store.put(path.instances().key("no-number").unwrap(), "?".into(), None).await.unwrap();
    let mut instances = client.instances();
    timeout(seconds(5), instances.wait_until(|all| all.len() == 2)).await.unwrap();
    for _ in 0..10 {
        assert_eq!(client.call(&()).await.unwrap(), good.instance_id());
    }
    let error = client.request(&()).instance(2).deadline(seconds(1)).call().await.unwrap_err();
    assert_eq!(error.code(), "no_instances");
}

/// Waiting for more instances than there are ends in time and says how many there were.
#[tokio::test(start_paused = true)]
async fn waiting_for_instances_is_bounded() {
    let world = MemoryWorld::new();
    let _worker = worker(&world).await;
    let client = client(&runtime(&world).await).await;
    let error = client.wait_for_instances(2, seconds(3)).await.unwrap_err();
    assert_eq!((error.code(), error.effect()), ("deadline_exceeded", Effect::None));
    assert!(
        error.to_string().contains("waiting for 2 instances of fleet/worker/work (1 are ready)"),
        "{error}"
    );
}
