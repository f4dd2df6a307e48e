//! The way to the broker breaks.

use super::common::*;

/// F6: when only the way to the broker is lost, a node's calls hang and are executed after the end, but it
/// goes on to see what others do.
#[tokio::test(start_paused = true)]
async fn f06_f07_lost_to_the_broker() {
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
async fn f06_lost_from_the_broker() {
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
async fn f05_partitions_overlap() {
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
async fn f05_a_partition_holds_what_is_under_way() {
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
async fn f08_f12_messages_take_their_time() {
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
async fn f09_calls_overtake_each_other() {
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
async fn f17_f18_a_lost_request_is_not_executed() {
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
async fn f11_a_request_may_outlive_its_caller() {
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

/// F9: messages of two publishers overtake each other where their latencies differ; each publisher's own do not
/// (M2).
#[tokio::test(start_paused = true)]
async fn f09_publishers_overtake_each_other() {
    let world = World::new(7);
    let (a, b) = (world.node("a"), world.node("b"));
    let mut heard = subscribe(&world.node("c"), "s").await;
    world.apply(&Fault::Latency { node: named(), latency: Latency::between(SECOND, SECOND) }).unwrap();
    let (slow, fast) = (a.messaging(), b.messaging());
    let publish = async {
        let slow = join(slow.publish(message("a1")), slow.publish(message("a2")));
        let (slow, fast) = join(slow, join(fast.publish(message("b1")), fast.publish(message("b2")))).await;
        [slow.0, slow.1, fast.0, fast.1].into_iter().for_each(Result::unwrap);
    };
    let read = async {
        for text in ["b1", "b2", "a1", "a2"] {
            assert_eq!(heard.next().await.unwrap().unwrap().payload, text);
        }
    };
    join(publish, read).await;
}

/// F11: a request whose reply is lost was executed; who tries again has it executed twice.
#[tokio::test(start_paused = true)]
async fn f11_a_request_is_executed_twice() {
    let world = World::new(7);
    let executed = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
    let counter = executed.clone();
    world.spawn_node("server", move |node: Node| {
        let counter = counter.clone();
        async move {
            let mut requests = subscribe(&node, "s").await;
            while let Some(Ok(request)) = requests.next().await {
                counter.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                let reply = Message::new(request.reply.unwrap(), "done");
                node.messaging().publish(reply).await.unwrap();
            }
        }
    });
    let caller = world.node("a");
    sleep(SECOND).await;
    world.apply(&Fault::LoseReply { node: named() }).unwrap();
    let bus = caller.messaging();
    assert_unavailable(bus.request(message("do"), SECOND).await, Effect::Unknown);
    assert_eq!(bus.request(message("do"), SECOND).await.unwrap().payload, "done");
    assert_eq!(executed.load(std::sync::atomic::Ordering::Relaxed), 2);
}

/// F19: a store that has too many requests refuses those of a node, and executes none; others are served.
#[tokio::test(start_paused = true)]
async fn f19_the_store_refuses() {
    let world = World::new(7);
    let (a, b) = (world.node("a").discovery(), world.node("b").discovery());
    world.apply(&Fault::Overload { node: named(), lasts: SECOND }).unwrap();
    let refused = a.put(key("a"), "".into(), None).await.unwrap_err();
    assert_eq!((refused.code(), refused.effect()), ("overloaded", Effect::None));
    b.put(key("b"), "".into(), None).await.unwrap();
    assert_eq!(keys(&world), ["b"]);
    sleep(2 * SECOND).await;
    a.put(key("a"), "".into(), None).await.unwrap();
}

/// F23: heartbeats that are lost on their way do not keep a lease; those whose answers alone are lost do. Their
/// caller cannot tell them apart, and writes are not concerned.
#[tokio::test(start_paused = true)]
async fn f23_lost_heartbeats() {
    for executed in [false, true] {
        let world = World::new(7);
        let a = world.node("a");
        let lease = register(&a).await;
        sleep(TTL - SECOND).await;
        world.apply(&Fault::LoseHeartbeats { node: named(), beats: 2, executed }).unwrap();
        for _ in 0..2 {
            assert_unavailable(a.discovery().keep_alive(lease.id).await, Effect::Unknown);
        }
        a.discovery().put(key("k"), "".into(), None).await.unwrap();
        sleep(2 * SECOND).await;
        assert_eq!(keys(&world).contains(&named()), executed);
        assert_eq!(a.discovery().keep_alive(lease.id).await.is_ok(), executed);
    }
}

/// F36: everybody loses its connection at once, and can have a new one at once when it is over.
#[tokio::test(start_paused = true)]
async fn f36_everybody_is_cut() {
    let world = World::new(7);
    let (a, b) = (world.node("a"), world.node("b"));
    let (mut one, mut other) = (watch(&a).await, watch(&b).await);
    world.apply(&Fault::CutAll { lasts: SECOND }).unwrap();
    assert_unavailable(changes(&mut one).await, Effect::None);
    assert_unavailable(changes(&mut other).await, Effect::None);
    assert_unavailable(a.discovery().read(Range::All).await, Effect::None);
    sleep(2 * SECOND).await;
    a.discovery().read(Range::All).await.unwrap();
    b.discovery().read(Range::All).await.unwrap();
}

/// F24: a revoke, a heartbeat and a write with the lease race over a link whose latency varies; whatever comes
/// first, the lease is gone at the end with its key, and nothing is answered wrongly.
#[tokio::test(start_paused = true)]
async fn f24_a_revoke_races() {
    let mut outcomes = std::collections::BTreeSet::new();
    for seed in 0..30 {
        let latency = Latency::between(Duration::ZERO, SECOND);
        let world = World::with(seed, Setup::new().with_latency(latency));
        let a = world.node("a");
        let store = a.discovery();
        let lease = store.grant(10 * TTL).await.unwrap().id;
        let put = store.put(key("k"), "".into(), Some(lease));
        let (revoke, beat, put) = join3(store.revoke(lease), store.keep_alive(lease), put).await;
        revoke.unwrap();
        assert_eq!(keys(&world), [""; 0]);
        let lost = |code: &str| assert_eq!(code, "lease_lost");
        beat.as_ref().err().map(Error::code).into_iter().for_each(lost);
        put.as_ref().err().map(Error::code).into_iter().for_each(lost);
        outcomes.insert((beat.is_ok(), put.is_ok()));
    }
    assert_eq!(outcomes.len(), 4, "{outcomes:?}");
}
