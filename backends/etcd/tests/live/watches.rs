//! Watches: one stream for many, history of any size, and every way to end.

use std::time::Duration;

use futures_util::FutureExt;
use slipring_core::{Base, Change, Discovery, DiscoveryExt, Op, Revision, Start, Txn};
use slipring_etcd::Config;
use slipring_servers::{Direction, Etcd, Proxy, Version};

use crate::fixture::{end, handle, key, metric, metric_is, next, put, range, within};

const STREAMS: &str = "etcd_debugging_mvcc_watch_stream_total";
const WATCHERS: &str = "etcd_debugging_mvcc_watcher_total";

/// U971, D11: 500 watches are one stream and 500 watchers at the server, and none when they are dropped (SW3).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn u971_many_watches_are_one_stream() {
    for version in Version::ALL {
        let server = Etcd::start(version).await;
        let store = handle(Config::new([server.endpoint()])).await;
        let mut watches = Vec::new();
        for number in 0..500 {
            watches.push(store.watch(range(&format!("w/{number}/")), Start::Snapshot).await.unwrap());
        }
        assert_eq!((metric(&server, STREAMS).await, metric(&server, WATCHERS).await), (1, 500));
        let at = put(&store, "w/77/k", "v").await;
        assert_eq!(next(&mut watches[77]).await.unwrap().revision, at);
        watches.truncate(1);
        metric_is(&server, WATCHERS, 1).await;
        drop(watches);
        metric_is(&server, WATCHERS, 0).await;
        drop(store);
        metric_is(&server, STREAMS, 0).await;
    }
}

/// D12: the server filters: of 1,000 writes elsewhere, nothing reaches a watch, and its queue of one batch
/// does not overflow.
#[tokio::test]
async fn d12_only_what_is_watched_is_sent() {
    let server = Etcd::start(Version::Newer).await;
    let store = handle(Config::new([server.endpoint()]).with_watch_buffer(1, 1 << 20)).await;
    let mut watch = store.watch(range("mine/"), Start::Snapshot).await.unwrap();
    for number in 0..1000 {
        put(&store, format!("mine2/{number}"), "").await;
    }
    let at = put(&store, "mine/k", "v").await;
    assert_eq!(next(&mut watch).await.unwrap().revision, at);
}

/// F37: a watch that is dropped while it is made, at any of its await points, leaves nothing at the server.
#[tokio::test]
async fn f37_dropped_half_way_leaves_nothing() {
    let server = Etcd::start(Version::Debian).await;
    let store = handle(Config::new([server.endpoint()])).await;
    let mut finished = 0;
    for polls in 0..100 {
        let mut watch = Box::pin(store.watch(range("w/"), Start::After(Revision(1))));
        for _ in 0..polls {
            if (&mut watch).now_or_never().is_some() {
                finished += 1;
                break;
            }
            tokio::task::yield_now().await;
        }
    }
    println!("{finished} of 100 were made before they were dropped");
    // Whoever comes after is behind them on the stream.
    let mut last = store.watch(range("w/"), Start::Snapshot).await.unwrap();
    metric_is(&server, WATCHERS, 1).await;
    let at = put(&store, "w/k", "v").await;
    assert_eq!(next(&mut last).await.unwrap().revision, at);
}

/// W4: a history of 35 MB, more than any message that is accepted, is replayed whole, though it comes in
/// fragments of 2 MB that end within a revision.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn w4_fragments_are_put_together() {
    const REVISIONS: usize = 50;
    const KEYS: usize = 7;
    for version in Version::ALL {
        let server = Etcd::start(version).await;
        let store = handle(Config::new([server.endpoint()]).with_watch_buffer(100, 64 << 20)).await;
        let before = put(&store, "other", "").await;
        for _ in 0..REVISIONS {
            let put = |txn: Txn, n| txn.put(key(format!("big/{n}")), vec![7; 100_000], None);
            let _ = store.commit((0..KEYS).fold(Txn::new(), put)).await.unwrap();
        }
        let mut watch = store.watch(range("big/"), Start::After(before)).await.unwrap();
        for number in 1..=REVISIONS {
            let batch = next(&mut watch).await.unwrap();
            assert_eq!(batch.revision, Revision(before.0 + number as u64));
            assert_eq!(batch.changes.len(), KEYS, "the changes of one revision");
        }
    }
}

