//! A selection of the scenarios on turmoil: the component model over a network that loses connections.

use slipring_sim::{Engine, Scenario};

/// Runs some seeds of a scenario, each twice.
fn confirm(name: &str, seeds: std::ops::Range<u64>) {
    let scenario: Scenario =
        scenarios::all().into_iter().find(|scenario| scenario.name() == name).expect("it has this name");
    assert!(scenario.engines().contains(&Engine::Turmoil));
    for seed in seeds {
        let run = || scenario.replay_on(Engine::Turmoil, seed, scenario.schedule(seed));
        let outcome = run();
        assert!(outcome.violations.is_empty(), "seed {seed}: {}", outcome.violations[0]);
        assert_eq!(outcome.report.stray_tasks, 0, "seed {seed}");
        assert_eq!(run().hash, outcome.hash, "seed {seed} does not decide the run");
    }
}

/// L1, L2, L12: leases end on time, and who lives is registered again.
#[test]
fn lease_expiry() {
    confirm("lease_expiry", 0..2);
}

/// SW5, M13: who leaves is gone, and stays gone.
#[test]
fn deregistration() {
    confirm("deregistration", 0..2);
}

/// SW1 to SW7: clients share one watch, and see what the store shows.
#[test]
fn shared_watcher() {
    confirm("shared_watcher", 0..2);
}

/// M14: a clean stop fails no request.
#[test]
fn rolling_restart() {
    confirm("rolling_restart", 0..1);
}
