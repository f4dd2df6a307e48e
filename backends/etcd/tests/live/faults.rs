//! Servers that die, stand still, forget, or are not there; and what is noticed how soon.

use std::sync::{Arc, Barrier};
use std::time::Duration;

use slipring_core::{Commit, Discovery, DiscoveryExt, Effect, Error, Range, Revision, Start, Txn};
use slipring_etcd::{Config, EtcdDiscovery};
use slipring_servers::{Direction, Etcd, EtcdCluster, EtcdOptions, Port, Proxy, Version};
use tokio::time::{Instant, sleep, timeout};

use crate::fixture::{end, handle, key, next, put, range, system, until_ok, within};

/// Bounds that make a test quick.
fn hasty(endpoint: String) -> Config {
    let silence = Duration::from_secs(3);
    Config::new([endpoint]).with_call_timeout(Duration::from_secs(1)).with_watch_silence_max(silence)
}

/// U1592, F1: when the server is killed, watches end at once, calls fail with effect none as long as nobody
/// listens, and the same handle works again when the server is back: what was acknowledged is there, and the
/// watch goes on where it was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn u1592_a_killed_server_is_noticed_and_found_again() {
    for version in Version::ALL {
        let mut server = Etcd::start(version).await;
        let store = handle(Config::new([server.endpoint()])).await;
        let lease = store.grant(Duration::from_secs(30)).await.unwrap().id;
        let mut watch = store.watch(range("k/"), Start::Snapshot).await.unwrap();
        let before = put(&store, "k/1", "v").await;
        next(&mut watch).await.unwrap();
        server.kill();
        let (error, took) = end(&mut watch).await;
        println!("{version:?}: the watch ended {took:?} after the kill: {error}");
        assert_eq!((error.code(), error.effect()), ("unavailable", Effect::None));
        assert!(took < Duration::from_secs(2), "{took:?}");
        // The one that finds the connection dead may have been sent.
        let _ = store.read(Range::All).await;
        let began = Instant::now();
        let mut refused = 0;
        while began.elapsed() < Duration::from_secs(1) {
            let error = store.put(key("k/2"), "v".into(), None).await.unwrap_err();
            assert_eq!((error.code(), error.effect()), ("unavailable", Effect::None), "{error}");
            assert_eq!(store.keep_alive(lease).await.unwrap_err().code(), "unavailable");
            refused += 1;
            tokio::task::yield_now().await;
        }
        println!("{version:?}: {refused} puts were refused in a second");
        server.restart().await.unwrap();
        let (_, took) = until_ok("a read", || store.read(Range::All)).await;
        println!("{version:?}: it is read from again {took:?} after it listens");
        assert_eq!(store.entry(&key("k/1")).await.unwrap().unwrap().modified, before);
        assert_eq!(store.entry(&key("k/2")).await.unwrap(), None, "a put of effect none");
        until_ok("a heartbeat", || store.keep_alive(lease)).await;
        let mut watch = store.watch(range("k/"), Start::After(before)).await.unwrap();
        let at = put(&store, "k/3", "v").await;
        assert_eq!(next(&mut watch).await.unwrap().revision, at);
    }
}

/// K9, K10: of writes in flight at a kill, each acknowledged one is there afterwards, each of effect none is
/// not, and of the others nobody knew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn k9_writes_at_a_kill_are_as_they_were_told() {
    let mut server = Etcd::start(Version::Newer).await;
    let store = handle(hasty(server.endpoint())).await;
    let writes: Vec<_> = (0..400)
        .map(|number| {
            let store = store.clone();
            tokio::spawn(async move { store.create(key(format!("w/{number}")), "v".into(), None).await })
        })
        .collect();
    // Some of them are through.
    within("the first", async { while store.entry(&key("w/0")).await.unwrap().is_none() {} }).await;
    server.kill();
    let mut told = Vec::new();
    for write in writes {
        told.push(write.await.unwrap());
    }
    server.restart().await.unwrap();
    let (read, _) = until_ok("a read", || store.read(range("w/"))).await;
    let entries = read.entries;
    let (mut acknowledged, mut unknown, mut none) = (0, 0, 0);
    for (number, told) in told.into_iter().enumerate() {
        let there = entries.iter().any(|entry| entry.key == key(format!("w/{number}")));
        match told {
            Ok(_) => {
                acknowledged += 1;
                assert!(there, "{number} was acknowledged");
            }
            Err(error) if error.effect() == Effect::None => {
                none += 1;
                assert!(!there, "{number} had effect none: {error}");
            }
            Err(_) => unknown += 1,
        }
    }
    println!("{acknowledged} acknowledged, {unknown} unknown, {none} refused; {} are there", entries.len());
    assert!(acknowledged > 0);
}

