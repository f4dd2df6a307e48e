//! The backend on etcd keeps all contracts, on both versions.

use slipring_conformance::{Need, Suite};
use slipring_servers::Version;

use crate::fixture::EtcdFixture;

/// How many cases run side by side.
const CONCURRENT_MAX: usize = 8;

async fn passes_whole(version: Version) {
    let suite = Suite::new().only(|case| case.needs.contains(&Need::Discovery));
    let suite = suite.with_concurrent_max(CONCURRENT_MAX);
    let report = suite.run_each(async || EtcdFixture::start(version).await).await;
    println!("{report}");
    report.assert_passed(&[]);
}

/// etcd 3.4 passes whole; nothing is skipped.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn debian_passes_whole() {
    passes_whole(Version::Debian).await;
}

/// etcd 3.5 passes whole; nothing is skipped.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn newer_passes_whole() {
    passes_whole(Version::Newer).await;
}
