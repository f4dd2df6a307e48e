//! The store behind the trait: time, wake-ups and handles. Clocks are paused unless a test says otherwise.

#![allow(clippy::unwrap_used, reason = "a test that fails panics")]

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use slipring_core::{
    Base, Batch, Change, Commit, Discovery, DiscoveryExt, Environment, Error, Key, Prefix, Range, Revision,
    Start, SystemEnvironment, TaskEnd, Txn, Watch,
};
use slipring_memory::{MemoryWorld, OnRestore, Profile};
use tokio::time::{Instant, sleep, timeout};

const SECOND: Duration = Duration::from_secs(1);

fn world(profile: Profile) -> MemoryWorld {
    MemoryWorld::with(profile, Arc::new(SystemEnvironment::new()))
}

fn key(text: &str) -> Key {
    Key::new(text).unwrap()
}

fn below(text: &str) -> Range {
    Range::Prefix(Prefix::new(text).unwrap())
}

async fn put(discovery: &impl Discovery, text: &str) -> Revision {
    discovery.put(key(text), "".into(), None).await.unwrap()
}

async fn next(watch: &mut Watch) -> Batch {
    watch.events.next().await.unwrap().unwrap()
}

/// Lets a watch wait, and counts how often it is woken.
#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Wakes {
    fn wait(self: &Arc<Self>, watch: &mut Watch) {
        let waker = Waker::from(self.clone());
        assert!(watch.events.poll_next_unpin(&mut Context::from_waker(&waker)).is_pending());
    }

    fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

/// W13: a snapshot that is taken while others write, and the events after it, miss nothing and repeat nothing.
#[tokio::test(start_paused = true)]
async fn w13_snapshot_and_watch_hand_over_without_a_gap() {
    let world = MemoryWorld::new();
    let (writer, reader) = (world.discovery(), world.discovery());
    let write = async {
        for number in 0..1000 {
            put(&writer, &format!("a/{number:04}")).await;
        }
    };
    let read = async {
        while world.entries().entries.len() < 100 {
            tokio::task::yield_now().await;
        }
        let mut watch = reader.watch(below("a/"), Start::Snapshot).await.unwrap();
        let Base::Snapshot(snapshot) = watch.base.clone() else { panic!("asked for a snapshot") };
        let mut keys: Vec<String> = snapshot.entries.iter().map(|entry| entry.key.to_string()).collect();
        while keys.len() < 1000 {
            keys.extend(next(&mut watch).await.changes.iter().map(|change| change.key().to_string()));
        }
        keys
    };
    let ((), keys) = tokio::join!(write, read);
    assert!(keys.iter().enumerate().all(|(number, key)| *key == format!("a/{number:04}")));
}

/// L2: a lease's end reaches a waiting watch at the moment of the end.
#[tokio::test(start_paused = true)]
async fn l2_expiry_reaches_a_watch_on_time() {
    let discovery = MemoryWorld::new().discovery();
    let start = Instant::now();
    let lease = discovery.grant(3 * SECOND).await.unwrap();
    discovery.put(key("a"), "".into(), Some(lease.id)).await.unwrap();
    let mut watch = discovery.watch(Range::All, Start::Snapshot).await.unwrap();
    assert_eq!(next(&mut watch).await.changes, [Change::Delete(key("a"))]);
    assert_eq!(start.elapsed(), 3 * SECOND);
}

/// L2: a lease that is granted while a watch already waits, and ends before it would look again, ends on time.
#[tokio::test(start_paused = true)]
async fn l2_a_waiting_watch_learns_of_an_earlier_deadline() {
    let world = MemoryWorld::new();
    let (reader, owner) = (world.discovery(), world.discovery());
    let start = Instant::now();
    let mut watch = reader.watch(Range::Key(key("a")), Start::Snapshot).await.unwrap();
    let own = async {
        sleep(SECOND).await;
        let lease = owner.grant(2 * SECOND).await.unwrap();
        owner.put(key("a"), "".into(), Some(lease.id)).await.unwrap();
    };
    let (first, ()) = tokio::join!(next(&mut watch), own);
    assert!(matches!(&first.changes[..], [Change::Put(_)]));
    assert_eq!(next(&mut watch).await.changes, [Change::Delete(key("a"))]);
    assert_eq!(start.elapsed(), 3 * SECOND);
}

