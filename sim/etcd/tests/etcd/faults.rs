//! One fault at a time, for many seeds: what the adapter notices how soon, and what works again when.

use std::sync::Arc;
use std::time::Duration;

use slipring_core::{Discovery, DiscoveryExt, Effect, Environment, EnvironmentExt, Range, Start};
use slipring_etcd::Config;
use slipring_sim::World;
use tokio::time::{Instant, sleep, timeout};

use crate::plain;
use crate::scene::{SECOND, Scene, config, end, key, next, put, range, until_ok, within};
use crate::seeds::each_seed;
use crate::wire::Way;

const BOTH: [Way; 2] = [Way::ToServer, Way::ToClient];

fn two_servers() -> Config {
    Config::new(["etcd-1:2379", "etcd-2:2379"])
}

async fn with_two_servers(world: World) -> Scene {
    let scene = Scene::without_servers(world);
    for name in ["etcd-1", "etcd-2"] {
        scene.serve(name).await;
    }
    scene
}

/// etcd-client #54, #48: when a partition has killed a connection without a word, a put ends within its bound
/// and the next one gets through; a client without bounds and pings waits for ever, also when the network is
/// well again.
#[test]
fn client48_a_put_does_not_hang_after_a_partition() {
    each_seed("partition", 50, async |world| {
        let scene = Scene::new(world).await;
        let (ours, theirs) = (scene.wired("ours"), scene.wired("theirs"));
        let store = scene.adapter(config(), &ours);
        let mut plain = plain::client(&theirs, "etcd:2379").await;
        put(&store, "k/1").await;
        plain.put("k/1", "", None).await.unwrap();
        for wired in [&ours, &theirs] {
            wired.silence("etcd:2379", &BOTH);
            wired.lose_connections();
        }
        let (put_of_ours, put_of_theirs) = tokio::join!(
            store.put(key("k/2"), "v".into(), None),
            timeout(30 * SECOND, plain.put("k/2", "", None))
        );
        assert_eq!(put_of_ours.unwrap_err().effect(), Effect::Unknown);
        assert!(put_of_theirs.is_err());
        ours.heal("etcd:2379");
        theirs.heal("etcd:2379");
        let (_, took) = until_ok("a put", || store.put(key("k/3"), "v".into(), None)).await;
        assert!(took <= 2 * SECOND, "{took:?}");
        let stuck = timeout(120 * SECOND, plain.put("k/3", "", None)).await;
        assert!(stuck.is_err(), "without pings nothing notices: {stuck:?}");
    });
}

/// W6, U1592: a watch whose connection fell silent ends within the declared bound, whichever direction is lost,
/// and goes on elsewhere after the last revision that it showed.
#[test]
fn w6_a_silent_watch_ends_and_resumes() {
    each_seed("silence", 100, async |world| {
        let scene = with_two_servers(world).await;
        let wired = scene.wired("reader");
        let store = scene.adapter(two_servers(), &wired);
        let silence_max = store.capabilities().await.unwrap().watch_silence_max;
        let ways: &[Way] = match wired.random("way") % 3 {
            0 => &[Way::ToServer],
            1 => &[Way::ToClient],
            _ => &BOTH,
        };
        let mut watch = store.watch(range("k/"), Start::Snapshot).await.unwrap();
        put(&store, "k/1").await;
        let seen = next(&mut watch).await.unwrap().revision;
        wired.silence("etcd-1:2379", ways);
        let (error, took) = end(&mut watch).await;
        assert_eq!(error.code(), "unavailable");
        assert!(took <= silence_max, "{took:?}");
        let (mut watch, took) = until_ok("a watch", || store.watch(range("k/"), Start::After(seen))).await;
        assert!(took <= 5 * SECOND, "{took:?}");
        let at = put(&store, "k/2").await;
        assert_eq!(next(&mut watch).await.unwrap().revision, at);
    });
}

