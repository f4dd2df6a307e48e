//! What each fault does to the node that it strikes, and to those that watch it.
#![allow(clippy::unwrap_used, reason = "a test may")]

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::{join, join3};
use slipring_core::{
    Change, Discovery, DiscoveryExt, Effect, Environment, Error, Key, Message, Messaging, Pattern, Range,
    Result, Start, Subject, Subscriber, Subscription, Txn, Watch,
};
use slipring_memory::Profile;
use slipring_sim::{Direction, Fault, Latency, Node, Setup, World, simulate};
use tokio::time::{Instant, sleep, timeout};

const TTL: Duration = Duration::from_secs(6);
const SECOND: Duration = Duration::from_secs(1);

fn key(text: &str) -> Key {
    Key::new(text).unwrap()
}

fn named() -> String {
    "a".to_owned()
}

async fn watch(node: &Node) -> Watch {
    node.discovery().watch(Range::All, Start::Snapshot).await.unwrap()
}

/// The next changes of a watch: keys, with a `-` before those deleted.
async fn changes(watch: &mut Watch) -> Result<Vec<String>> {
    loop {
        let batch = watch.events.next().await.unwrap()?;
        let shown = |change: &Change| match change {
            Change::Put(entry) => entry.key.to_string(),
            Change::Delete(key) => format!("-{key}"),
        };
        if !batch.changes.is_empty() {
            return Ok(batch.changes.iter().map(shown).collect());
        }
    }
}

/// A lease of a node, with a key of the node's name.
async fn register(node: &Node) -> slipring_core::Lease {
    let lease = node.discovery().grant(TTL).await.unwrap();
    node.discovery().put(key(node.name()), "".into(), Some(lease.id)).await.unwrap();
    lease
}

async fn subscribe(node: &Node, subject: &str) -> Subscriber {
    let subscription = Subscription::new(Pattern::new(subject).unwrap());
    node.messaging().subscribe(subscription).await.unwrap()
}

fn message(text: &str) -> Message {
    Message::new(Subject::new("s").unwrap(), text.to_owned())
}

#[track_caller]
fn assert_unavailable<T: std::fmt::Debug>(result: Result<T>, effect: Effect) {
    let error = result.unwrap_err();
    assert_eq!((error.code(), error.effect()), ("unavailable", effect), "{error}");
}

/// F6: when only the way to the broker is lost, a node's calls hang and are executed after the end, but it
/// goes on to see what others do.
#[tokio::test(start_paused = true)]
async fn f6_lost_to_the_broker() {
    let world = World::new(7);
    let (a, b) = (world.node("a"), world.node("b"));
    let mut watch = watch(&a).await;
    world.apply(&Fault::Partition { node: named(), lost: Direction::ToBroker, lasts: TTL }).unwrap();
    let began = Instant::now();
    b.discovery().put(key("b"), "".into(), None).await.unwrap();
    assert_eq!(changes(&mut watch).await.unwrap(), ["b"]);
    assert_eq!(began.elapsed(), Duration::ZERO);
    a.discovery().put(key("a"), "".into(), None).await.unwrap();
    assert_eq!(began.elapsed(), TTL);
}

/// F6: when only the way from the broker is lost, a node's calls are executed at once, but it learns of it
/// after the end only, and sees nothing meanwhile.
#[tokio::test(start_paused = true)]
async fn f6_lost_from_the_broker() {
    let world = World::new(7);
    let (a, b) = (world.node("a"), world.node("b"));
    let (mut own, mut other) = (watch(&a).await, watch(&b).await);
    world.apply(&Fault::Partition { node: named(), lost: Direction::FromBroker, lasts: TTL }).unwrap();
    let began = Instant::now();
    let put = async {
        a.discovery().put(key("k"), "".into(), None).await.unwrap();
        began.elapsed()
    };
    let seen = async {
        assert_eq!(changes(&mut other).await.unwrap(), ["k"]);
        began.elapsed()
    };
    let seen_here = async {
        assert_eq!(changes(&mut own).await.unwrap(), ["k"]);
        began.elapsed()
    };
    assert_eq!(join3(put, seen, seen_here).await, (TTL, Duration::ZERO, TTL));
}

