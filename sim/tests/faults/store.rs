//! The store breaks.

use super::common::*;

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
async fn f03_f20_a_restarted_store() {
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

/// F4: a store that dies after it executed a write, before the answer arrives: the caller cannot know, and the
/// write is there.
#[tokio::test(start_paused = true)]
async fn f04_the_store_dies_before_it_answers() {
    let world = World::with(7, Setup::new().with_latency(Latency::between(SECOND, SECOND)));
    let store = world.node("a").discovery();
    let restart = async {
        sleep(SECOND + SECOND / 2).await;
        world.apply(&Fault::RestartStore { down: SECOND, ready: SECOND }).unwrap();
    };
    let (put, ()) = join(store.put(key("k"), "".into(), None), restart).await;
    assert_unavailable(put, Effect::Unknown);
    assert_eq!(keys(&world), ["k"]);
}

/// F21: a leader that is none any more ends a lease that was just renewed: its key goes, and its owner is told
/// at its next heartbeat. Others' leases live on.
#[tokio::test(start_paused = true)]
async fn f21_a_live_lease_is_ended() {
    let world = World::new(7);
    let (a, b) = (world.node("a"), world.node("b"));
    let (gone, lives) = (register(&a).await, register(&b).await);
    a.discovery().keep_alive(gone.id).await.unwrap();
    world.apply(&Fault::EndLease { from: named() }).unwrap();
    assert_eq!(keys(&world), ["b"]);
    assert_eq!(a.discovery().keep_alive(gone.id).await, Err(Error::lease_lost(gone.id)));
    b.discovery().keep_alive(lives.id).await.unwrap();
}

/// F22: of many leases that are due at once, each look ends as many as the profile says.
#[tokio::test(start_paused = true)]
async fn f22_leases_pile_up() {
    let world = World::with(7, Profile::etcd().with_expiries_per_scan(2));
    let store = world.node("a").discovery();
    for number in 0..5 {
        let lease = store.grant(TTL).await.unwrap();
        store.put(key(&format!("k{number}")), "".into(), Some(lease.id)).await.unwrap();
    }
    let mut left = Vec::new();
    sleep(TTL).await;
    for _ in 0..4 {
        left.push(keys(&world).len());
        sleep(SECOND / 2).await;
    }
    assert_eq!(left, [5, 3, 1, 0]);
}

/// F30: a node that is served by a member that lags behind reads what was; its writes go to the leader, and
/// afterwards it reads what is. A profile that promises better refuses the fault.
#[tokio::test(start_paused = true)]
async fn f30_stale_reads() {
    let exact = Profile::exact();
    let weaker = exact.discovery.with_read(slipring_core::ReadConsistency::Sequential);
    let world = World::with(7, exact.with_discovery(weaker));
    let (a, b) = (world.node("a").discovery(), world.node("b").discovery());
    let stale = Fault::StaleReads { node: named(), lasts: SECOND };
    world.apply(&stale).unwrap();
    a.put(key("k"), "".into(), None).await.unwrap();
    assert_eq!(a.entry(&key("k")).await.unwrap(), None);
    assert!(b.entry(&key("k")).await.unwrap().is_some());
    sleep(2 * SECOND).await;
    assert!(a.entry(&key("k")).await.unwrap().is_some());

    let strict = World::new(7);
    strict.node("a");
    assert_eq!(strict.apply(&stale).unwrap_err().code(), "unsupported");
}
