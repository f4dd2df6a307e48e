//! What a run costs: printed, and judged only where it does not depend on the machine.
//!
//! The figures of the release build:
//! `cargo test --release -p slipring-sim --test speed -- --nocapture --test-threads 1`; with
//! `SLIPRING_SIM_SOAK_HOURS=168` the long run is a simulated week.
#![allow(clippy::unwrap_used, reason = "a test may")]
#![expect(clippy::disallowed_methods, reason = "it measures the machine")]

use std::time::{Duration, Instant};

use slipring_core::{Discovery, DiscoveryExt, Environment, Key, Result};
use slipring_memory::Profile;
use slipring_sim::check::check;
use slipring_sim::{Latency, Node, Report, Schedule, Setup, Shape, World, simulate};
use tokio::time::{sleep, timeout};

const TTL: Duration = Duration::from_secs(6);
const MINUTE: Duration = Duration::from_secs(60);

/// Keeps a key registered under a lease, and begins anew when it is lost.
async fn member(node: Node) {
    loop {
        let _lost = keep_registered(&node).await;
        sleep(TTL / 6).await;
    }
}

async fn keep_registered(node: &Node) -> Result<()> {
    let store = node.discovery();
    let Ok(lease) = timeout(TTL / 6, store.grant(TTL)).await else { return Ok(()) };
    let lease = lease?;
    let key = Key::new(format!("members/{}", node.name().replace('#', ":"))).unwrap();
    let Ok(put) = timeout(TTL / 6, store.put(key, "".into(), Some(lease.id))).await else { return Ok(()) };
    put?;
    loop {
        let jitter = Duration::from_millis(node.environment().random("jitter") % 200);
        sleep(lease.ttl / 3 - jitter).await;
        if let Ok(beat) = timeout(lease.ttl / 6, store.keep_alive(lease.id)).await {
            beat?;
        }
    }
}

fn setup() -> Setup {
    let latency = Latency::between(Duration::ZERO, Duration::from_millis(50));
    let setup = Setup::from(Profile::etcd()).with_latency(latency).with_lasting_requests(true);
    setup.with_shuffling(true).with_self_check(false)
}

fn run(seed: u64, nodes: usize, length: Duration) -> Report {
    let names: Vec<String> = (0..nodes).map(|number| format!("n{number}")).collect();
    let schedule = Schedule::generate(seed, &Shape::new(&names, TTL, length));
    simulate(seed, setup(), async |world: World| {
        for name in &names {
            world.spawn_node(name, member);
        }
        world.play(schedule.clone());
        sleep(length).await;
    })
}

/// Seeds a second of a minute with five nodes under faults, with all checkers.
#[test]
fn seeds_a_second() {
    let seeds: u32 = if cfg!(debug_assertions) { 50 } else { 2_000 };
    let (began, mut moments) = (Instant::now(), 0);
    for seed in 0..u64::from(seeds) {
        let report = run(seed, 5, MINUTE);
        moments += report.history.moments().len();
        assert_eq!(check(&report.history, &setup().profile), [], "seed {seed}");
    }
    let took = began.elapsed().as_secs_f64();
    println!("{:.0} seeds/s, {} moments a seed", f64::from(seeds) / took, moments / seeds as usize);
}

/// A hundred nodes run. What a moment costs with ten and with a hundred of them is printed: it should not grow.
#[test]
fn a_hundred_nodes() {
    for nodes in [10, 30, 100] {
        let (began, mut moments) = (Instant::now(), 0);
        for seed in 0..5 {
            let report = run(seed, nodes, MINUTE);
            moments += report.history.moments().len();
            assert_eq!(check(&report.history, &setup().profile), [], "seed {seed}");
        }
        let each = began.elapsed().as_secs_f64() * 1e6 / moments as f64;
        println!("{nodes:>4} nodes: {moments} moments, {each:.1} us each");
        assert!(moments > nodes * 5 * 30, "all nodes live");
    }
}

/// A long run that takes its history hour by hour keeps no more in its last hour than in its second.
#[test]
fn a_long_run_keeps_little() {
    let hours = std::env::var("SLIPRING_SIM_SOAK_HOURS").map_or(4, |hours| hours.parse().unwrap());
    let began = Instant::now();
    simulate(7, setup(), async |world: World| {
        for name in ["a", "b", "c", "d", "e"] {
            world.spawn_node(name, member);
        }
        let (mut all, mut second, mut last) = (0, 0, 0);
        for hour in 1..=hours {
            sleep(60 * MINUTE).await;
            last = world.take_history().moments().len();
            all += last;
            if hour == 2 {
                second = last;
            }
        }
        assert!(last < 2 * second && world.history().moments().is_empty(), "{second} and {last}");
        println!("{hours} hours: {all} moments in {:.1} s{}", began.elapsed().as_secs_f64(), resident());
    });
}

/// The memory of this process, where the system tells.
fn resident() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.map(|peak| format!(", at most {} resident", peak.trim())).unwrap_or_default()
}