/// F5: two partitions that overlap end with the last one, and each way with its own.
#[tokio::test(start_paused = true)]
async fn f5_partitions_overlap() {
    let world = World::new(7);
    let (a, began) = (world.node("a"), Instant::now());
    world.apply(&Fault::Partition { node: named(), lost: Direction::Both, lasts: 3 * SECOND }).unwrap();
    sleep(SECOND).await;
    world.apply(&Fault::Partition { node: named(), lost: Direction::FromBroker, lasts: 3 * SECOND }).unwrap();
    a.discovery().put(key("k"), "".into(), None).await.unwrap();
    assert_eq!(began.elapsed(), 4 * SECOND);
}

/// What is under way when a partition begins arrives when it is over; what has arrived is not held.
#[tokio::test(start_paused = true)]
async fn f5_a_partition_holds_what_is_under_way() {
    let latency = Latency::between(SECOND, SECOND);
    let world = World::with(7, Setup::new().with_latency(latency));
    let (a, began) = (world.node("a"), Instant::now());
    let store = a.discovery();
    let partition = async {
        sleep(SECOND / 2).await;
        assert!(world.memory().entries().entries.is_empty());
        world.apply(&Fault::Partition { node: named(), lost: Direction::ToBroker, lasts: TTL }).unwrap();
        sleep(TTL - SECOND / 4).await;
        assert!(world.memory().entries().entries.is_empty());
    };
    let (put, ()) = join(store.put(key("k"), "".into(), None), partition).await;
    put.unwrap();
    assert_eq!(began.elapsed(), SECOND / 2 + TTL + SECOND);
}

/// F8, F12: a call takes its latency twice, a delay adds to it while it lasts.
#[tokio::test(start_paused = true)]
async fn f8_f12_messages_take_their_time() {
    let world = World::new(7);
    let (a, store) = (world.node("a"), world.node("a").discovery());
    let took = async || {
        let began = Instant::now();
        store.read(Range::All).await.unwrap();
        began.elapsed()
    };
    assert_eq!(took().await, Duration::ZERO);
    world.apply(&Fault::Latency { node: named(), latency: Latency::between(SECOND, SECOND) }).unwrap();
    assert_eq!(took().await, 2 * SECOND);
    world.apply(&Fault::Delay { node: named(), by: SECOND, lasts: SECOND }).unwrap();
    assert_eq!(took().await, 3 * SECOND);
    assert_eq!(took().await, 2 * SECOND);
    drop(a);
}

/// W1, M2: over a link whose latency varies, a watch and a subscription keep their order, and all of it
/// arrives within the longest latency, not one after the other.
#[tokio::test(start_paused = true)]
async fn w1_m2_latency_keeps_the_order_of_streams() {
    let world = World::new(7);
    let (a, b) = (world.node("a"), world.node("b"));
    let latency = Latency::between(Duration::ZERO, SECOND);
    for node in ["a", "b"] {
        world.apply(&Fault::Latency { node: node.to_owned(), latency }).unwrap();
    }
    let (mut watch, mut heard) = (watch(&a).await, subscribe(&a, "s").await);
    let (store, bus) = (world.memory().discovery(), b.messaging());
    let began = Instant::now();
    let texts: Vec<String> = (0..50).map(|number| format!("n{number}")).collect();
    let write = async {
        for text in &texts {
            store.put(key(text), "".into(), None).await.unwrap();
        }
        let publishes = texts.iter().map(|text| bus.publish(message(text)));
        futures_util::future::join_all(publishes).await.into_iter().for_each(Result::unwrap);
    };
    let read_store = async {
        for text in &texts {
            assert_eq!(changes(&mut watch).await.unwrap(), [text.as_str()]);
        }
    };
    let read_bus = async {
        for text in &texts {
            assert_eq!(heard.next().await.unwrap().unwrap().payload, text.as_bytes());
        }
    };
    join3(write, read_store, read_bus).await;
    assert!(began.elapsed() <= 2 * SECOND, "{:?}", began.elapsed());
    assert!(began.elapsed() > Duration::ZERO);
}

