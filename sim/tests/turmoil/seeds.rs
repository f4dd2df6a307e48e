//! What a seed promises, and what runs under many seeds show.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use slipring_sim::check::check;
use slipring_sim::{Schedule, Shape, Trace};

use crate::member::{NAMES, TTL, play, setup};

const LENGTH: Duration = Duration::from_secs(30);

fn swarm(seed: u64) -> slipring_sim::Report {
    let schedule = Schedule::generate(seed, &Shape::new(NAMES, TTL, LENGTH));
    play(seed, setup().with_messages(true), schedule, LENGTH)
}

fn trace(seed: u64) -> String {
    Trace::from(&swarm(seed).history).to_string()
}

/// Promise 6: a seed is the same run every time, with faults, latencies, lost connections and a shuffled order of
/// tasks; other seeds are other runs.
#[test]
fn a_seed_is_one_run() {
    let runs: BTreeSet<String> = (0..3).map(trace).collect();
    assert_eq!(runs.len(), 3);
    for seed in 0..3 {
        assert!(runs.contains(&trace(seed)), "seed {seed}");
    }
}

/// Promise 6: two more processes get the same bytes as this one.
#[test]
fn a_seed_is_the_same_run_in_another_process() {
    const SEED: u64 = 7;
    const OUTPUT: &str = "SLIPRING_SIM_TURMOIL_TRACE_TO";
    if let Some(path) = std::env::var_os(OUTPUT) {
        std::fs::write(path, trace(SEED)).unwrap();
        return;
    }
    for child in 1..=2 {
        let path = format!("{}/turmoil-trace-{}-{child}", env!("CARGO_TARGET_TMPDIR"), std::process::id());
        let test = "seeds::a_seed_is_the_same_run_in_another_process";
        let run = Command::new(std::env::current_exe().unwrap())
            .args([test, "--exact"])
            .env(OUTPUT, &path)
            .output();
        assert!(run.unwrap().status.success());
        let theirs = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(theirs, trace(SEED));
    }
}

/// K2, L1, L2, W1 to W4, W13: no seed breaks a promise, nothing is left, and the faults are not in vain: leases
/// expire, watches end and calls fail in them. How fast seeds run is printed.
#[test]
#[expect(clippy::disallowed_methods, reason = "it measures the machine, and judges nothing by that")]
fn no_seed_breaks_a_promise() {
    let seeds = std::env::var("SLIPRING_TURMOIL_SEEDS").map_or(10, |seeds| seeds.parse::<u32>().unwrap());
    let began = std::time::Instant::now();
    let mut kinds = BTreeSet::new();
    let mut moments = 0;
    for seed in 0..seeds.into() {
        let report = swarm(seed);
        let violations = check(&report.history, &setup().profile);
        assert!(violations.is_empty(), "seed {seed}: {}", violations[0]);
        assert_eq!(report.stray_tasks, 0, "seed {seed}");
        kinds.extend(report.history.moments().iter().map(|moment| moment.event.kind()));
        moments += report.history.moments().len();
    }
    let rate = f64::from(seeds) / began.elapsed().as_secs_f64();
    let simulated = rate * LENGTH.as_secs_f64();
    println!("{rate:.1} seeds/s, {simulated:.0} s/s, {} moments a seed", moments / seeds as usize);
    let expected = ["expire", "unwatch", "die", "heal", "batch", "answer"];
    assert!(expected.iter().all(|kind| kinds.contains(kind)), "{kinds:?}");
}
