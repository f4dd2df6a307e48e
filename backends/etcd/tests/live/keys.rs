//! Reads of any size, and transactions up to their limits.

use std::time::Duration;

use bytes::Bytes;
use slipring_core::{Discovery, DiscoveryExt, Effect, Error, LeaseId, Range, Revision, Txn};
use slipring_etcd::{Config, EtcdDiscovery};
use slipring_servers::{Etcd, EtcdOptions, Version};
use tokio::time::Instant;

use crate::fixture::{handle, key, put, range, within};

/// Writes this many keys below `prefix`, numbered in key order.
async fn fill(store: &EtcdDiscovery, prefix: &str, count: usize, value: &Bytes) {
    for numbers in (0..count).collect::<Vec<_>>().chunks(100) {
        let write = |txn: Txn, n: &usize| txn.put(key(format!("{prefix}{n:06}")), value.clone(), None);
        let _ = store.commit(numbers.iter().fold(Txn::new(), write)).await.unwrap();
    }
}

/// 10,000 and 100,000 records are read whole, in key order, far beyond the client's limit of 4 MiB.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_records_are_read_whole() {
    for version in Version::ALL {
        let server = Etcd::start(version).await;
        let store = handle(Config::new([server.endpoint()])).await;
        for count in [10_000, 100_000] {
            let prefix = format!("{count}/");
            fill(&store, &prefix, count, &Bytes::from(vec![b'x'; 200])).await;
            let began = Instant::now();
            let read = store.read(range(&prefix)).await.unwrap();
            println!("{version:?}: {count} records in {:?}", began.elapsed());
            assert_eq!(read.entries.len(), count);
            let numbered = |(number, entry): (usize, &slipring_core::Entry)| {
                entry.key == key(format!("{prefix}{number:06}"))
            };
            assert!(read.entries.iter().enumerate().all(numbered), "not in key order, or with a gap");
        }
    }
}

/// Values of 1 MiB each, of which a page of the usual length would be larger than any answer is accepted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_values_are_read_whole() {
    let server = Etcd::start(Version::Debian).await;
    let store = handle(Config::new([server.endpoint()])).await;
    let value = vec![b'x'; 1024 * 1024];
    for number in 0..40 {
        put(&store, format!("large/{number:02}"), value.clone()).await;
    }
    let read = store.read(range("large/")).await.unwrap();
    assert_eq!(read.entries.iter().map(|entry| entry.value.len()).sum::<usize>(), 40 * value.len());
}

/// A read of many pages is of one revision though the keys are being written, and is whole though the history
/// is compacted between its pages.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_of_many_pages_is_of_one_revision() {
    let server = Etcd::start(Version::Newer).await;
    let store = handle(Config::new([server.endpoint()])).await;
    const KEYS: usize = 3_000;
    fill(&store, "p/", KEYS, &Bytes::from_static(b"0")).await;
    let writer = tokio::spawn({
        let store = store.clone();
        let mut client = etcd_client::Client::connect([server.endpoint()], None).await.unwrap();
        async move {
            for number in 1.. {
                // The first and the last page change together.
                let txn = Txn::new().put(key("p/000000"), number.to_string(), None);
                let txn = txn.put(key(format!("p/{:06}", KEYS - 1)), number.to_string(), None);
                let slipring_core::Commit::Applied(at) = store.commit(txn).await.unwrap() else { panic!() };
                if number % 10 == 0 {
                    client.compact(at.0 as i64, None).await.unwrap();
                }
            }
        }
    });
    let mut seen = std::collections::BTreeSet::new();
    within("reads while it changes", async {
        while seen.len() < 20 {
            let read = match store.read(range("p/")).await {
                Ok(read) => read,
                // Compacted faster than it can be read: said, and not a hole.
                Err(error) => {
                    assert_eq!(error.code(), "unavailable", "{error}");
                    continue;
                }
            };
            assert_eq!(read.entries.len(), KEYS);
            assert_eq!(read.entries[0].value, read.entries[KEYS - 1].value, "pages of two revisions");
            assert!(read.entries.iter().all(|entry| entry.modified <= read.revision));
            seen.insert(read.entries[0].value.clone());
        }
    })
    .await;
    writer.abort();
}

