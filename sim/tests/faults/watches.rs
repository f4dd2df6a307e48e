//! Watches break, and what they began with is gone.

use super::common::*;

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

/// F26: a watch that was compacted away while its reader was not connected cannot be resumed; a new one begins
/// with what is there.
#[tokio::test(start_paused = true)]
async fn f26_compaction_while_disconnected() {
    let world = World::new(7);
    let a = world.node("a");
    let mut ended = watch(&a).await;
    world.apply(&Fault::Cut { node: named(), lasts: SECOND }).unwrap();
    assert_unavailable(changes(&mut ended).await, Effect::None);
    let store = world.memory().discovery();
    store.put(key("k"), "".into(), None).await.unwrap();
    store.put(key("l"), "".into(), None).await.unwrap();
    world.apply(&Fault::Compact).unwrap();
    sleep(2 * SECOND).await;
    let resumed = a.discovery().watch(Range::All, Start::After(slipring_core::Revision(1))).await;
    assert_eq!(resumed.err().unwrap().code(), "compacted");
    assert!(matches!(watch(&a).await.base, slipring_core::Base::Snapshot(all) if all.entries.len() == 2));
}

/// F27: the watches of a node end between two batches, while its calls go on; resumed, they leave nothing out.
#[tokio::test(start_paused = true)]
async fn f27_watches_are_reset() {
    let world = World::new(7);
    let (a, b) = (world.node("a"), world.node("b"));
    let (mut own, mut other) = (watch(&a).await, watch(&b).await);
    let store = world.memory().discovery();
    store.put(key("x"), "".into(), None).await.unwrap();
    assert_eq!(changes(&mut own).await.unwrap(), ["x"]);
    let seen = world.memory().entries().revision;
    world.apply(&Fault::ResetWatches { node: named() }).unwrap();
    store.put(key("y"), "".into(), None).await.unwrap();
    assert_unavailable(changes(&mut own).await, Effect::None);
    assert!(own.events.next().await.is_none());
    a.discovery().read(Range::All).await.unwrap();
    let mut resumed = a.discovery().watch(Range::All, Start::After(seen)).await.unwrap();
    assert_eq!(changes(&mut resumed).await.unwrap(), ["y"]);
    assert_eq!(changes(&mut other).await.unwrap(), ["x"]);
}

/// F28: what is written while the answer of a new watch is under way is in its snapshot or in its events, and
/// never in neither.
#[tokio::test(start_paused = true)]
async fn f28_a_watch_races_a_write() {
    let mut places = std::collections::BTreeSet::new();
    for seed in 0..20 {
        let latency = Latency::between(Duration::ZERO, SECOND);
        let world = World::with(seed, Setup::new().with_latency(latency));
        let (a, b) = (world.node("a"), world.node("b").discovery());
        let (opened, put) = join(watch(&a), b.put(key("k"), "".into(), None)).await;
        put.unwrap();
        let mut opened = opened;
        let in_snapshot =
            matches!(&opened.base, slipring_core::Base::Snapshot(all) if !all.entries.is_empty());
        let next = timeout(2 * SECOND, changes(&mut opened)).await;
        assert_eq!(next.is_ok(), !in_snapshot);
        places.insert(in_snapshot);
    }
    assert_eq!(places.len(), 2);
}

/// F29: a revision that the restored store does not have yet is no place to resume a watch.
#[tokio::test(start_paused = true)]
async fn f29_a_watch_of_the_future() {
    let world = World::new(7);
    let store = world.node("a").discovery();
    store.put(key("k"), "".into(), None).await.unwrap();
    let seen = world.memory().entries().revision;
    world.apply(&Fault::Empty).unwrap();
    let resumed = store.watch(Range::All, Start::After(seen)).await;
    assert_eq!(resumed.err().unwrap().code(), "compacted");
}
