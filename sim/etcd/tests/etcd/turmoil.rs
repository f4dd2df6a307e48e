//! The real adapter and the real client over turmoil's TCP, on which one lost segment kills a connection for good
//! and tells nobody.

use std::cell::RefCell;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use slipring_core::{
    Base, Change, Discovery, DiscoveryExt, Effect, Environment, Error, Key, Revision, Start,
};
use slipring_etcd::EtcdDiscovery;
use slipring_memory::Profile;
use slipring_sim::turmoil::environment;
use slipring_sim_etcd::Etcd;
use tokio::time::{Instant, sleep, timeout};
use turmoil::{Builder, Sim};

use crate::plain;
use crate::scene::{READY, SECOND, config, key, range, until_ok};
use crate::wire::{Traffic, Wired};

const LIMIT: Duration = Duration::from_secs(600);

/// A simulation with an etcd, at `etcd:2379`, whose content outlives its crashes.
fn sim(seed: u64) -> Sim<'static> {
    let mut sim = Builder::new()
        .rng_seed(seed)
        .epoch(std::time::UNIX_EPOCH)
        .simulation_duration(LIMIT)
        .tick_duration(Duration::from_millis(5))
        .build();
    let etcd = Rc::new(RefCell::new(None));
    sim.host("etcd", move || {
        let etcd = etcd.clone();
        async move {
            let environment: Arc<dyn Environment> = Arc::new(environment("etcd", seed));
            let made = || Etcd::new(&Profile::etcd(), environment.clone());
            let etcd: Etcd = etcd.borrow_mut().get_or_insert_with(made).clone();
            let listener = environment.listen("0.0.0.0:2379").await?;
            etcd.serve(environment, listener, READY).await;
            Ok(())
        }
    });
    sim
}

fn wired(name: &'static str, seed: u64) -> Wired {
    Wired::new(Arc::new(environment(name, seed)))
}

fn adapter(wired: &Wired) -> EtcdDiscovery {
    EtcdDiscovery::new(config(), Arc::new(wired.clone())).unwrap()
}

/// Without pings a put of the plain client still hangs long after a partition is repaired; ours ends within its
/// bound, and the next one gets through at once.
#[test]
fn client48_a_put_does_not_hang_after_a_partition() {
    for seed in 0..2 {
        let mut sim = sim(seed);
        sim.client("ours", async move {
            let store = adapter(&wired("ours", seed));
            until_ok("etcd", || store.put(key("k/1"), "v".into(), None)).await;
            turmoil::partition("ours", "etcd");
            let error = store.put(key("k/2"), "v".into(), None).await.unwrap_err();
            assert_eq!((error.code(), error.effect()), ("unavailable", Effect::Unknown));
            sleep(20 * SECOND).await;
            turmoil::repair("ours", "etcd");
            let (_, took) = until_ok("a put", || store.put(key("k/3"), "v".into(), None)).await;
            assert!(took <= 20 * SECOND, "{took:?}");
            Ok(())
        });
        sim.client("theirs", async move {
            let wired = wired("theirs", seed);
            sleep(SECOND).await;
            let mut client = plain::client(&wired, "etcd:2379").await;
            client.put("k/1", "", None).await?;
            turmoil::partition("theirs", "etcd");
            assert!(timeout(5 * SECOND, client.put("k/2", "", None)).await.is_err());
            turmoil::repair("theirs", "etcd");
            let stuck = timeout(60 * SECOND, client.put("k/3", "", None)).await;
            assert!(stuck.is_err(), "without pings nothing notices: {stuck:?}");
            Ok(())
        });
        sim.run().unwrap();
    }
}

/// What a reader has seen: each change with its revision, and how often it began anew from a snapshot.
#[derive(Debug, Default, Clone, PartialEq)]
struct Seen {
    changes: Vec<(Revision, Key)>,
    resumed: u64,
    done_at: Duration,
    traffic: Traffic,
}

