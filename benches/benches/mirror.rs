//! The mirror, which keeps a view of a range: how its costs grow with the number of instances.

use std::hint::black_box;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use slipring::registry::mirror::{Mirror, Options, Step};
use slipring_bench::records;
use slipring_core::{Base, Batch, Change, Entry, Revision, Snapshot};
use slipring_memory::Profile;
use tokio::time::Instant;

const INSTANCES: [u64; 2] = [1_000, 10_000];

/// One snapshot with all instances.
fn snapshot(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("mirror/snapshot");
    for count in INSTANCES {
        let snapshot = Snapshot { revision: Revision(count + 1), entries: entries(count) };
        group.throughput(Throughput::Elements(count));
        group.bench_function(BenchmarkId::from_parameter(count), |bencher| {
            let start = || (opening(), Base::Snapshot(snapshot.clone()));
            let read = |(mut mirror, base): (Mirror, Base)| {
                black_box(mirror.handle_watch(Instant::now(), base));
                mirror
            };
            bencher.iter_batched(start, read, BatchSize::LargeInput);
        });
    }
    group.finish();
}

/// One batch for each instance.
fn one_by_one(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("mirror/one by one");
    for count in INSTANCES {
        let batch = |entry: Entry| Batch { revision: entry.modified, changes: vec![Change::Put(entry)] };
        let batches: Vec<_> = entries(count).into_iter().map(batch).collect();
        group.throughput(Throughput::Elements(count));
        group.bench_function(BenchmarkId::from_parameter(count), |bencher| {
            let start = || {
                let mut mirror = opening();
                let nothing = Snapshot { revision: Revision(1), entries: Vec::new() };
                mirror.handle_watch(Instant::now(), Base::Snapshot(nothing));
                (mirror, batches.clone())
            };
            let read = |(mut mirror, batches): (Mirror, Vec<Batch>)| {
                for batch in batches {
                    black_box(mirror.handle_batch(Instant::now(), batch));
                }
                assert_eq!(mirror.entries().len() as u64, count);
                mirror
            };
            bencher.iter_batched(start, read, BatchSize::LargeInput);
        });
    }
    group.finish();
}

/// A mirror that has just asked for its first watch.
fn opening() -> Mirror {
    let can = Profile::default().discovery;
    let mut mirror = Mirror::new(Instant::now(), Options::new(can.watch_silence_max), 1);
    assert!(matches!(mirror.poll(Instant::now()), Step::Open(_)));
    mirror
}

/// The entries of so many instances, each written at a revision of its own, from 2.
fn entries(count: u64) -> Vec<Entry> {
    let records = records(count).expect("the names are legal");
    let entry = |(revision, (key, value))| Entry { key, value, modified: Revision(revision), lease: None };
    (2..).zip(records).map(entry).collect()
}

criterion_group!(benches, snapshot, one_by_one);
criterion_main!(benches);
