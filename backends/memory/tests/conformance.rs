//! The backend in memory keeps all contracts.

use std::sync::Arc;

use slipring_conformance::{CASES, Fixture, Suite};
use slipring_core::{DiscoveryCapabilities, Environment, MessagingCapabilities, SystemEnvironment};
use slipring_memory::Profile;

mod outages;
mod world;

use outages::outages;
use world::WorldFixture;

/// The exact profile is all that the contracts describe: it passes whole, and only what would take it
/// away is skipped.
#[tokio::test(start_paused = true)]
async fn the_exact_world_passes_whole() {
    slipring_conformance::run(WorldFixture::of(Profile::exact())).await.assert_passed(&outages());
}

/// Leases that end late, at the looks of a real store, keep the contracts too.
#[tokio::test(start_paused = true)]
async fn the_etcd_world_passes_whole() {
    slipring_conformance::run(WorldFixture::of(Profile::etcd())).await.assert_passed(&outages());
}

/// Cases that share a world and run side by side do not disturb each other.
#[tokio::test(start_paused = true)]
async fn cases_run_side_by_side() {
    let suite = Suite::new().with_concurrent_max(CASES.len());
    suite.run(WorldFixture::of(Profile::etcd())).await.assert_passed(&outages());
}

/// The cases hold by the machine's clock too, on several threads. Those that race a lease against the
/// machine's load are left to the paused clock.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_clock_may_run() {
    let groups = ["keys", "revisions", "transactions", "publish", "queues", "requests", "streams"];
    let suite = Suite::new().with_concurrent_max(CASES.len()).only(|case| groups.contains(&case.group));
    suite.run(WorldFixture::of(Profile::exact())).await.assert_passed(&[]);
}

/// A world that can do the least passes all that it claims; skipped is exactly what it does not claim.
#[tokio::test(start_paused = true)]
async fn the_least_world_skips_exactly_what_it_lacks() {
    let profile = Profile::exact()
        .with_discovery(DiscoveryCapabilities::minimal())
        .with_messaging(MessagingCapabilities::minimal().with_headers(false));
    let mut skips = outages();
    skips.extend([
        // read: Linearizable
        "k1_acknowledged_writes_are_read",
        // atomic_keys_max
        "snapshot_is_of_one_revision",
        "k4_transaction_is_one_revision",
        "writes_are_fenced_by_another_key",
        "refused_changes_nothing",
        "large_value_refuses_the_whole",
        "missing_deletion_is_no_obstacle",
        "unknown_lease_refuses_the_whole",
        "w4_transactions_are_shown_whole",
        "w7_transactions_are_filtered",
        // expiry_atomic
        "l3_expiry_is_one_revision",
        "l3_revoke_is_one_revision",
        // watch: EveryRevision
        "w3_every_write_is_shown",
        "watches_are_independent",
        // resume
        "w5_resumable",
        "future_revision_is_compacted",
        "w11_compaction_is_told",
        // headers
        "headers_arrive",
        "m11_headers_count",
        "requests_carry_all",
        // no_responders
        "dropping_ends_the_interest",
        "end_of_a_reader_is_noticed",
        "m7_no_responders_arrives_at_the_inbox",
        // wildcards
        "m5_wildcards_are_exact",
        "m4_overlapping_patterns_get_one_each",
        // queue_groups
        "m4_one_member_gets_each",
        "m4_single_member_gets_all",
        "m4_groups_are_independent",
        "m4_never_a_former_member",
        "m4_one_name_is_one_group",
        "m8_one_member_answers",
        "instances_share_requests",
    ]);
    slipring_conformance::run(WorldFixture::of(profile)).await.assert_passed(&skips);
}

/// A fixture without a server is not a green run: every case is skipped, and the report says why.
#[tokio::test(start_paused = true)]
async fn a_fixture_without_a_server_is_all_skips() {
    #[derive(Debug)]
    struct Nothing;

    impl Fixture for Nothing {
        fn environment(&self) -> Arc<dyn Environment> {
            Arc::new(SystemEnvironment::new())
        }
    }

    let report = slipring_conformance::run(Arc::new(Nothing)).await;
    assert_eq!(report.skipped().len(), CASES.len(), "{report}");
    assert!(
        report.to_string().contains("skip  keys::snapshot_is_in_key_order: undeclared: discovery"),
        "{report}"
    );
    assert!(report.to_json().contains(r#""undeclared": "messaging""#), "{report}");
}

/// The report is for people and for machines: what a case measured is in both.
#[tokio::test(start_paused = true)]
async fn the_report_shows_what_was_measured() {
    let suite = Suite::new().only(|case| case.name == "l1_never_early");
    let report = suite.run(WorldFixture::of(Profile::exact())).await;
    let text = report.to_string();
    assert!(
        text.starts_with("pass  leases::l1_never_early\n      a lease of 500ms ended 0ns after"),
        "{text}"
    );
    assert!(text.ends_with("1 passed, 0 failed, 0 skipped"), "{text}");
    let json = report.to_json();
    assert!(json.contains(r#""outcome": "passed""#) && json.contains("a lease of 500ms ended 0ns"), "{json}");
}