/// F14: a server that stands still is noticed within the bounds that are documented: a call after
/// `call_timeout` (a write with effect unknown), a watch after two thirds of `watch_silence_max`. When it
/// goes on, so does the handle.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f14_a_hung_server_is_noticed() {
    for version in Version::ALL {
        let server = Etcd::start(version).await;
        let store = handle(hasty(server.endpoint())).await;
        let mut watch = store.watch(range("k/"), Start::Snapshot).await.unwrap();
        server.pause();
        let began = Instant::now();
        let (read, write) = tokio::join!(store.read(Range::All), store.put(key("k/1"), "v".into(), None));
        println!("{version:?}: calls ended {:?} after the pause", began.elapsed());
        assert!(began.elapsed() < Duration::from_secs(3));
        assert_eq!(read.unwrap_err().effect(), Effect::None);
        assert_eq!(write.unwrap_err().effect(), Effect::Unknown);
        let error = store.watch(range("k/"), Start::After(Revision(1))).await.unwrap_err();
        assert_eq!((error.code(), error.effect()), ("unavailable", Effect::None));
        let (error, _) = end(&mut watch).await;
        println!("{version:?}: the watch ended {:?} after the pause: {error}", began.elapsed());
        assert_eq!(error.code(), "unavailable");
        assert!(began.elapsed() < Duration::from_secs(6));
        server.resume();
        until_ok("a read", || store.read(Range::All)).await;
        let (mut watch, _) = until_ok("a watch", || store.watch(range("k/"), Start::Snapshot)).await;
        let at = put(&store, "k/2", "v").await;
        assert_eq!(next(&mut watch).await.unwrap().revision, at);
    }
}

/// F14: whatever is asked of a server that stands still, the answer comes within `call_timeout`, and says
/// rightly whether a write may have been executed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f14_whatever_is_asked_of_a_hung_server_ends() {
    const BOUND: Duration = Duration::from_secs(2);
    for version in Version::ALL {
        let server = Etcd::start(version).await;
        let store = handle(Config::new([server.endpoint()]).with_call_timeout(BOUND)).await;
        let lease = store.grant(Duration::from_secs(60)).await.unwrap().id;
        store.keep_alive(lease).await.unwrap();
        let watch = store.watch(range("k/"), Start::Snapshot).await.unwrap();
        server.pause();
        let txn = || Txn::new().put(key("k/1"), "v", Some(lease));
        let after = Start::After(Revision(1));
        // The first of each kind finds the connection open, the second has to dial.
        for round in 0..2 {
            let began = Instant::now();
            let timed = |error: Error| (error, began.elapsed());
            let ends = tokio::join!(
                async { ("read", Effect::None, timed(store.read(Range::All).await.unwrap_err())) },
                async { ("commit", Effect::Unknown, timed(store.commit(txn()).await.unwrap_err())) },
                async { ("watch", Effect::None, timed(store.watch(range("k/"), after).await.unwrap_err())) },
                async { ("grant", Effect::Unknown, timed(store.grant(BOUND).await.unwrap_err())) },
                async { ("keep_alive", Effect::Unknown, timed(store.keep_alive(lease).await.unwrap_err())) },
                async { ("revoke", Effect::Unknown, timed(store.revoke(lease).await.unwrap_err())) },
            );
            let (read, commit, watch, grant, beat, revoke) = ends;
            for (call, effect, (error, took)) in [read, commit, watch, grant, beat, revoke] {
                println!("{version:?}: {call} {round} ended after {took:?}: {error}");
                assert_eq!((error.code(), error.effect()), ("unavailable", effect), "{call}");
                assert!(took < BOUND + Duration::from_secs(1), "{call} took {took:?}");
            }
        }
        drop(watch);
    }
}

/// A call that may take long does not wait so long for a connection that is dead: pings are missing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_patient_call_notices_a_silent_connection() {
    let server = Etcd::start(Version::Debian).await;
    let proxy = Proxy::start(server.endpoint()).await;
    let config = Config::new([proxy.endpoint()]).with_call_timeout(Duration::from_secs(60));
    let store = handle(config.with_keep_alive(Duration::from_secs(5), Duration::from_secs(1))).await;
    proxy.silence();
    let began = Instant::now();
    let error = store.read(Range::All).await.unwrap_err();
    println!("ended after {:?}: {error}", began.elapsed());
    assert_eq!(error.code(), "unavailable");
    assert!(began.elapsed() < Duration::from_secs(15));
}

