//! Everything at once: watches that are resumed above the adapter, as slipring does it, see all that happened.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::StreamExt;
use slipring_core::{
    Base, Batch, Change, Discovery, Environment, EnvironmentExt, Error, Key, Range, Revision, Start, Txn,
};
use slipring_etcd::Config;
use slipring_sim::{Trace, World, simulate};
use tokio::time::sleep;

use crate::scene::{SECOND, Scene, key, range, setup, within};
use crate::seeds::each_seed;
use crate::wire::{Traffic, Way, Wired};

const SERVERS: [&str; 2] = ["etcd-1", "etcd-2"];
const FAULTS: usize = 8;

/// How often something rare happened.
type Probes = Arc<Mutex<BTreeMap<&'static str, u64>>>;

fn met(probes: &Probes, what: &'static str) {
    *probes.lock().unwrap().entry(what).or_default() += 1;
}

/// What a reader knows of the store.
#[derive(Debug, Default)]
struct Mirror {
    at: Revision,
    entries: BTreeMap<Key, Revision>,
}

impl Mirror {
    fn take(&mut self, batch: Batch) {
        for change in batch.changes {
            match change {
                Change::Put(entry) => self.entries.insert(entry.key, entry.modified),
                Change::Delete(key) => self.entries.remove(&key),
            };
        }
        self.at = self.at.max(batch.revision);
    }
}

/// Follows a range for ever: after what was seen if that is possible, and from a snapshot if not.
async fn follow(store: Arc<dyn Discovery>, range: Range, mirror: Arc<Mutex<Mirror>>, probes: Probes) {
    let mut start = Start::Snapshot;
    loop {
        let error = match store.watch(range.clone(), start).await {
            Err(error) => error,
            Ok(mut watch) => {
                met(&probes, if start == Start::Snapshot { "from a snapshot" } else { "resumed" });
                if let Base::Snapshot(snapshot) = watch.base {
                    let entries = snapshot.entries.into_iter().map(|entry| (entry.key, entry.modified));
                    *mirror.lock().unwrap() = Mirror { at: snapshot.revision, entries: entries.collect() };
                }
                loop {
                    match watch.events.next().await.expect("the last item is an error") {
                        Ok(batch) => mirror.lock().unwrap().take(batch),
                        Err(error) => break error,
                    }
                }
            }
        };
        met(&probes, error.code());
        start = match error {
            Error::Compacted { .. } => Start::Snapshot,
            _ if mirror.lock().unwrap().at > Revision(0) => Start::After(mirror.lock().unwrap().at),
            _ => Start::Snapshot,
        };
        sleep(Duration::from_millis(100)).await;
    }
}

/// Writes, deletes, and leaves leases to end, without a network in between.
async fn write(store: impl Discovery, environment: Arc<dyn Environment>) {
    loop {
        let name = |purpose| key(format!("k/{}", environment.random(purpose) % 20));
        let (one, other) = (name("key"), name("other key"));
        let lease = match environment.random("leased") % 4 {
            0 => Some(store.grant(2 * SECOND).await.unwrap().id),
            _ => None,
        };
        let txn = Txn::new().put(one.clone(), "v", lease);
        let txn = if one == other { txn } else { txn.delete(other) };
        let _ = store.commit(txn).await.unwrap();
        sleep(Duration::from_millis(environment.random("pause") % 200)).await;
    }
}

/// One fault, and its end.
async fn strike(scene: &Scene, wired: &Wired, probes: &Probes) {
    let server = SERVERS[usize::from(wired.random("server").is_multiple_of(2))];
    let address = format!("{server}:2379");
    let lasts = Duration::from_millis(wired.random("lasts") % 20_000);
    let ways: [&[Way]; 3] = [&[Way::ToServer], &[Way::ToClient], &[Way::ToServer, Way::ToClient]];
    match wired.random("fault") % 9 {
        way @ 0..3 => {
            met(probes, "partition");
            wired.silence(&address, ways[way as usize]);
            sleep(lasts).await;
            wired.heal(&address);
        }
        3 => {
            met(probes, "connections cut");
            scene.etcd.cut();
        }
        4 => {
            met(probes, "connections lost");
            wired.lose_connections();
        }
        5 => {
            met(probes, "server crashed");
            scene.world.node(server).crash();
            sleep(lasts).await;
            scene.serve(server).await;
        }
        6 => {
            met(probes, "server paused");
            let environment = scene.world.node(server).environment();
            environment.pause();
            sleep(lasts).await;
            environment.resume();
        }
        7 => {
            met(probes, "election");
            scene.etcd.elect(Duration::from_millis(500 + wired.random("election") % 500));
        }
        _ => {
            met(probes, "history forgotten under a partition");
            SERVERS.iter().for_each(|server| wired.silence(&format!("{server}:2379"), ways[2]));
            sleep(lasts).await;
            scene.etcd.compact();
            SERVERS.iter().for_each(|server| wired.heal(&format!("{server}:2379")));
        }
    }
}