/// L2: a broker whose clock runs twice as fast ends leases after half the time.
#[tokio::test(start_paused = true)]
async fn l2_leases_follow_the_brokers_clock() {
    let discovery = world(Profile::exact().with_clock_rate_ppm(2_000_000)).discovery();
    let start = Instant::now();
    let lease = discovery.grant(4 * SECOND).await.unwrap();
    discovery.put(key("a"), "".into(), Some(lease.id)).await.unwrap();
    let mut watch = discovery.watch(Range::All, Start::Snapshot).await.unwrap();
    next(&mut watch).await;
    assert_eq!(start.elapsed(), 2 * SECOND);
}

/// A lease that is kept alive stays, however often it would have ended, and ends a whole time after the last
/// heartbeat.
#[tokio::test(start_paused = true)]
async fn l1_heartbeats_hold_a_lease() {
    let world = MemoryWorld::new();
    let (owner, reader) = (world.discovery(), world.discovery());
    let start = Instant::now();
    let lease = owner.grant(3 * SECOND).await.unwrap();
    owner.put(key("a"), "".into(), Some(lease.id)).await.unwrap();
    let mut watch = reader.watch(Range::All, Start::Snapshot).await.unwrap();
    let beat = async {
        for _ in 0..20 {
            sleep(SECOND).await;
            assert_eq!(owner.keep_alive(lease.id).await, Ok(3 * SECOND));
        }
    };
    let gone = async { while next(&mut watch).await.changes.is_empty() {} };
    tokio::join!(beat, gone);
    assert_eq!(start.elapsed(), 23 * SECOND);
    assert_eq!(owner.keep_alive(lease.id).await, Err(Error::lease_lost(lease.id)));
    assert!(world.leases().is_empty());
}

/// W6: an idle watch says how far it is each time the interval has passed, also after others wrote.
#[tokio::test(start_paused = true)]
async fn w6_an_idle_watch_reports_progress() {
    let discovery = MemoryWorld::new().discovery();
    let start = Instant::now();
    let mut watch = discovery.watch(below("a/"), Start::Snapshot).await.unwrap();
    assert_eq!(next(&mut watch).await, Batch { revision: Revision(1), changes: vec![] });
    assert_eq!(start.elapsed(), 5 * SECOND);
    put(&discovery, "b").await;
    assert_eq!(next(&mut watch).await, Batch { revision: Revision(2), changes: vec![] });
    assert_eq!(start.elapsed(), 10 * SECOND);
    sleep(SECOND).await;
    put(&discovery, "a/b").await;
    assert_eq!(next(&mut watch).await.changes.len(), 1);
    assert_eq!(start.elapsed(), 11 * SECOND);
    assert_eq!(next(&mut watch).await.changes, []);
    assert_eq!(start.elapsed(), 16 * SECOND);
}

/// W11: a reader that is too slow is told so, and the stream ends with it.
#[tokio::test(start_paused = true)]
async fn w11_a_slow_reader_is_told() {
    let world = world(Profile::exact().with_history_revisions_max(10));
    let discovery = world.discovery();
    let mut watch = discovery.watch(Range::All, Start::Snapshot).await.unwrap();
    for _ in 0..20 {
        put(&discovery, "a").await;
    }
    assert_eq!(watch.events.next().await, Some(Err(Error::compacted(Revision(11)))));
    assert_eq!(watch.events.next().await, None);
    assert_eq!(world.watches(), 0);
    let resumed = discovery.watch(Range::All, Start::After(Revision(10))).await;
    assert_eq!(resumed.err(), Some(Error::compacted(Revision(11))));
}

/// W11: an operator's compaction ends the watch that had not seen everything.
#[tokio::test(start_paused = true)]
async fn w11_compaction_ends_a_watch_that_is_behind() {
    let world = MemoryWorld::new();
    let discovery = world.discovery();
    let mut behind = discovery.watch(Range::All, Start::Snapshot).await.unwrap();
    put(&discovery, "a").await;
    put(&discovery, "a").await;
    world.compact();
    assert_eq!(world.compact_to(Revision(9)), Err(Error::compacted(Revision(3))));
    assert_eq!(behind.events.next().await, Some(Err(Error::compacted(Revision(3)))));
}

/// W15: a watch that is dropped is freed at once, and whoever waits in it is not woken any more.
#[tokio::test(start_paused = true)]
async fn w15_a_dropped_watch_is_gone() {
    let world = MemoryWorld::new();
    let discovery = world.discovery();
    let wakes = Arc::new(Wakes::default());
    for _ in 0..100 {
        let mut watch = discovery.watch(Range::All, Start::Snapshot).await.unwrap();
        wakes.wait(&mut watch);
    }
    assert_eq!(world.watches(), 0);
    put(&discovery, "a").await;
    assert_eq!((wakes.count(), Arc::strong_count(&wakes)), (0, 1));
}

