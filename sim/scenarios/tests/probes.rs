//! The rare situations that the scenarios meet.
#![allow(clippy::unwrap_used, reason = "a test may")]

use slipring_sim::probes::{KNOWN, Probes};

/// Seeds of each scenario.
const SEEDS: u64 = 80;

/// What these seeds do not meet. Each is met by a history by hand, in the tests of the simulator; messages are
/// not a part of these scenarios' histories.
const RARE: [&str; 12] = [
    "lease_saved_by_failover",
    "lease_renewed_in_its_last_tenth",
    "revoke_met_expiry",
    "applied_after_caller_gave_up",
    "applied_after_node_died",
    "old_epoch_refused",
    "resume_met_compaction",
    "slow_watch_met_compaction",
    "joined_during_resync",
    "reader_given_all_anew",
    "subscription_restored",
    "messages_missed",
];

/// The scenarios meet the rare situations, so that a run without a violation says something.
#[test]
fn the_scenarios_meet_rare_situations() {
    let mut probes = Probes::new();
    // The long soak alone takes as long as all the others.
    for scenario in scenarios::all().into_iter().filter(|scenario| !scenario.name().contains("soak")) {
        for seed in 0..SEEDS {
            let outcome = scenario.run(seed);
            assert_eq!(outcome.violations, [], "{} under seed {seed}", scenario.name());
            probes.merge(&Probes::of(&outcome.report.history));
        }
    }
    println!("{probes}");
    let never: Vec<_> = probes.never().into_iter().filter(|name| !RARE.contains(name)).collect();
    assert!(never.is_empty(), "of {} situations these were never met: {never:?}", KNOWN.len());
}