/// A reader under faults; at the end it knows what is in the store.
async fn churn(world: World, probes: &Probes) -> Traffic {
    let scene = Scene::without_servers(world);
    for server in SERVERS {
        scene.serve(server).await;
    }
    let config = Config::new(SERVERS.map(|server| format!("{server}:2379")));
    let (store, wired) = scene.recorded("reader", config);
    wired.set_latency_max(Duration::from_millis(wired.random("latency") % 50));
    let mirror = Arc::new(Mutex::new(Mirror::default()));
    let following = follow(store, range("k/"), mirror.clone(), probes.clone());
    let _following = wired.start("follow", following);
    let writer = scene.world.node("writer").environment();
    let writing = writer.start("write", write(scene.within_process("writer"), writer.clone()));
    for _ in 0..FAULTS {
        sleep(Duration::from_millis(wired.random("gap") % 10_000)).await;
        strike(&scene, &wired, probes).await;
    }
    drop(writing);
    // No lease of the writer's lives longer.
    sleep(5 * SECOND).await;
    let truth = scene.within_process("truth").read(range("k/")).await.unwrap();
    let entries = truth.entries.iter().map(|entry| (entry.key.clone(), entry.modified));
    let entries: BTreeMap<_, _> = entries.collect();
    within("the reader to know what is there", async {
        while mirror.lock().unwrap().entries != entries {
            sleep(SECOND / 10).await;
        }
    })
    .await;
    // So that two runs of a seed are compared to the last byte.
    scene.world.note(format_args!("{:?}", wired.traffic()));
    wired.traffic()
}

/// W1 to W13, K2, L1, L2: under partitions in each direction, cut and lost connections, crashes, pauses,
/// elections and compactions a resumed watch shows each revision once, whole and in order; what was met on the
/// way is counted, and nothing may be missing.
#[test]
fn w5_resumed_watches_miss_nothing() {
    let probes = Probes::default();
    each_seed("churn", 10, async |world| {
        churn(world, &probes).await;
    });
    let probes = probes.lock().unwrap();
    println!("{probes:?}");
    let kinds = [
        "partition",
        "connections cut",
        "connections lost",
        "server crashed",
        "server paused",
        "election",
        "history forgotten under a partition",
        "resumed",
        "from a snapshot",
        "compacted",
        "unavailable",
    ];
    let missing: Vec<_> = kinds.iter().filter(|kind| !probes.contains_key(*kind)).collect();
    assert!(missing.is_empty(), "never met: {missing:?}");
}

/// The same seed gives the same history, and the same bytes at the same times on every connection, with the real
/// client, HTTP/2 and all; another seed gives others.
#[test]
fn the_same_seed_gives_the_same_bytes() {
    let run = |seed| {
        let traffic = Cell::default();
        let report = simulate(seed, setup().with_self_check(false), async |world| {
            traffic.set(churn(world, &Probes::default()).await);
        });
        (Trace::from(&report.history), traffic.get())
    };
    let mut seen = BTreeSet::new();
    for seed in 0..2 {
        let (one, other) = (run(seed), run(seed));
        let mut lines = one.0.as_str().lines().zip(other.0.as_str().lines());
        assert_eq!(lines.find(|(one, other)| one != other), None, "seed {seed}: the first difference");
        assert!(one.0 == other.0, "seed {seed}: one history is longer");
        assert_eq!(one.1, other.1, "seed {seed}: bytes, or when they went");
        println!("seed {seed}: {:?}", one.1);
        assert!(seen.insert(one.1.hash), "seed {seed} is like another");
    }
}
