//! The scenarios find bugs that are planted: those here soon, and `MUTANTS.md` tells of all.
#![allow(clippy::unwrap_used, reason = "a test may")]

use scenarios::mutants::hunt_all;
use slipring_core::mutation::Mutation;

/// Seeds of each scenario. Without optimisation these take minutes.
const SEEDS: u64 = 80;

const SOON: [&str; 42] = [
    "lease_ends_early",
    "renewal_is_short",
    "renewed_lease_never_ends",
    "expiry_leaves_keys",
    "expiry_splits_revision",
    "election_forgets_renewal",
    "dead_lease_is_accepted",
    "lease_id_returns",
    "put_keeps_old_lease",
    "create_overwrites",
    "refused_txn_counts",
    "idle_delete_counts",
    "txn_is_split",
    "txn_half_applied",
    "snapshot_misses_newest",
    "resume_skips_one",
    "resume_repeats_one",
    "compaction_is_silent",
    "deletions_are_not_told",
    "slow_watch_skips",
    "fan_out_misses_one",
    "group_gets_all",
    "message_twice",
    "newest_first",
    "nobody_is_not_told",
    "loss_is_not_counted",
    "deadline_from_answer",
    "beats_are_slow",
    "loss_is_final",
    "records_have_no_lease",
    "checks_are_blind",
    "resync_keeps_ghosts",
    "break_empties_view",
    "silence_is_ignored",
    "broken_watch_is_left",
    "mirror_skips_one",
    "watch_per_client",
    "deadline_is_forgotten",
    "gone_is_called",
    "drain_is_skipped",
    "fence_is_open",
    "call_is_leaked",
];

/// Each of these bugs breaks a promise under one of the first seeds.
#[test]
fn planted_bugs_are_found() {
    let known = |name: &&str| *Mutation::ALL.iter().find(|mutation| mutation.name() == *name).unwrap();
    let planted: Vec<_> = SOON.iter().map(known).collect();
    let kills = hunt_all(&planted, SEEDS, 2, |_, _| ());
    for kill in &kills {
        println!("{}: {} in {}, seed {}", kill.mutation.name(), kill.invariant, kill.scenario, kill.seed);
    }
    let missed = planted.iter().filter(|planted| !kills.iter().any(|kill| kill.mutation == **planted));
    assert_eq!(missed.collect::<Vec<_>>(), Vec::<&Mutation>::new());
}
