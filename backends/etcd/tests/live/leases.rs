//! Leases: what is granted, what is lost, and what the last half second of one is like.

use std::time::Duration;

use slipring_core::{Change, Discovery, DiscoveryExt, Effect, Start};
use slipring_etcd::Config;
use slipring_servers::{Etcd, EtcdOptions, Version};
use tokio::time::Instant;

use crate::fixture::{end, handle, key, next, range, until_ok};

/// L8: at etcd's own pace of elections, a second is asked for and two are granted, as the answer says.
#[tokio::test]
async fn l8_what_is_granted_is_what_holds() {
    for version in Version::ALL {
        let mut options = EtcdOptions::default();
        options.own_timing = true;
        let server = Etcd::start_with(version, options).await;
        let store = handle(Config::new([server.endpoint()])).await;
        for (asked, granted) in [(1, 2_000), (1_000, 2_000), (2_001, 3_000), (10_000, 10_000)] {
            let lease = store.grant(Duration::from_millis(asked)).await.unwrap();
            assert_eq!(lease.ttl, Duration::from_millis(granted), "asked for {asked} ms");
            assert_eq!(store.keep_alive(lease.id).await.unwrap(), lease.ttl);
            assert!((1..1 << 53).contains(&lease.id.0));
        }
        for wrong in [Duration::ZERO, Duration::from_secs(9_000_000_001), Duration::MAX] {
            assert_eq!(store.grant(wrong).await.unwrap_err().code(), "invalid");
        }
    }
}

/// A lease is known to others under the id that was granted: here to etcdctl.
#[tokio::test]
async fn leases_are_etcds() {
    let server = Etcd::start(Version::Debian).await;
    let store = handle(Config::new([server.endpoint()])).await;
    let lease = store.grant(Duration::from_secs(60)).await.unwrap().id;
    store.put(key("k"), "v".into(), Some(lease)).await.unwrap();
    let told = server.ctl(&["lease", "timetolive", &lease.to_string(), "--keys"]).await;
    assert!(told.contains("granted with TTL(60s)") && told.contains("[k]"), "{told}");
    server.ctl(&["lease", "revoke", &lease.to_string()]).await;
    assert_eq!(store.keep_alive(lease).await.unwrap_err().code(), "lease_lost");
    assert_eq!(store.revoke(lease).await.unwrap_err().code(), "lease_lost");
}

/// F14: a server that stood still for longer than the time to live ends the lease when it goes on, whatever
/// was sent meanwhile: the heartbeat learns that it is lost, and no heartbeat claims more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f14_a_pause_ends_leases() {
    for version in Version::ALL {
        let server = Etcd::start(version).await;
        let store = handle(Config::new([server.endpoint()])).await;
        let lease = store.grant(Duration::from_secs(1)).await.unwrap();
        store.put(key("k/1"), "v".into(), Some(lease.id)).await.unwrap();
        let mut watch = store.watch(range("k/"), Start::Snapshot).await.unwrap();
        server.pause();
        let beat = tokio::spawn({
            let store = store.clone();
            async move { store.keep_alive(lease.id).await }
        });
        tokio::time::sleep(lease.ttl * 2).await;
        server.resume();
        assert_eq!(beat.await.unwrap().unwrap_err().code(), "lease_lost");
        assert_eq!(next(&mut watch).await.unwrap().changes, [Change::Delete(key("k/1"))]);
    }
}

/// A restart renews what it finds: a lease that was about to end is kept by the next heartbeat.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_keeps_leases() {
    let mut server = Etcd::start(Version::Debian).await;
    let store = handle(Config::new([server.endpoint()])).await;
    let lease = store.grant(Duration::from_secs(2)).await.unwrap();
    store.put(key("k/1"), "v".into(), Some(lease.id)).await.unwrap();
    let mut watch = store.watch(range("k/"), Start::Snapshot).await.unwrap();
    server.kill();
    end(&mut watch).await;
    server.restart().await.unwrap();
    let (ttl, took) = until_ok("a heartbeat", || store.keep_alive(lease.id)).await;
    println!("the first heartbeat is answered {took:?} after the server listens");
    assert_eq!(ttl, lease.ttl);
    assert!(store.entry(&key("k/1")).await.unwrap().is_some());
}

/// A heartbeat that waits for the end of its lease, because it came too late, does not hold up another's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_heartbeat_does_not_hold_up_others() {
    let server = Etcd::start(Version::Newer).await;
    let store = handle(Config::new([server.endpoint()])).await;
    let alive = store.grant(Duration::from_secs(60)).await.unwrap();
    let mut held_up = Duration::ZERO;
    for _ in 0..3 {
        let late = store.grant(Duration::from_secs(1)).await.unwrap();
        tokio::time::sleep(late.ttl + Duration::from_millis(20)).await;
        let began = Instant::now();
        let (lost, beat) =
            tokio::join!(async { (store.keep_alive(late.id).await, began.elapsed()) }, async {
                (store.keep_alive(alive.id).await, began.elapsed())
            },);
        println!("late {:?}, the other {:?}", lost.1, beat.1);
        assert_eq!(lost.0.unwrap_err().code(), "lease_lost");
        assert_eq!(beat.0.unwrap(), alive.ttl);
        held_up = held_up.max(lost.1.saturating_sub(beat.1));
    }
    assert!(held_up > Duration::from_millis(20), "no heartbeat came late enough to show anything");
}

/// A revoke whose answer is lost is of unknown effect; a heartbeat and a read never are.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn effects_are_honest() {
    let server = Etcd::start(Version::Newer).await;
    let store = handle(Config::new([server.endpoint()]).with_call_timeout(Duration::from_millis(500))).await;
    let lease = store.grant(Duration::from_secs(60)).await.unwrap().id;
    server.pause();
    assert_eq!(store.revoke(lease).await.unwrap_err().effect(), Effect::Unknown);
    assert_eq!(store.grant(Duration::from_secs(60)).await.unwrap_err().effect(), Effect::Unknown);
    assert_eq!(store.read(range("k/")).await.unwrap_err().effect(), Effect::None);
    server.resume();
}