/// W3: 20,000 changes of history come in order and without a gap.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn w3_a_long_history_has_no_gap() {
    let server = Etcd::start(Version::Debian).await;
    let store = handle(Config::new([server.endpoint()]).with_watch_buffer(50_000, 64 << 20)).await;
    let before = put(&store, "other", "").await;
    for round in 0..200 {
        let txn = (0..100).fold(Txn::new(), |txn, n| txn.put(key(format!("h/{n}")), round.to_string(), None));
        let _ = store.commit(txn).await.unwrap();
    }
    let mut watch = store.watch(range("h/"), Start::After(before)).await.unwrap();
    for round in 1..=200 {
        let batch = next(&mut watch).await.unwrap();
        assert_eq!((batch.revision.0, batch.changes.len()), (before.0 + round, 100));
    }
}

/// SW4: a reader that is too slow is told so as its last item; the server forgets its watch, and another
/// watch of the same range misses nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sw4_a_slow_reader_is_told() {
    for version in Version::ALL {
        let server = Etcd::start(version).await;
        let store = handle(Config::new([server.endpoint()]).with_watch_buffer(10, 1 << 20)).await;
        let mut slow = store.watch(range("k/"), Start::Snapshot).await.unwrap();
        let mut quick = store.watch(range("k/"), Start::Snapshot).await.unwrap();
        for number in 0..50 {
            let at = put(&store, format!("k/{number}"), "v").await;
            assert_eq!(next(&mut quick).await.unwrap().revision, at);
        }
        // Also if it is never read from again.
        metric_is(&server, WATCHERS, 1).await;
        let (error, _) = end(&mut slow).await;
        assert_eq!(error.code(), "compacted");
    }
}

/// D05, F25: a watch that falls behind a compaction, because nothing reached it for a while, ends with
/// `Compacted`: never with silence, and never with a gap.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d05_compacted_watch_is_noticed() {
    for version in Version::ALL {
        let server = Etcd::start(version).await;
        let proxy = Proxy::start(server.endpoint()).await;
        let patient = Duration::from_secs(90);
        let behind = handle(Config::new([proxy.endpoint()]).with_watch_silence_max(patient)).await;
        let store = handle(Config::new([server.endpoint()])).await;
        let mut watch = behind.watch(range("k/"), Start::Snapshot).await.unwrap();
        proxy.silence_towards(Direction::ToClient);
        // More than the buffers on the way hold, so that the server has to put some of it off.
        for number in 0..400 {
            put(&store, format!("k/{}", number % 7), vec![7; 100_000]).await;
        }
        server.compact().await;
        proxy.mend();
        let mut shown = 0;
        let end = loop {
            match next(&mut watch).await {
                Ok(_) => shown += 1,
                Err(error) => break error,
            }
        };
        println!("{version:?}: {shown} changes were shown before the end");
        assert_eq!(end.code(), "compacted");
    }
}

/// W11: a watch that would start at the very revision that was compacted is refused, because etcd has
/// forgotten a deletion that stood there, and would not say so.
#[tokio::test]
async fn w11_a_deletion_at_the_compacted_revision_is_not_missed() {
    for version in Version::ALL {
        let server = Etcd::start(version).await;
        let store = handle(Config::new([server.endpoint()])).await;
        let before = put(&store, "k/1", "v").await;
        store.delete(key("k/1")).await.unwrap();
        server.compact().await;
        let answer = store.watch(range("k/"), Start::After(before)).await;
        assert_eq!(answer.unwrap_err().code(), "compacted");
        let mut watch = store.watch(range("k/"), Start::After(Revision(before.0 + 1))).await.unwrap();
        let at = put(&store, "k/2", "v").await;
        assert_eq!(next(&mut watch).await.unwrap().revision, at);
    }
}