/// W15: a future that is dropped before it is ever polled leaves no watch and no lease.
#[tokio::test(start_paused = true)]
async fn dropped_calls_leave_nothing() {
    let world = MemoryWorld::new();
    let discovery = world.discovery();
    drop(discovery.watch(Range::All, Start::Snapshot));
    drop(discovery.grant(SECOND));
    drop(discovery.commit(Txn::new().put(key("a"), "", None)));
    drop(discovery.watch(Range::All, Start::Snapshot).now_or_never());
    assert_eq!((world.watches(), world.leases().len(), world.entries().revision), (0, 0, Revision(1)));
}

/// A write wakes the watches that it concerns and no other; heartbeats and reads wake none.
#[tokio::test(start_paused = true)]
async fn only_what_concerns_a_watch_wakes_it() {
    let discovery = MemoryWorld::new().discovery();
    let lease = discovery.grant(3 * SECOND).await.unwrap();
    let wakes = Arc::new(Wakes::default());
    let mut watch = discovery.watch(below("a/"), Start::Snapshot).await.unwrap();
    wakes.wait(&mut watch);
    for _ in 0..1000 {
        discovery.keep_alive(lease.id).await.unwrap();
        discovery.read(Range::All).await.unwrap();
        discovery.grant(10 * SECOND).await.unwrap();
        put(&discovery, "b").await;
    }
    assert_eq!(wakes.count(), 0);
    put(&discovery, "a/b").await;
    put(&discovery, "a/c").await;
    assert_eq!(wakes.count(), 1);
}

/// F39: after the store is emptied an old watch yields nothing at all, and a new one begins anew.
#[tokio::test(start_paused = true)]
async fn f39_an_emptied_store_is_silence_for_old_watches() {
    let world = MemoryWorld::new();
    let discovery = world.discovery();
    put(&discovery, "a").await;
    let mut old = discovery.watch(Range::All, Start::Snapshot).await.unwrap();
    world.empty();
    put(&discovery, "b").await;
    assert!(timeout(1000 * SECOND, old.events.next()).await.is_err());
    let new = discovery.watch(Range::All, Start::Snapshot).await.unwrap();
    let Base::Snapshot(snapshot) = &new.base else { panic!("asked for a snapshot") };
    assert_eq!((snapshot.revision, &snapshot.entries[0].key), (Revision(2), &key("b")));
    let beyond = discovery.watch(Range::All, Start::After(Revision(3))).await;
    assert!(matches!(beyond, Err(Error::Compacted { .. })));
}

/// F39: where the profile says so, a waiting watch ends with an error when the store is restored.
#[tokio::test(start_paused = true)]
async fn f39_a_restored_store_ends_old_watches() {
    let world = world(Profile::exact().with_on_restore(OnRestore::End));
    let discovery = world.discovery();
    let lease = discovery.grant(3 * SECOND).await.unwrap();
    discovery.put(key("a"), "".into(), Some(lease.id)).await.unwrap();
    let saved = world.export();
    sleep(2 * SECOND).await;
    put(&discovery, "b").await;
    let mut watch = discovery.watch(Range::All, Start::Snapshot).await.unwrap();
    let restore = async { world.import(saved) };
    let (item, ()) = tokio::join!(watch.events.next(), restore);
    assert!(matches!(item, Some(Err(Error::Unavailable { .. }))));
    assert_eq!(watch.events.next().await, None);
    assert_eq!(world.entries().revision, Revision(2));
    sleep(2 * SECOND).await;
    assert_eq!(world.leases(), [lease.id], "a restored lease has its whole time again");
}

/// F40: what is deleted behind its owner's back is seen by the watches while the lease lives on.
#[tokio::test(start_paused = true)]
async fn f40_a_deletion_by_another_is_seen() {
    let world = MemoryWorld::new();
    let (owner, other) = (world.discovery(), world.discovery());
    let lease = owner.grant(3 * SECOND).await.unwrap();
    owner.put(key("a"), "".into(), Some(lease.id)).await.unwrap();
    let mut watch = owner.watch(Range::All, Start::Snapshot).await.unwrap();
    other.delete(key("a")).await.unwrap();
    assert_eq!(next(&mut watch).await.changes, [Change::Delete(key("a"))]);
    assert_eq!(world.leases(), [lease.id]);
}