/// A handle that is not used finds out by itself that its server hangs: the first call after that goes to
/// another and does not fail, nor does the first heartbeat.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_handle_notices_a_silent_connection() {
    for version in Version::ALL {
        let server = Etcd::start(version).await;
        let hung = Proxy::start(server.endpoint()).await;
        let config = Config::new([hung.endpoint(), server.endpoint()]);
        let (interval, bound) = (Duration::from_secs(5), Duration::from_secs(1));
        let store = handle(config.with_keep_alive(interval, bound)).await;
        let lease = store.grant(Duration::from_secs(60)).await.unwrap();
        assert_eq!(store.keep_alive(lease.id).await.unwrap(), lease.ttl);
        assert_eq!(hung.connections(), 2, "one for calls, one for heartbeats");
        hung.silence();
        // Nothing that could be waited for can be seen from outside.
        sleep(interval + bound * 2).await;
        let began = Instant::now();
        let (read, beat) = tokio::join!(store.read(Range::All), store.keep_alive(lease.id));
        println!("{version:?}: the first calls after the silence took {:?}", began.elapsed());
        read.unwrap();
        assert_eq!(beat.unwrap(), lease.ttl);
    }
}

/// etcd-client #54, #48: with nothing but pings and signs of life, a connection that has gone silent under a
/// watch is noticed, also when only one direction is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client48_a_silent_connection_is_noticed() {
    let server = Etcd::start(Version::Debian).await;
    for direction in [Direction::ToServer, Direction::ToClient] {
        let proxy = Proxy::start(server.endpoint()).await;
        let store = handle(hasty(proxy.endpoint())).await;
        let mut watch = store.watch(range("k/"), Start::Snapshot).await.unwrap();
        proxy.silence_towards(direction);
        let (error, took) = end(&mut watch).await;
        println!("{direction:?}: ended after {took:?}: {error}");
        assert_eq!(error.code(), "unavailable");
        assert!(took < Duration::from_secs(6), "{took:?}");
    }
}

/// A heartbeat that hangs is ended by its caller alone; the next one has a connection of its own and gets
/// through as soon as the server answers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hung_heartbeat_does_not_hold_up_the_next() {
    let server = Etcd::start(Version::Newer).await;
    let hung = Proxy::start(server.endpoint()).await;
    let store = handle(Config::new([hung.endpoint(), server.endpoint()])).await;
    let ttl = Duration::from_secs(3);
    let lease = store.grant(ttl).await.unwrap().id;
    assert_eq!(store.keep_alive(lease).await.unwrap(), ttl);
    hung.silence();
    let bound = ttl / 6;
    assert!(timeout(bound, store.keep_alive(lease)).await.is_err(), "the proxy is silent");
    let began = Instant::now();
    let next = timeout(bound, store.keep_alive(lease)).await;
    println!("the next heartbeat took {:?}", began.elapsed());
    assert_eq!(next.expect("the other server answers").unwrap(), ttl);
}

/// D15: heartbeats get through while every thread of the pool that they began on is busy.
#[test]
fn d15_a_busy_pool_does_not_starve_heartbeats() {
    const TTL: Duration = Duration::from_secs(30);
    let pool = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (_server, store, lease) = pool.block_on(async {
        let server = Etcd::start(Version::Newer).await;
        let store = handle(Config::new([server.endpoint()])).await;
        let lease = store.grant(TTL).await.unwrap().id;
        store.keep_alive(lease).await.unwrap();
        (server, store, lease)
    });
    let (busy, free) = (Arc::new(Barrier::new(3)), Arc::new(Barrier::new(3)));
    for _ in 0..2 {
        let (busy, free) = (busy.clone(), free.clone());
        pool.spawn(async move {
            busy.wait();
            free.wait();
        });
    }
    busy.wait();
    let elsewhere = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let beats: Vec<_> = (0..3)
        .map(|_| elsewhere.block_on(async { timeout(Duration::from_secs(5), store.keep_alive(lease)).await }))
        .collect();
    free.wait();
    for beat in beats {
        assert_eq!(beat.expect("the heartbeat is answered").unwrap(), TTL);
    }
}

