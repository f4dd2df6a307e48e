//! A store that stops, goes on, restarts, and tells what happened in it. The clocks are paused.

#![allow(clippy::unwrap_used, reason = "a test that fails panics")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::{join, ready};
use slipring_core::{
    Batch, Change, Discovery, DiscoveryExt, Entry, Error, Key, Lease, Range, Revision, Start,
    SystemEnvironment,
};
use slipring_memory::store::{LeaseEnd, StoreEvent};
use slipring_memory::{MemoryWorld, Profile};
use tokio::time::{Instant, sleep};

const TTL: Duration = Duration::from_secs(3);

fn world() -> MemoryWorld {
    MemoryWorld::with(Profile::exact(), Arc::new(SystemEnvironment::new()))
}

fn key() -> Key {
    Key::new("k").unwrap()
}

/// A world with a key under a lease, and a watch of it.
async fn leased() -> (MemoryWorld, Lease, slipring_core::Watch) {
    let world = world();
    let store = world.discovery();
    let lease = store.grant(TTL).await.unwrap();
    store.put(key(), "".into(), Some(lease.id)).await.unwrap();
    let watch = store.watch(Range::All, Start::Snapshot).await.unwrap();
    (world, lease, watch)
}

/// F14: while the store is paused no lease ends and no watch yields; when it goes on, what was due ends at
/// once, and a heartbeat is too late.
#[tokio::test(start_paused = true)]
async fn f14_a_pause_ends_leases_as_soon_as_it_is_over() {
    let (world, lease, mut watch) = leased().await;
    let began = Instant::now();
    world.pause();
    world.pause();
    let over = async {
        sleep(2 * TTL).await;
        assert_eq!(world.leases(), [lease.id]);
        world.resume();
    };
    let (event, ()) = join(watch.events.next(), over).await;
    assert_eq!(event.unwrap().unwrap().changes, [Change::Delete(key())]);
    assert_eq!(began.elapsed(), 2 * TTL);
    assert_eq!(world.discovery().keep_alive(lease.id).await, Err(Error::lease_lost(lease.id)));
}

/// F20, L7: after a restart every lease has its whole time and the extension, however long it took, and its
/// keys vanish then and no earlier.
#[tokio::test(start_paused = true)]
async fn f20_a_restart_gives_leases_their_time_again() {
    let (world, lease, watch) = leased().await;
    let extension = Duration::from_secs(1);
    world.pause();
    sleep(4 * TTL).await;
    world.revive(extension);
    let restarted = Instant::now();
    assert_eq!(world.leases(), [lease.id]);
    let mut changed = watch.events.map(Result::unwrap).filter(|batch| ready(!batch.changes.is_empty()));
    assert_eq!(changed.next().await.unwrap().changes, [Change::Delete(key())]);
    assert_eq!(restarted.elapsed(), TTL + extension);
}

/// An observer is told everything in the order in which it happens, with the times on the store's clock; reads
/// and what is refused do not happen.
#[tokio::test(start_paused = true)]
async fn an_observer_is_told_what_happens() {
    let told: Arc<Mutex<Vec<(Duration, StoreEvent)>>> = Arc::default();
    let world = MemoryWorld::observed(Profile::exact(), Arc::new(SystemEnvironment::new()), {
        let told = told.clone();
        move |at, event| told.lock().unwrap().push((at, event))
    });
    let store = world.discovery();
    let lease = store.grant(TTL).await.unwrap();
    store.put(key(), "".into(), Some(lease.id)).await.unwrap();
    sleep(TTL / 3).await;
    store.keep_alive(lease.id).await.unwrap();
    store.read(Range::All).await.unwrap();
    assert!(matches!(store.create(key(), "".into(), None).await, Ok(slipring_core::Commit::Refused)));
    world.revive(TTL);
    sleep(3 * TTL).await;
    let revoked = store.grant(TTL).await.unwrap();
    store.revoke(revoked.id).await.unwrap();
    world.compact();
    let content = world.entries();
    world.import(world.export());

    let entry = Entry { key: key(), value: "".into(), modified: Revision(2), lease: Some(lease.id) };
    let batch = |revision, change| StoreEvent::Committed(Batch { revision, changes: vec![change] });
    let (early, late) = (TTL / 3, TTL / 3 + 3 * TTL);
    let expected = [
        (Duration::ZERO, StoreEvent::Granted(lease)),
        (Duration::ZERO, batch(Revision(2), Change::Put(entry))),
        (early, StoreEvent::Renewed(lease)),
        (early, StoreEvent::Revived { by: TTL }),
        (early + 2 * TTL, StoreEvent::Ended { lease: lease.id, end: LeaseEnd::Expired }),
        (early + 2 * TTL, batch(Revision(3), Change::Delete(key()))),
        (late, StoreEvent::Granted(revoked)),
        (late, StoreEvent::Ended { lease: revoked.id, end: LeaseEnd::Revoked }),
        (late, StoreEvent::Compacted(Revision(3))),
        (late, StoreEvent::Replaced { content, leases: Vec::new() }),
    ];
    assert_eq!(*told.lock().unwrap(), expected);
}