/// A loop of calls that never wait leaves the other tasks their turn: here the one that ends it.
#[tokio::test(start_paused = true)]
async fn a_loop_of_calls_starves_nobody() {
    let discovery = MemoryWorld::new().discovery();
    let over = Cell::new(false);
    let spin = async {
        while !over.get() {
            assert_eq!(
                discovery.commit(Txn::new().unchanged(key("a"), Revision(9))).await,
                Ok(Commit::Refused)
            );
        }
    };
    tokio::join!(biased; spin, async { over.set(true) });
}

/// The same for a reader that always has something to read.
#[tokio::test(start_paused = true)]
async fn a_busy_watch_starves_nobody() {
    let discovery = MemoryWorld::new().discovery();
    for _ in 0..1000 {
        put(&discovery, "a").await;
    }
    let mut watch = discovery.watch(Range::All, Start::After(Revision(1))).await.unwrap();
    let read = Cell::new(0);
    let reading = async {
        for _ in 0..1000 {
            next(&mut watch).await;
            read.set(read.get() + 1);
        }
    };
    let ((), seen) = tokio::join!(biased; reading, async { read.get() });
    assert!(seen < 1000, "the other ran only after all was read");
}

/// Worlds that exist at the same time never meet.
#[tokio::test(start_paused = true)]
async fn worlds_do_not_meet() {
    let (one, other) = (MemoryWorld::new(), MemoryWorld::new());
    put(&one.discovery(), "a").await;
    assert_eq!(other.entries().revision, Revision(1));
}

/// A handle declares what its profile says.
#[tokio::test(start_paused = true)]
async fn capabilities_are_the_profiles() {
    let profile = Profile::etcd();
    let declared = world(profile.clone()).discovery().capabilities().await.unwrap();
    assert_eq!(declared, profile.discovery);
    assert_eq!(declared.ttl_min, 2 * SECOND);
}

/// A world is made without a runtime, and used by handles on several runtimes and threads at once; a write on
/// one of them wakes a reader on another. In real time.
#[test]
fn handles_work_across_runtimes_and_threads() {
    let world = MemoryWorld::new();
    let reader = world.discovery();
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime().block_on(async {
        let mut watch = reader.watch(Range::All, Start::Snapshot).await.unwrap();
        let writer = world.discovery();
        // In real time this is a thread with a runtime of its own.
        let mut task = SystemEnvironment::new().spawn_vital(
            "writer",
            Box::new(move || {
                Box::pin(async move {
                    let lease = writer.grant(SECOND / 100).await.unwrap();
                    writer.put(key("a"), "".into(), Some(lease.id)).await.unwrap();
                })
            }),
        );
        assert!(matches!(&next(&mut watch).await.changes[..], [Change::Put(_)]));
        assert_eq!(task.end().await, TaskEnd::Finished);
        assert_eq!(next(&mut watch).await.changes, [Change::Delete(key("a"))]);
    });
    runtime().block_on(async { assert!(reader.list(&Prefix::new("a/").unwrap()).await.unwrap().is_empty()) });
    assert_eq!(world.watches(), 0);
    assert_eq!(world.entries().revision, Revision(3));
}

/// Two runtimes whose clocks disagree (one was paused and ran ahead) do no harm: the world goes by the latest
/// time that anyone saw, and never back.
#[test]
fn clocks_that_disagree_do_no_harm() {
    let world = MemoryWorld::new();
    let discovery = world.discovery();
    let ahead =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    ahead.block_on(async {
        discovery.grant(3 * SECOND).await.unwrap();
        sleep(2 * SECOND).await;
        assert_eq!(world.leases().len(), 1);
    });
    assert_eq!(world.leases().len(), 1);
    ahead.block_on(async {
        sleep(SECOND).await;
        assert!(world.leases().is_empty());
    });
    assert!(world.leases().is_empty());
}

/// A stream that is waited for from a different task wakes the task that asked last.
#[tokio::test(start_paused = true)]
async fn the_last_who_asked_is_woken() {
    let discovery = MemoryWorld::new().discovery();
    let (first, second) = (Arc::new(Wakes::default()), Arc::new(Wakes::default()));
    let mut watch = discovery.watch(Range::All, Start::Snapshot).await.unwrap();
    first.wait(&mut watch);
    second.wait(&mut watch);
    put(&discovery, "a").await;
    assert_eq!((first.count(), second.count()), (0, 1));
    let waker = Waker::from(second);
    assert!(matches!(
        watch.events.poll_next_unpin(&mut Context::from_waker(&waker)),
        Poll::Ready(Some(Ok(_)))
    ));
}