/// F9: calls overtake each other where their latencies differ.
#[tokio::test(start_paused = true)]
async fn f9_calls_overtake_each_other() {
    let latency = Latency::between(Duration::ZERO, SECOND);
    let world = World::with(7, Setup::new().with_latency(latency));
    let store = world.node("a").discovery();
    let puts = (0..20).map(|number| store.put(key(&format!("n{number}")), "".into(), None));
    let revisions = futures_util::future::join_all(puts).await;
    let revisions: Vec<_> = revisions.into_iter().map(Result::unwrap).collect();
    assert!(!revisions.is_sorted(), "{revisions:?}");
}

/// F17: a lost request is not executed, and its caller gets what it gets for a lost reply.
#[tokio::test(start_paused = true)]
async fn f17_a_lost_request_is_not_executed() {
    let world = World::new(7);
    let store = world.node("a").discovery();
    world.apply(&Fault::LoseRequest { node: named() }).unwrap();
    assert_unavailable(store.put(key("k"), "".into(), None).await, Effect::Unknown);
    assert!(world.memory().entries().entries.is_empty());
    world.apply(&Fault::LoseReply { node: named() }).unwrap();
    assert_unavailable(store.put(key("k"), "".into(), None).await, Effect::Unknown);
    assert_eq!(world.memory().entries().entries.len(), 1);
}

/// A write that was sent comes late, after its caller gave up and after its lease ended, where requests
/// outlive their callers; elsewhere it is never executed.
#[tokio::test(start_paused = true)]
async fn a_request_may_outlive_its_caller() {
    for lasting in [true, false] {
        let world = World::with(7, Setup::new().with_lasting_requests(lasting));
        let store = world.node("a").discovery();
        world.apply(&Fault::Delay { node: named(), by: TTL, lasts: SECOND }).unwrap();
        let write = timeout(SECOND, store.commit(Txn::new().absent(key("k")).put(key("k"), "", None))).await;
        assert!(write.is_err());
        sleep(2 * TTL).await;
        assert_eq!(world.memory().entries().entries.len(), usize::from(lasting));
    }
}

/// F25: while nobody reads a watch, the history moves on without it; a compaction then ends it, and no other.
#[tokio::test(start_paused = true)]
async fn f25_a_slow_watch_meets_a_compaction() {
    let world = World::new(7);
    let (mut slow, mut quick) = (watch(&world.node("a")).await, watch(&world.node("b")).await);
    let store = world.memory().discovery();
    world.apply(&Fault::StallWatches { node: named(), lasts: TTL }).unwrap();
    let write = async {
        for text in ["x", "y"] {
            store.put(key(text), "".into(), None).await.unwrap();
            assert_eq!(changes(&mut quick).await.unwrap(), [text]);
        }
        world.apply(&Fault::Compact).unwrap();
        store.put(key("z"), "".into(), None).await.unwrap();
    };
    let (slow, ()) = join(changes(&mut slow), write).await;
    assert_eq!(slow.unwrap_err().code(), "compacted");
    assert_eq!(changes(&mut quick).await.unwrap(), ["z"]);
}

/// F1, F2: after a crash the bus knows that nobody is there; after a power loss it does not, for minutes, and
/// requests are lost. In both cases the lease runs out and no earlier.
#[tokio::test(start_paused = true)]
async fn f1_f2_crash_and_power_loss_are_told_apart() {
    for power_loss in [false, true] {
        let world = World::new(7);
        let b = world.node("b");
        let a = world.spawn_node("a", async |node: Node| {
            register(&node).await;
            let mut requests = subscribe(&node, "s").await;
            while requests.next().await.is_some() {}
        });
        let mut watch = watch(&b).await;
        sleep(SECOND).await;
        let began = Instant::now();
        let (node, down) = (named(), None);
        let death = if power_loss { Fault::PowerLoss { node, down } } else { Fault::Crash { node, down } };
        world.apply(&death).unwrap();
        assert!(!a.is_alive());
        // Time for its tasks to be dropped, with the subscriptions that they hold.
        sleep(SECOND / 10).await;
        let refused = b.messaging().request(message("?"), SECOND).await.unwrap_err();
        assert_eq!(refused.code(), if power_loss { "deadline_exceeded" } else { "no_responders" });
        assert_eq!(changes(&mut watch).await.unwrap(), ["a"]);
        assert_eq!(changes(&mut watch).await.unwrap(), ["-a"]);
        assert_eq!(began.elapsed(), TTL - SECOND);
        sleep(Duration::from_secs(180)).await;
        let refused = b.messaging().request(message("?"), SECOND).await.unwrap_err();
        assert_eq!(refused.code(), "no_responders");
    }
}