/// W12: the events of a range that is being written are shown from the first on, however soon they come after
/// the watch was asked for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn w12_nothing_is_missed_at_the_beginning() {
    let server = Etcd::start(Version::Newer).await;
    let store = handle(Config::new([server.endpoint()])).await;
    for round in 0..50 {
        let before = put(&store, "k/a", round.to_string()).await;
        let (watch, at) =
            tokio::join!(store.watch(range("k/"), Start::After(before)), put(&store, "k/b", "v"));
        assert_eq!(next(&mut watch.unwrap()).await.unwrap().revision, at);
    }
}

/// What is no key of ours is left out, and does not disturb what is.
#[tokio::test]
async fn foreign_keys_are_left_out() {
    let server = Etcd::start(Version::Newer).await;
    let store = handle(Config::new([server.endpoint()])).await;
    let mut client = etcd_client::Client::connect([server.endpoint()], None).await.unwrap();
    let mut watch = store.watch(slipring_core::Range::All, Start::Snapshot).await.unwrap();
    for foreign in [&b"\xff\xfe"[..], b"line\nbreak", b"\0", &[b'x'; 2000]] {
        client.put(foreign, "v", None).await.unwrap();
    }
    let at = put(&store, "ours", "v").await;
    assert_eq!(next(&mut watch).await.unwrap().revision, at);
    let read = store.read(slipring_core::Range::All).await.unwrap();
    assert_eq!(read.entries.iter().map(|entry| entry.key.as_str()).collect::<Vec<_>>(), ["ours"]);
}

/// Two deployments with prefixes of their own share an etcd and see nothing of each other; a third party
/// finds their keys behind the prefix.
#[tokio::test]
async fn prefixes_keep_deployments_apart() {
    let server = Etcd::start(Version::Debian).await;
    let config =
        |prefix| Config::new([server.endpoint()]).with_prefix(slipring_core::Prefix::new(prefix).unwrap());
    let (blue, green) = (handle(config("blue/")).await, handle(config("green/")).await);
    let mut watch = blue.watch(slipring_core::Range::All, Start::Snapshot).await.unwrap();
    put(&green, "a/1", "green").await;
    let at = put(&blue, "a/1", "blue").await;
    let batch = next(&mut watch).await.unwrap();
    let Change::Put(entry) = &batch.changes[0] else { panic!("{batch:?}") };
    assert_eq!((batch.revision, entry.key.as_str(), &entry.value[..]), (at, "a/1", &b"blue"[..]));
    assert_eq!(green.read(slipring_core::Range::All).await.unwrap().entries.len(), 1);
    assert_eq!(green.read(range("a/")).await.unwrap().entries[0].value, "green");
    assert_eq!(server.ctl(&["get", "blue/a/1", "--print-value-only"]).await.trim(), "blue");
}

/// Watchers see the changes of a transaction in the order of its operations, at one revision.
#[tokio::test]
async fn w4_the_order_of_operations_is_kept() {
    let server = Etcd::start(Version::Debian).await;
    let store = handle(Config::new([server.endpoint()])).await;
    let mut watch = store.watch(range("k/"), Start::Snapshot).await.unwrap();
    assert!(matches!(&watch.base, Base::Snapshot(base) if base.entries.is_empty()));
    let names: Vec<_> = (0..128).map(|n| format!("k/{}", (n * 37) % 128)).collect();
    let txn = names.iter().fold(Txn::new(), |txn, name| txn.put(key(name), "v", None));
    let written: Vec<_> = txn.ops.iter().map(Op::key).cloned().collect();
    let _ = store.commit(txn).await.unwrap();
    let shown: Vec<_> =
        next(&mut watch).await.unwrap().changes.iter().map(|change| change.key().clone()).collect();
    assert_eq!(shown, written);
    within("the drop", async { drop(watch) }).await;
}