/// What is over a limit is refused before it is sent, naming the limit; what is within it is taken.
#[tokio::test]
async fn limits_are_named() {
    let server = Etcd::start(Version::Debian).await;
    let store = handle(Config::new([server.endpoint()])).await;
    let megabyte = || vec![0; 1024 * 1024];
    let two = Txn::new().put(key("a"), megabyte(), None).put(key("b"), megabyte(), None);
    let error = store.commit(two).await.unwrap_err();
    let Error::PayloadTooLarge { limit, actual, effect: Effect::None } = error else { panic!("{error:?}") };
    assert!(limit < 1536 * 1024 && actual > 2 * 1024 * 1024, "{limit} {actual}");
    // As many keys as allowed, each as long as allowed, guarded and written.
    let long = |n| key(format!("{n:01000}"));
    let most = (0..128).fold(Txn::new(), |txn, n| txn.absent(long(n)).put(long(n), vec![0; 9_000], None));
    let _ = store.commit(most).await.unwrap();
    let guards = (0..129).fold(Txn::new(), |txn, _| txn.absent(key("a")));
    assert_eq!(store.commit(guards).await.unwrap_err().code(), "unsupported");
    assert_eq!(store.read(Range::Key(key("b"))).await.unwrap().entries, []);
}

/// A server that was set up with narrower limits says so itself, and nothing is written.
#[tokio::test]
async fn narrower_limits_of_a_server_are_told() {
    let mut options = EtcdOptions::default();
    options.arguments = vec!["--max-txn-ops=2".into(), "--max-request-bytes=20000".into()];
    let server = Etcd::start_with(Version::Newer, options).await;
    let store = handle(Config::new([server.endpoint()])).await;
    let many = (0..3).fold(Txn::new(), |txn, n| txn.put(key(format!("{n}")), "", None));
    for (txn, words) in
        [(many, "--max-txn-ops"), (Txn::new().put(key("k"), vec![0; 30_000], None), "--max-request-bytes")]
    {
        let error = store.commit(txn).await.unwrap_err();
        assert_eq!((error.code(), error.effect()), ("unsupported", Effect::None), "{error}");
        assert!(error.to_string().contains(words), "{error}");
    }
    assert_eq!(store.read(Range::All).await.unwrap().entries, []);
}

/// The lease that does not exist is named, also among several.
#[tokio::test]
async fn the_lost_lease_is_named() {
    let server = Etcd::start(Version::Newer).await;
    let store = handle(Config::new([server.endpoint()])).await;
    let lease = store.grant(Duration::from_secs(60)).await.unwrap().id;
    for lost in [LeaseId(0), LeaseId(77), LeaseId(1 << 52), LeaseId(u64::MAX)] {
        for leases in [[lost, lost], [lease, lost], [lost, lease]] {
            let txn = leases
                .iter()
                .enumerate()
                .fold(Txn::new(), |txn, (n, lease)| txn.put(key(format!("{n}")), "v", Some(*lease)));
            assert_eq!(store.commit(txn).await.unwrap_err(), Error::lease_lost(lost));
        }
        assert_eq!(store.keep_alive(lost).await.unwrap_err(), Error::lease_lost(lost));
        assert_eq!(store.revoke(lost).await.unwrap_err(), Error::lease_lost(lost));
    }
    assert_eq!(store.read(Range::All).await.unwrap().entries, []);
}

/// A guard on a revision that no store can have holds for no key, not even for one that does not exist.
#[tokio::test]
async fn impossible_revisions_are_refused() {
    let server = Etcd::start(Version::Debian).await;
    let store = handle(Config::new([server.endpoint()])).await;
    put(&store, "there", "v").await;
    for name in ["there", "absent"] {
        for at in [0, u64::MAX, i64::MAX as u64] {
            let txn = Txn::new().unchanged(key(name), Revision(at)).put(key("new"), "", None);
            assert_eq!(store.commit(txn).await.unwrap(), slipring_core::Commit::Refused);
        }
    }
    assert_eq!(store.entry(&key("new")).await.unwrap(), None);
}

/// A store without room says so with effect none; what exists can still be read, kept alive and revoked.
#[tokio::test]
async fn a_full_store_is_told() {
    let mut options = EtcdOptions::default();
    options.arguments = vec!["--quota-backend-bytes=2000000".into()];
    let server = Etcd::start_with(Version::Newer, options).await;
    let store = handle(Config::new([server.endpoint()])).await;
    let lease = store.grant(Duration::from_secs(60)).await.unwrap().id;
    store.put(key("leased"), "v".into(), Some(lease)).await.unwrap();
    let error = within("the store to be full", async {
        loop {
            if let Err(error) = store.put(key("k"), vec![0; 500_000].into(), None).await {
                return error;
            }
        }
    });
    let error = error.await;
    assert_eq!((error.code(), error.effect()), ("unavailable", Effect::None), "{error}");
    assert!(error.to_string().contains("space exceeded"), "{error}");
    store.keep_alive(lease).await.unwrap();
    store.revoke(lease).await.unwrap();
    assert_eq!(store.entry(&key("leased")).await.unwrap(), None);
}
