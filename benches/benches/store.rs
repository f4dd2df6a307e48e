//! The store in memory: what a commit costs, and what it costs to tell watches of one.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use slipring_core::{Bytes, Key, Prefix, Range, Start, Txn};
use slipring_memory::Profile;
use slipring_memory::store::Store;

const NOW: Duration = Duration::ZERO;

/// Commits that each write so many keys, which exist already.
fn commit(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("store/commit");
    for keys in [1, 16] {
        let txn = keys_of("bench", keys).into_iter().fold(Txn::new(), |txn, key| txn.put(key, value(), None));
        let mut store = Store::new(Profile::default(), 1);
        group.throughput(Throughput::Elements(keys));
        group.bench_function(BenchmarkId::new("keys", keys), |bencher| {
            bencher.iter_batched(|| txn.clone(), |txn| store.commit(NOW, txn), BatchSize::SmallInput);
        });
    }
    group.finish();
}

/// Commits of one key under a prefix that so many watches follow; each of them reads the change.
fn fan_out(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("store/watch");
    for watches in [1, 100, 10_000] {
        let mut store = Store::new(Profile::default(), 1);
        let prefix = Prefix::new("bench/").expect("it ends in a slash");
        for _ in 0..watches {
            let opened = store.watch(NOW, Range::Prefix(prefix.clone()), Start::Snapshot);
            opened.expect("a snapshot is always there");
        }
        let key = Key::new("bench/1").expect("a legal key");
        group.throughput(Throughput::Elements(watches));
        group.bench_function(BenchmarkId::new("fan-out", watches), |bencher| {
            bencher.iter(|| {
                let txn = Txn::new().put(key.clone(), value(), None);
                let _ = black_box(store.commit(NOW, txn).expect("nothing forbids it"));
                let woken = store.take_woken();
                assert_eq!(woken.len() as u64, watches);
                for watch in woken {
                    black_box(store.poll(watch).expect("its reader is never behind"));
                }
            });
        });
    }
    group.finish();
}

fn keys_of(prefix: &str, count: u64) -> Vec<Key> {
    (0..count).map(|number| Key::new(format!("{prefix}/{number}")).expect("a legal key")).collect()
}

/// As long as a record.
fn value() -> Bytes {
    Bytes::from_static(&[b'x'; 256])
}

criterion_group!(benches, commit, fan_out);
criterion_main!(benches);