/// F14, F15: when the server in use dies or stands still, calls go to the other one: at once after a crash, and
/// after one bounded failure if it is only silent.
#[test]
fn f14_calls_move_to_the_other_server() {
    each_seed("failover", 100, async |world| {
        let scene = with_two_servers(world).await;
        let wired = scene.wired("caller");
        let store = scene.adapter(two_servers(), &wired);
        put(&store, "k/1").await;
        let crashes = wired.random("kind").is_multiple_of(2);
        let server = scene.world.node("etcd-1");
        if crashes {
            server.crash()
        } else {
            server.environment().pause()
        }
        let (_, took) = until_ok("a put", || store.put(key("k/2"), "v".into(), None)).await;
        let bound = if crashes { SECOND } else { 6 * SECOND };
        assert!(took <= bound, "crashes: {crashes}, {took:?}");
        // It stays there.
        let began = Instant::now();
        for _ in 0..10 {
            put(&store, "k/3").await;
        }
        assert!(began.elapsed() < SECOND, "{:?}", began.elapsed());
    });
}

/// U10798: while no server is there, somebody who tries without pause is refused at once with effect none and
/// dials about once in a second; when one is back, so are calls, within the longest pause and its election.
#[test]
fn u10798_a_dead_server_is_dialled_with_pauses() {
    each_seed("backoff", 5, async |world| {
        let scene = Scene::new(world).await;
        let wired = scene.wired("caller");
        let store = scene.adapter(config(), &wired);
        put(&store, "k/1").await;
        scene.world.node("etcd").crash();
        // The one that finds the connection dead may have been sent.
        let _ = store.read(Range::All).await;
        let before = wired.attempts();
        let began = Instant::now();
        while began.elapsed() < 60 * SECOND {
            let error = store.put(key("k/2"), "v".into(), None).await.unwrap_err();
            assert_eq!((error.code(), error.effect()), ("unavailable", Effect::None), "{error}");
            sleep(Duration::from_millis(20)).await;
        }
        let attempts = wired.attempts() - before;
        assert!((60..=130).contains(&attempts), "{attempts} in a minute");
        scene.serve("etcd").await;
        let (_, took) = until_ok("a put", || store.put(key("k/3"), "v".into(), None)).await;
        assert!(took <= 2 * SECOND, "{took:?}");
        assert_eq!(store.entry(&key("k/2")).await.unwrap(), None, "puts of effect none");
    });
}

/// K6: a read of many pages is of one revision, whatever is written and forgotten between its pages.
#[test]
fn k6_pages_are_of_one_revision() {
    each_seed("paging", 5, async |world| {
        const KEYS: usize = 2_500;
        let scene = Scene::new(world).await;
        let wired = scene.wired("reader");
        wired.set_latency_max(Duration::from_millis(20));
        let store = scene.adapter(config(), &wired);
        let writer = scene.within_process("writer");
        for first in (0..KEYS).step_by(100) {
            let txn = (first..first + 100).fold(slipring_core::Txn::new(), |txn, number| {
                txn.put(key(format!("p/{number:04}")), "0", None)
            });
            let _ = writer.commit(txn).await.unwrap();
        }
        let (etcd, environment) = (scene.etcd.clone(), scene.world.node("writer").environment());
        let write = async move {
            for round in 1_u64.. {
                // The first and the last key always say the same.
                let both = slipring_core::Txn::new().put(key("p/0000"), round.to_string(), None).put(
                    key(format!("p/{:04}", KEYS - 1)),
                    round.to_string(),
                    None,
                );
                let _ = writer.commit(both).await.unwrap();
                if round % 7 == 0 {
                    etcd.compact();
                }
                sleep(Duration::from_millis(30)).await;
            }
        };
        let _writing = environment.start("writer", write);
        let mut rounds = 0;
        for _ in 0..10 {
            match store.read(range("p/")).await {
                Ok(snapshot) => {
                    assert_eq!(snapshot.entries.len(), KEYS);
                    assert_eq!(snapshot.entries[0].value, snapshot.entries[KEYS - 1].value);
                    assert_eq!(snapshot.entries[0].modified, snapshot.entries[KEYS - 1].modified);
                    rounds += 1;
                }
                // Forgotten faster than it can be read.
                Err(error) => assert_eq!(error.code(), "unavailable", "{error}"),
            }
        }
        assert!(rounds > 0);
    });
}