/// F3: a node that died runs its program anew when it comes back, under the next name; nothing of the life
/// before reaches anything.
#[tokio::test(start_paused = true)]
async fn f3_a_program_runs_in_each_life() {
    let world = World::new(7);
    let first = world.spawn_node("a", async |node: Node| {
        node.discovery().put(key(&node.name().replace('#', ":")), "".into(), None).await.unwrap();
        std::future::pending::<()>().await;
    });
    sleep(SECOND).await;
    world.apply(&Fault::Crash { node: named(), down: Some(TTL) }).unwrap();
    assert!(world.living("a").is_none());
    sleep(2 * TTL).await;
    assert_eq!(world.living("a").unwrap().name(), "a#2");
    let keys: Vec<_> = world.memory().entries().entries.into_iter().map(|entry| entry.key).collect();
    assert_eq!(keys, [key("a"), key("a:2")]);
    first.link().open();
    assert_unavailable(first.discovery().read(Range::All).await, Effect::None);
}

/// Tasks that a node started past its environment live on after its death, reach nothing, and are counted.
#[test]
#[expect(clippy::disallowed_methods, reason = "the test is about tasks that are started so")]
fn stray_tasks_are_fenced_and_counted() {
    async fn stray(node: Node) {
        let store = node.discovery();
        tokio::spawn(async move {
            loop {
                let _ = store.put(key("k"), "".into(), None).await;
                sleep(SECOND).await;
            }
        });
        node.environment().spawn("owned", Box::pin(std::future::pending())).detach();
        std::future::pending::<()>().await;
    }
    for power_loss in [false, true] {
        let report = simulate(7, Setup::new().with_lasting_requests(power_loss), async |world: World| {
            world.spawn_node("a", stray);
            world.spawn_node("b", stray);
            sleep(TTL).await;
            assert_eq!(world.stray_tasks().await, 2);
            for node in ["a", "b"].map(str::to_owned) {
                let (crash, power) =
                    (Fault::Crash { node: node.clone(), down: None }, Fault::PowerLoss { node, down: None });
                world.apply(if power_loss { &power } else { &crash }).unwrap();
            }
            let revision = world.memory().entries().revision;
            sleep(TTL).await;
            assert_eq!(world.memory().entries().revision, revision);
            assert_eq!(world.stray_tasks().await, 2);
        });
        assert_eq!(report.stray_tasks, 2);
    }
}

/// F13, F41: the tasks of a paused node do not run, and all that they missed is there when they do; only a
/// suspended machine finds that its wall time jumped.
#[tokio::test(start_paused = true)]
async fn f13_f41_a_paused_node_does_nothing() {
    for suspended in [false, true] {
        let world = World::new(7);
        let a = world.spawn_node("a", async |node: Node| {
            loop {
                sleep(SECOND).await;
                node.note("tick");
            }
        });
        let (wall, began) = (a.environment().wall_time(), Instant::now());
        sleep(SECOND / 2).await;
        world.apply(&Fault::Pause { node: named(), lasts: TTL, suspended }).unwrap();
        sleep(TTL - SECOND / 4).await;
        assert_eq!(world.trace().matching("tick").count(), 0);
        sleep(SECOND / 2).await;
        assert_eq!(world.trace().matching("tick").count(), 1);
        let jumped = a.environment().wall_time().duration_since(wall).unwrap() - began.elapsed();
        assert_eq!(jumped, if suspended { TTL } else { Duration::ZERO });
        sleep(SECOND).await;
        assert_eq!(world.trace().matching("tick").count(), 2);
    }
}