/// A reader that follows a writer through partitions, held segments, and crashes of the server.
fn follow(seed: u64) -> Seen {
    const WRITES: u64 = 60;
    let mut sim = sim(seed);
    let seen = Rc::new(RefCell::new(Seen::default()));
    let told = seen.clone();
    sim.client("reader", async move {
        let wired = wired("reader", seed);
        let store = adapter(&wired);
        let began = Instant::now();
        let mut after = Revision(1);
        while told.borrow().changes.len() < usize::try_from(WRITES)? {
            let error: Error = match store.watch(range("k/"), Start::After(after)).await {
                Err(error) => error,
                Ok(mut watch) => {
                    assert_eq!(watch.base, Base::Resumed(after));
                    told.borrow_mut().resumed += 1;
                    loop {
                        match watch.events.next().await.expect("the last item is an error") {
                            Err(error) => break error,
                            Ok(batch) => {
                                after = after.max(batch.revision);
                                let changes = batch.changes.iter().map(Change::key).cloned();
                                let changes = changes.map(|key| (batch.revision, key));
                                told.borrow_mut().changes.extend(changes);
                            }
                        }
                        if told.borrow().changes.len() == usize::try_from(WRITES)? {
                            break Error::cancelled("it has all", Effect::None);
                        }
                    }
                }
            };
            assert_ne!(error.code(), "compacted", "{error}");
            sleep(SECOND / 10).await;
        }
        let mut told = told.borrow_mut();
        (told.done_at, told.traffic) = (began.elapsed(), wired.traffic());
        Ok(())
    });
    sim.client("writer", async move {
        let wired = wired("writer", seed);
        let store = adapter(&wired);
        for number in 0..WRITES {
            let name = key(format!("k/{number:03}"));
            // A put whose fate is unknown may have happened; it does not twice.
            let _ = until_ok("a put", || store.create(name.clone(), "v".into(), None)).await;
            sleep(Duration::from_millis(wired.random("pause") % 1000)).await;
        }
        Ok(())
    });
    disturb(&mut sim, seed);
    seen.take()
}

/// Runs the simulation to its end, with a fault every few seconds.
fn disturb(sim: &mut Sim<'_>, seed: u64) {
    let mut state = seed;
    // Knuth's, of which the high bits are the good ones.
    let mut draw = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state >> 33
    };
    let between = |range: Range<u64>, drawn: u64| {
        Duration::from_millis(range.start + drawn % (range.end - range.start))
    };
    let (mut fault, mut change_at) = (None, between(1_000..10_000, draw()));
    while !sim.step().unwrap() {
        if sim.elapsed() < change_at {
            continue;
        }
        let victim = if draw().is_multiple_of(2) { "reader" } else { "writer" };
        match fault.take() {
            Some((0, victim)) => sim.repair(victim, "etcd"),
            Some((1, victim)) => sim.release(victim, "etcd"),
            Some((2, _)) => sim.bounce("etcd"),
            Some(other) => unreachable!("{other:?}"),
            None => {
                let kind = draw() % 3;
                match kind {
                    0 => sim.partition(victim, "etcd"),
                    1 => sim.hold(victim, "etcd"),
                    _ => sim.crash("etcd"),
                }
                fault = Some((kind, victim));
            }
        }
        change_at = sim.elapsed() + between(1_000..15_000, draw());
    }
}

/// W5: through partitions, held segments and crashes of the server, a watch that is resumed shows each write once
/// and in order; and a seed gives the same bytes at the same times twice.
#[test]
fn w5_resumed_watches_miss_nothing() {
    let mut resumed = 0;
    for seed in 0..3 {
        let seen = follow(seed);
        let keys: Vec<String> = seen.changes.iter().map(|(_, key)| key.to_string()).collect();
        let expected: Vec<String> = (0..keys.len()).map(|number| format!("k/{number:03}")).collect();
        assert_eq!(keys, expected, "seed {seed}");
        assert!(seen.changes.is_sorted_by_key(|(revision, _)| *revision), "seed {seed}");
        assert_eq!(follow(seed), seen, "seed {seed} twice");
        println!("seed {seed}: resumed {} times, {:?} after {:?}", seen.resumed, seen.traffic, seen.done_at);
        resumed += seen.resumed;
    }
    assert!(resumed > 6, "{resumed}");
}