/// With a dead server among the endpoints, wherever it stands, no call fails.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_endpoint_fails_no_call() {
    let server = Etcd::start(Version::Newer).await;
    let [dead] = Port::claim();
    for endpoints in [[server.endpoint(), dead.address()], [dead.address(), server.endpoint()]] {
        let store = EtcdDiscovery::new(Config::new(endpoints), system()).unwrap();
        let lease = store.grant(Duration::from_secs(10)).await.unwrap().id;
        for _ in 0..100 {
            put(&store, "k", "v").await;
            store.keep_alive(lease).await.unwrap();
        }
        let mut watch = store.watch(range("k/"), Start::Snapshot).await.unwrap();
        let at = put(&store, "k/1", "v").await;
        assert_eq!(next(&mut watch).await.unwrap().revision, at);
    }
}

/// The first of two servers hangs: the call that notices fails, and then the other is used.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hung_endpoint_is_left() {
    let server = Etcd::start(Version::Debian).await;
    let hung = Proxy::start(server.endpoint()).await;
    hung.silence();
    let config = Config::new([hung.endpoint(), server.endpoint()]).with_call_timeout(Duration::from_secs(1));
    let store = EtcdDiscovery::new(config, system()).unwrap();
    assert_eq!(store.read(Range::All).await.unwrap_err().code(), "unavailable");
    for _ in 0..20 {
        store.read(Range::All).await.unwrap();
    }
    store.watch(range("k/"), Start::Snapshot).await.unwrap();
}

/// The same for a watch: whether its stream has still to be opened or hangs, the next attempt is made with
/// the other server.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hung_endpoint_is_left_by_watches() {
    let server = Etcd::start(Version::Debian).await;
    for opened in [false, true] {
        let hung = Proxy::start(server.endpoint()).await;
        let config = Config::new([hung.endpoint(), server.endpoint()]);
        let store = EtcdDiscovery::new(config.with_call_timeout(Duration::from_secs(1)), system()).unwrap();
        let after = Start::After(Revision(1));
        if opened {
            store.watch(range("k/"), after).await.unwrap();
        }
        hung.silence();
        let error = store.watch(range("k/"), after).await.unwrap_err();
        assert_eq!((error.code(), error.effect()), ("unavailable", Effect::None));
        store.watch(range("k/"), after).await.unwrap();
    }
}

/// F39: a store that was emptied is beyond what was seen before: the watch that goes on from there is told so
/// at once, also when new writes have overtaken the old revision.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f39_an_emptied_store_is_noticed() {
    for version in Version::ALL {
        let mut server = Etcd::start(version).await;
        let store = handle(Config::new([server.endpoint()])).await;
        let mut watch = store.watch(range("k/"), Start::Snapshot).await.unwrap();
        let mut last = Revision(0);
        for number in 0..20 {
            last = put(&store, format!("k/{number}"), "old").await;
            next(&mut watch).await.unwrap();
        }
        server.kill();
        end(&mut watch).await;
        server.wipe();
        server.restart().await.unwrap();
        until_ok("a read", || store.read(Range::All)).await;
        let error = store.watch(range("k/"), Start::After(last)).await.unwrap_err();
        assert_eq!(error.code(), "compacted");
        while put(&store, "other", "new").await <= last {}
        let error = store.watch(range("k/"), Start::After(Revision(last.0 - 1))).await.unwrap_err();
        assert_eq!(error.code(), "compacted");
        let mut watch = store.watch(range("k/"), Start::Snapshot).await.unwrap();
        let at = put(&store, "k/1", "new").await;
        assert_eq!(next(&mut watch).await.unwrap().revision, at);
    }
}

/// F19, U3899: the leader of three is killed: writes go through a survivor after its election, and what the
/// watch on one of them shows is whole.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn u3899_the_leader_may_die() {
    for version in Version::ALL {
        let mut cluster = EtcdCluster::start(version, EtcdOptions::default()).await;
        let config = Config::new(cluster.endpoints()).with_call_timeout(Duration::from_millis(500));
        let store = handle(config).await;
        let base = put(&store, "k/0", "v").await;
        let leader = cluster.leader().await;
        cluster.members[leader].kill();
        let began = Instant::now();
        for number in 1..=20 {
            let key = key(format!("k/{number}"));
            let write = || store.commit(Txn::new().absent(key.clone()).put(key.clone(), "v", None));
            // An attempt whose fate was unknown may have won.
            let (Commit::Applied(_) | Commit::Refused, _) = until_ok("a write", write).await;
        }
        println!("{version:?}: 20 writes after the leader's death took {:?}", began.elapsed());
        let (mut watch, _) = until_ok("a watch", || store.watch(range("k/"), Start::After(base))).await;
        let mut shown = Vec::new();
        while shown.len() < 20 {
            let batch = next(&mut watch).await.unwrap();
            shown.extend(batch.changes.iter().map(|change| change.key().as_str().to_owned()));
        }
        assert_eq!(shown, (1..=20).map(|number| format!("k/{number}")).collect::<Vec<_>>());
    }
}