/// F15, F16: wall time jumps ahead and back, of one node alone.
#[tokio::test(start_paused = true)]
async fn f15_f16_wall_time_jumps() {
    let world = World::new(7);
    let (a, b) = (world.node("a").environment(), world.node("b").environment());
    world.apply(&Fault::WallClock { node: named(), ahead_ms: 5_000 }).unwrap();
    assert_eq!(a.wall_time(), b.wall_time() + 5 * SECOND);
    world.apply(&Fault::WallClock { node: named(), ahead_ms: -7_000 }).unwrap();
    assert_eq!(a.wall_time(), b.wall_time() - 2 * SECOND);
}

/// F14: calls to a paused store hang; leases that were due meanwhile end as soon as it goes on, whatever
/// heartbeats were sent to it. The bus is not concerned.
#[tokio::test(start_paused = true)]
async fn f14_a_paused_store_kills_leases() {
    let world = World::new(7);
    let (a, b) = (world.node("a"), world.node("b"));
    let lease = register(&a).await;
    let mut watch = watch(&b).await;
    let began = Instant::now();
    world.apply(&Fault::PauseStore { lasts: 2 * TTL }).unwrap();
    a.messaging().publish(message("heard")).await.unwrap();
    let store = a.discovery();
    let (beat, gone) = join(store.keep_alive(lease.id), changes(&mut watch)).await;
    assert_eq!(beat, Err(Error::lease_lost(lease.id)));
    assert_eq!(gone.unwrap(), ["-a"]);
    assert_eq!(began.elapsed(), 2 * TTL);
}

/// F3, F20: when the store's server restarts, calls fail at once while it is down and wait until it is ready,
/// watches end, and leases have their whole time again and a second more.
#[tokio::test(start_paused = true)]
async fn f3_f20_a_restarted_store() {
    let world = World::new(7);
    let a = world.node("a");
    let lease = register(&a).await;
    let mut ended = watch(&a).await;
    let mut heard = subscribe(&a, "s").await;
    sleep(TTL - SECOND).await;
    let began = Instant::now();
    world.apply(&Fault::RestartStore { down: 2 * TTL, ready: SECOND }).unwrap();
    assert_unavailable(changes(&mut ended).await, Effect::None);
    assert_unavailable(a.discovery().keep_alive(lease.id).await, Effect::None);
    assert_eq!(began.elapsed(), Duration::ZERO);
    sleep(2 * TTL + SECOND / 2).await;
    let mut watch = watch(&a).await;
    assert_eq!(began.elapsed(), 2 * TTL + SECOND);
    assert_eq!(changes(&mut watch).await.unwrap(), ["-a"]);
    assert_eq!(began.elapsed(), 2 * TTL + SECOND + TTL + SECOND);
    a.messaging().publish(message("heard")).await.unwrap();
    assert_eq!(heard.next().await.unwrap().unwrap().payload, "heard");
}

/// F20, L7: over a change of leaders watches live on in silence, leases have their whole time again, and calls
/// wait or are lost: some fail after seven seconds and were not executed, some succeed under the new leader.
#[tokio::test(start_paused = true)]
async fn f20_l7_a_new_leader() {
    let world = World::new(7);
    let a = world.node("a");
    register(&a).await;
    let mut watch = watch(&world.node("b")).await;
    sleep(TTL - SECOND).await;
    let began = Instant::now();
    world.apply(&Fault::LeaderChange { lasts: 2 * SECOND }).unwrap();
    let store = a.discovery();
    let puts = (0..20).map(|number| {
        let store = &store;
        async move { (store.put(key(&format!("n{number}")), "".into(), None).await, began.elapsed()) }
    });
    let puts = futures_util::future::join_all(puts).await;
    let (well, lost): (Vec<_>, Vec<_>) = puts.into_iter().partition(|(put, _)| put.is_ok());
    assert!(well.iter().all(|(_, took)| *took == 2 * SECOND) && well.len() > 3, "{well:?}");
    assert!(lost.iter().all(|(_, took)| *took == 7 * SECOND) && lost.len() > 3, "{lost:?}");
    lost.into_iter().for_each(|(put, _)| assert_unavailable(put, Effect::Unknown));
    for _ in &well {
        changes(&mut watch).await.unwrap();
    }
    assert_eq!(changes(&mut watch).await.unwrap(), ["-a"]);
    assert_eq!(began.elapsed(), 2 * SECOND + TTL + SECOND);
}

