//! A swarm of faults against a small service: each seed is one run, it is repeatable, and it breaks no promise.
#![allow(clippy::unwrap_used, reason = "a test may")]

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::StreamExt;
use slipring_core::{Discovery, DiscoveryExt, Environment, Key, Lease, Prefix, Range, Result, Start};
use slipring_memory::Profile;
use slipring_sim::check::check;
use slipring_sim::history::Event;
use slipring_sim::{Fault, Latency, Node, Report, Schedule, Setup, Shape, Trace, World, simulate};
use tokio::time::{sleep, timeout};

const TTL: Duration = Duration::from_secs(6);
const LENGTH: Duration = Duration::from_secs(60);
const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

/// Keeps a key registered, and watches the others'. In each life it begins anew.
async fn member(node: Node) {
    let watching = node.clone();
    node.environment().spawn("watching", Box::pin(watch_others(watching))).detach();
    loop {
        let _lost = keep_registered(&node).await;
        sleep(TTL / 6).await;
    }
}

/// Until the lease is lost, or something else goes wrong.
async fn keep_registered(node: &Node) -> Result<()> {
    let store = node.discovery();
    let Ok(lease) = timeout(TTL / 6, store.grant(TTL)).await else { return Ok(()) };
    let Lease { id, ttl } = lease?;
    let key = Key::new(format!("members/{}", node.name().replace('#', ":"))).unwrap();
    let Ok(put) = timeout(TTL / 6, store.put(key, "".into(), Some(id))).await else { return Ok(()) };
    put?;
    loop {
        let jitter = Duration::from_millis(node.environment().random("jitter") % 200);
        sleep(ttl / 3 - jitter).await;
        if let Ok(beat) = timeout(ttl / 6, store.keep_alive(id)).await {
            beat?;
        }
    }
}

async fn watch_others(node: Node) {
    let range = Range::Prefix(Prefix::new("members/").unwrap());
    loop {
        let opened = timeout(TTL, node.discovery().watch(range.clone(), Start::Snapshot)).await;
        if let Ok(Ok(mut watch)) = opened {
            while let Ok(Some(Ok(_))) = timeout(3 * TTL, watch.events.next()).await {}
        }
        sleep(TTL / 6).await;
    }
}

fn setup() -> Setup {
    let latency = Latency::between(Duration::ZERO, Duration::from_millis(50));
    let setup = Setup::from(Profile::etcd()).with_latency(latency).with_lasting_requests(true);
    // The first test compares runs itself.
    setup.with_shuffling(true).with_self_check(false)
}

fn play(seed: u64, schedule: Schedule) -> Report {
    simulate(seed, setup(), async |world: World| {
        for name in NAMES {
            world.spawn_node(name, member);
        }
        world.play(schedule.clone());
        sleep(LENGTH).await;
    })
}

fn swarm(seed: u64) -> Report {
    play(seed, Schedule::generate(seed, &Shape::new(NAMES, TTL, LENGTH)))
}

/// Promise 6: a seed is the same run every time, with faults, latencies and a shuffled order of tasks; other
/// seeds are other runs.
#[test]
fn a_seed_is_one_run() {
    let runs: BTreeSet<String> = (0..10).map(|seed| Trace::from(&swarm(seed).history).to_string()).collect();
    assert_eq!(runs.len(), 10);
    for seed in 0..10 {
        assert!(runs.contains(Trace::from(&swarm(seed).history).as_str()));
    }
}

/// F38: the seed decides the order of tasks alone too: the same schedule, without latency, is another run.
#[test]
fn f38_a_seed_is_one_interleaving() {
    let order = |seed| {
        let setup = Setup::new().with_shuffling(true);
        let report = simulate(seed, setup, async |world: World| {
            for name in NAMES {
                world.spawn_node(name, async |node: Node| {
                    for _ in 0..5 {
                        tokio::task::yield_now().await;
                        node.note("ran");
                    }
                });
            }
            sleep(TTL).await;
        });
        let notes = report.history.moments().iter().filter(|moment| matches!(moment.event, Event::Note(_)));
        notes.map(|moment| moment.node.to_string()).collect::<Vec<_>>()
    };
    let orders: BTreeSet<_> = (0..20).map(order).collect();
    assert!(orders.len() > 15, "{}", orders.len());
    assert!(orders.iter().all(|order| order.len() == 25));
}

/// No seed breaks a promise of any checker, nothing is left, and the faults are not in vain: leases
/// expire, watches end and calls fail in them.
#[test]
fn no_seed_breaks_a_promise() {
    let mut kinds = BTreeSet::new();
    for seed in 0..200 {
        let report = swarm(seed);
        let violations = check(&report.history, &setup().profile);
        assert!(violations.is_empty(), "seed {seed}: {}", violations[0]);
        assert_eq!(report.stray_tasks, 0);
        kinds.extend(report.history.moments().iter().map(|moment| moment.event.kind()));
    }
    let expected = ["expire", "unwatch", "replace", "revive", "compact", "die", "heal", "batch", "answer"];
    assert!(expected.iter().all(|kind| kinds.contains(kind)), "{kinds:?}");
}

/// A failing schedule shrinks to the faults that matter; what it is saved as replays to the same bytes.
#[test]
fn a_failure_shrinks_and_replays() {
    const SEED: u64 = 7;
    let loses_a_lease = |schedule: &Schedule| {
        let report = play(SEED, schedule.clone());
        report.history.moments().iter().any(|moment| moment.event.kind() == "expire")
    };
    let failing = (0..).map(|seed| Schedule::generate(seed, &Shape::new(NAMES, TTL, LENGTH)));
    let failing = failing.filter(|schedule| schedule.faults().len() > 6).find(loses_a_lease).unwrap();
    let smallest = failing.shrink(loses_a_lease);
    assert!(smallest.faults().len() <= 2, "{smallest}");
    assert!(!loses_a_lease(&Schedule::new()));
    let saved = Schedule::from_json(&smallest.to_json()).unwrap();
    assert_eq!(play(SEED, saved), play(SEED, smallest));
}

/// The checkers find a broken world: a lease that the broker renews behind their back ends too late for them,
/// and one whose history is cut short ends too early.
#[test]
fn the_checkers_look_at_runs() {
    let report = play(1, Schedule::new().with(TTL, Fault::Crash { node: "a".to_owned(), down: None }));
    assert!(check(&report.history, &setup().profile).is_empty());
    let without = |kind: &str| {
        let moments = report.history.moments().iter().filter(|moment| moment.event.kind() != kind);
        let violations = check(&slipring_sim::History::new(moments.cloned().collect()), &setup().profile);
        violations.into_iter().map(|violation| violation.invariant).collect::<BTreeSet<_>>()
    };
    assert!(without("renew").contains("L2"));
    assert!(without("expire").contains("L2"));
    assert!(without("commit").contains("W13"));
}

/// How fast seeds are run; printed, not judged.
#[test]
#[expect(clippy::disallowed_methods, reason = "it measures the machine")]
fn seeds_per_second() {
    const SEEDS: u32 = 100;
    let began = std::time::Instant::now();
    let moments: usize = (0..u64::from(SEEDS)).map(|seed| swarm(seed).history.moments().len()).sum();
    let took = began.elapsed();
    println!(
        "{:.0} seeds/s, {} moments a seed",
        f64::from(SEEDS) / took.as_secs_f64(),
        moments / SEEDS as usize
    );
}