/// SW4, W11: a reader that does not read is told so, and holds up neither its neighbour nor the calls, all of
/// which share its connection.
#[test]
fn sw4_a_slow_reader_is_told_and_alone() {
    each_seed("slow reader", 3, async |world| {
        let scene = Scene::new(world).await;
        let wired = scene.wired("reader");
        let store = scene.adapter(config().with_watch_buffer(64, 1024 * 1024), &wired);
        let mut slow = store.watch(range("k/"), Start::Snapshot).await.unwrap();
        let mut quick = store.watch(range("k/"), Start::Snapshot).await.unwrap();
        for number in 0..100 {
            let value = vec![b'x'; 100_000];
            let at = store.put(key(format!("k/{number}")), value.into(), None).await.unwrap();
            assert_eq!(within("the quick reader", next(&mut quick)).await.unwrap().revision, at);
        }
        let (error, _) = end(&mut slow).await;
        assert_eq!(error.code(), "compacted");
    });
}

/// L7, L10: as long as one server can be reached, a lease that is kept alive in time is never lost, however
/// the other one fails under its heartbeats.
#[test]
fn l7_heartbeats_find_the_server_that_answers() {
    each_seed("heartbeats", 20, async |world| {
        let scene = with_two_servers(world).await;
        let wired = scene.wired("owner");
        let store = scene.adapter(two_servers(), &wired);
        let ttl = 10 * SECOND;
        let lease = store.grant(ttl).await.unwrap();
        let began = Instant::now();
        let mut confirmed = began;
        let mut servers = ["etcd-1", "etcd-2"].into_iter().cycle();
        let (mut ailing, mut change_at) = (None, began + 5 * SECOND);
        while began.elapsed() < 120 * SECOND {
            if Instant::now() >= change_at {
                if let Some(name) = ailing.take() {
                    wired.heal(&format!("{name}:2379"));
                }
                let name = servers.next().unwrap();
                match wired.random("fault") % 3 {
                    0 => wired.silence(&format!("{name}:2379"), &BOTH),
                    1 => wired.silence(&format!("{name}:2379"), &[Way::ToClient]),
                    _ => wired.lose_connections(),
                }
                ailing = Some(name);
                change_at =
                    Instant::now() + 10 * SECOND + Duration::from_millis(wired.random("lasts") % 10_000);
            }
            let sent = Instant::now();
            match timeout(ttl / 6, store.keep_alive(lease.id)).await {
                Ok(Ok(lives)) => {
                    assert_eq!(lives, ttl);
                    confirmed = sent;
                }
                Ok(Err(error)) => assert_ne!(error.code(), "lease_lost", "{error}"),
                Err(_) => {}
            }
            assert!(confirmed.elapsed() < ttl, "not confirmed for {:?}", confirmed.elapsed());
            tokio::time::sleep_until(sent + ttl / 3).await;
        }
    });
}

/// L1, L6, L10: an owner that is cut off longer than its lease lives is told `LeaseLost` as soon as it reaches a
/// server again; its key stood until the last confirmed time to live was over, and not much longer.
#[test]
fn l10_a_lease_is_lost_on_time() {
    each_seed("lease loss", 100, async |world| {
        let scene = Scene::new(world).await;
        let wired = scene.wired("owner");
        let store: Arc<dyn Discovery> = Arc::new(scene.adapter(config(), &wired));
        let observer = scene.within_process("observer");
        let ttl = 5 * SECOND;
        let lease = store.grant(ttl).await.unwrap();
        store.put(key("k/owner"), "v".into(), Some(lease.id)).await.unwrap();
        sleep(Duration::from_millis(wired.random("when") % 4_000)).await;
        let sent = Instant::now();
        assert_eq!(store.keep_alive(lease.id).await.unwrap(), ttl);
        let confirmed = Instant::now();
        wired.silence("etcd:2379", &BOTH);
        let mut watch = observer.watch(range("k/"), Start::Snapshot).await.unwrap();
        let gone = next(&mut watch).await.unwrap();
        assert_eq!(gone.changes.len(), 1);
        assert!(sent.elapsed() >= ttl, "early: {:?}", sent.elapsed());
        assert!(confirmed.elapsed() <= ttl + SECOND, "late: {:?}", confirmed.elapsed());
        wired.heal("etcd:2379");
        let lost = async {
            loop {
                match timeout(ttl / 6, store.keep_alive(lease.id)).await {
                    Ok(Err(error)) if error.code() == "lease_lost" => return,
                    Ok(Ok(_)) => panic!("a lease that is gone was kept alive"),
                    _ => sleep(Duration::from_millis(100)).await,
                }
            }
        };
        let healed = Instant::now();
        within("the bad news", lost).await;
        assert!(healed.elapsed() <= 3 * SECOND, "{:?}", healed.elapsed());
    });
}
