//! The backend in memory keeps all contracts.

use std::time::Duration;

use slipring_conformance::{CASES, Case, Need, Suite};
use slipring_core::{DiscoveryCapabilities, MessagingCapabilities};
use slipring_memory::Profile;

mod world;
use world::WorldFixture;

/// The exact profile is all that the contracts describe: it passes whole, and nothing is skipped.
#[tokio::test(start_paused = true)]
async fn the_exact_world_passes_whole() {
    slipring_conformance::run(WorldFixture::of(Profile::exact())).await.assert_passed(&[]);
}

/// Leases that end late, at the looks of a real store, keep the contracts too.
#[tokio::test(start_paused = true)]
async fn the_etcd_world_passes_whole() {
    slipring_conformance::run(WorldFixture::of(Profile::etcd())).await.assert_passed(&[]);
}

/// Cases that share a world and run side by side do not disturb each other.
#[tokio::test(start_paused = true)]
async fn cases_run_side_by_side() {
    let suite = Suite::new().with_concurrent_max(CASES.len());
    suite.run(WorldFixture::of(Profile::etcd())).await.assert_passed(&[]);
}

/// The cases hold by the machine's clock too, on several threads.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_clock_may_run() {
    let discovery = Profile::exact().discovery.with_watch_silence_max(Duration::from_millis(400));
    let profile =
        Profile::exact().with_discovery(discovery).with_watch_progress_interval(Duration::from_millis(100));
    let suite = Suite::new().with_concurrent_max(CASES.len());
    suite.run(WorldFixture::of(profile)).await.assert_passed(&[]);
}

/// A world that can do the least passes all that it claims; skipped is exactly what it does not claim.
#[tokio::test(start_paused = true)]
async fn the_least_world_skips_exactly_what_it_lacks() {
    let profile = Profile::exact()
        .with_discovery(DiscoveryCapabilities::minimal())
        .with_messaging(MessagingCapabilities::minimal().with_headers(false));
    let report = slipring_conformance::run(WorldFixture::of(profile)).await;
    let lacks = |need: &Need| match need {
        Need::Discovery | Need::Messaging | Need::Action(_) => false,
        Need::AtomicKeys(keys) => *keys > 1,
        _ => true,
    };
    let lacking = |case: &&Case| case.needs.iter().any(lacks);
    let skips: Vec<_> = CASES.iter().filter(lacking).map(|case| case.name).collect();
    report.assert_passed(&skips);
    assert_eq!(skips.len(), 29, "{skips:#?}");
}