/// When the bus restarts, subscriptions are restored and say that something may be missing; the store is not
/// concerned.
#[tokio::test(start_paused = true)]
async fn a_restarted_bus() {
    let world = World::new(7);
    let (a, b) = (world.node("a"), world.node("b"));
    let (mut heard, mut watch) = (subscribe(&a, "s").await, watch(&a).await);
    world.apply(&Fault::RestartBus { down: SECOND }).unwrap();
    assert_unavailable(b.messaging().publish(message("lost")).await, Effect::None);
    b.discovery().put(key("k"), "".into(), None).await.unwrap();
    assert_eq!(changes(&mut watch).await.unwrap(), ["k"]);
    assert_eq!(heard.next().await.unwrap(), Err(Error::lagged(0)));
    b.messaging().publish(message("heard")).await.unwrap();
    assert_eq!(heard.next().await.unwrap().unwrap().payload, "heard");
}

/// F39, F40: the store goes back to what was saved, or is emptied, or loses a key.
#[tokio::test(start_paused = true)]
async fn f39_f40_the_store_is_replaced_or_loses_a_key() {
    let world = World::new(7);
    let store = world.memory().discovery();
    let keys = || world.memory().entries().entries.into_iter().map(|entry| entry.key).collect::<Vec<_>>();
    store.put(key("a"), "".into(), None).await.unwrap();
    world.apply(&Fault::Save).unwrap();
    store.put(key("b"), "".into(), None).await.unwrap();
    world.apply(&Fault::DeleteKey { from: "ab".to_owned() }).unwrap();
    assert_eq!(keys(), [key("a")]);
    world.apply(&Fault::DeleteKey { from: "ab".to_owned() }).unwrap();
    assert_eq!(keys(), []);
    world.apply(&Fault::Restore).unwrap();
    assert_eq!(keys(), [key("a")]);
    world.apply(&Fault::Empty).unwrap();
    assert_eq!(keys(), []);
    assert_eq!(world.memory().entries().revision.0, 1);
}

/// A fault for a node that never lived is refused by its name.
#[tokio::test(start_paused = true)]
async fn unknown_nodes_are_refused() {
    let world = World::new(7);
    let error = world.apply(&Fault::LoseReply { node: named() }).unwrap_err();
    assert!(error.code() == "not_found" && error.to_string().contains("node a"), "{error}");
}

/// F1, F2: connections of a dead process are closed, and those of a dead machine silent, at both ends; nobody
/// can connect to it, and its address is free for its next life.
#[tokio::test(start_paused = true)]
#[expect(clippy::disallowed_methods, reason = "a task that outlives its node has to be started so")]
async fn f1_f2_connections_die_with_their_node() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    for power_loss in [false, true] {
        let world = World::with(7, Profile::etcd());
        let (a, b) = (world.node("a"), world.node("b").environment());
        let mut listener = a.environment().listen("a:80").await.unwrap();
        let mut near = b.connect("a:80").await.unwrap();
        let (mut far, _) = listener.accept().await.unwrap();
        near.write_all(b"x").await.unwrap();
        far.read_u8().await.unwrap();
        let (node, down) = (named(), None);
        world
            .apply(&if power_loss { Fault::PowerLoss { node, down } } else { Fault::Crash { node, down } })
            .unwrap();
        let stray = tokio::spawn(async move {
            let written = timeout(TTL, far.write_all(b"y")).await;
            (written.map(|written| written.is_ok()), listener)
        });
        let heard = timeout(TTL, near.read(&mut [0; 8])).await;
        let connected = timeout(TTL, b.connect("a:80")).await;
        if power_loss {
            assert!(heard.is_err() && connected.is_err());
        } else {
            assert_eq!(heard.unwrap().unwrap(), 0);
            assert_eq!(connected.unwrap().err().unwrap().code(), "unavailable");
        }
        let (written, _listener) = stray.await.unwrap();
        assert_eq!(written.ok(), (!power_loss).then_some(false));
        let _listener = world.node("a").environment().listen("a:80").await.unwrap();
        b.connect("a:80").await.unwrap();
    }
}