/// Fact 14: a watch on a member that has lost its leader does not stay silent.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_without_a_leader_ends() {
    let mut cluster = EtcdCluster::start(Version::Debian, EtcdOptions::default()).await;
    let leader = cluster.leader().await;
    let survivor = (leader + 1) % 3;
    let store = handle(Config::new([cluster.members[survivor].endpoint()])).await;
    let mut watch = store.watch(range("k/"), Start::Snapshot).await.unwrap();
    for member in (0..3).filter(|member| *member != survivor) {
        cluster.members[member].kill();
    }
    let (error, took) = end(&mut watch).await;
    println!("it ended after {took:?}: {error}");
    assert_eq!(error.code(), "unavailable");
    let error = store.put(key("k/1"), "v".into(), None).await.unwrap_err();
    assert_eq!(error.code(), "unavailable");
}

/// A member without a leader is left for another server: the call that was refused fails, the next does not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_without_a_leader_is_left() {
    let mut cluster = EtcdCluster::start(Version::Newer, EtcdOptions::default()).await;
    let other = Etcd::start(Version::Newer).await;
    let leader = cluster.leader().await;
    let survivor = (leader + 1) % 3;
    let store = handle(Config::new([cluster.members[survivor].endpoint(), other.endpoint()])).await;
    for member in (0..3).filter(|member| *member != survivor) {
        cluster.members[member].kill();
    }
    // Until the member itself knows.
    let alone = hasty(cluster.members[survivor].endpoint());
    let alone = EtcdDiscovery::new(alone, system()).unwrap();
    within("a refusal", async {
        while !alone.read(Range::All).await.unwrap_err().to_string().contains("no leader") {}
    })
    .await;
    assert_eq!(store.read(Range::All).await.unwrap_err().code(), "unavailable");
    store.read(Range::All).await.unwrap();
}

/// U10798: a handle that is made before the server is up waits for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn u10798_the_server_may_start_later() {
    let mut server = Etcd::start(Version::Debian).await;
    server.kill();
    let store = EtcdDiscovery::new(Config::new([server.endpoint()]), system()).unwrap();
    let waiting = tokio::spawn({
        let store = store.clone();
        async move { store.capabilities().await }
    });
    sleep(Duration::from_millis(500)).await;
    assert!(!waiting.is_finished());
    server.restart().await.unwrap();
    within("the capabilities", waiting).await.unwrap().unwrap();
}

/// A server that never comes up is waited for as long as it was said, and the error names the endpoint.
#[tokio::test]
async fn waiting_for_a_server_is_bounded() {
    let [dead] = Port::claim();
    let bound = Duration::from_secs(1);
    let config = Config::new([dead.address()]).with_startup_timeout(bound);
    let store = EtcdDiscovery::new(config, system()).unwrap();
    let began = Instant::now();
    let error = store.capabilities().await.unwrap_err();
    assert!(began.elapsed() >= bound);
    assert!(
        matches!(&error, Error::Unavailable { .. }) && error.to_string().contains(&dead.address()),
        "{error}"
    );
}

/// An idle handle, and one with an idle watch, keep their connections: the server counts pings that come too
/// often, or when nothing is open, as an attack, and would have ended the connection after 20 s.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_connection_is_left_alone() {
    const IDLE: Duration = Duration::from_secs(26);
    let server = Etcd::start(Version::Newer).await;
    let old = Etcd::start(Version::Debian).await;
    let mut watched = Vec::new();
    for server in [&server, &old] {
        let (idle, watching) = (Proxy::start(server.endpoint()).await, Proxy::start(server.endpoint()).await);
        // As often as it is allowed.
        let config = |proxy: &Proxy| {
            Config::new([proxy.endpoint()]).with_keep_alive(Duration::from_secs(5), Duration::from_secs(5))
        };
        let (quiet, store) = (handle(config(&idle)).await, handle(config(&watching)).await);
        let watch = store.watch(range("k/"), Start::Snapshot).await.unwrap();
        watched.push((idle, watching, quiet, store, watch));
    }
    sleep(IDLE).await;
    for (idle, watching, quiet, store, mut watch) in watched {
        quiet.read(Range::All).await.unwrap();
        assert_eq!((idle.accepted(), watching.accepted()), (1, 1), "no connection but the first");
        let at = put(&store, "k/1", "v").await;
        assert_eq!(next(&mut watch).await.unwrap().revision, at);
    }
}
