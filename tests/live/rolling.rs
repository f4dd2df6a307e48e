//! Restarts of worker processes by SIGTERM, under load.

use std::time::Duration;

use slipring::Plane;
use slipring_servers::Version;

use crate::chaos::{Callers, Fleet, rounds};

/// Promise 5: three worker processes are restarted one after another by SIGTERM under the load of four callers,
/// round after round; not one request fails, every stop is clean, and what the workers served is what the
/// callers got.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn zero_failed_requests_when_processes_are_restarted() {
    zero_failed_requests(Plane::Broker, rounds(3)).await;
}

/// The same where the workers are called directly.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn zero_failed_requests_on_direct_connections() {
    zero_failed_requests(Plane::Tcp, rounds(2)).await;
}

/// The same where the workers answer over connections to their callers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn zero_failed_requests_when_workers_call_home() {
    zero_failed_requests(Plane::NatsTcp, rounds(2)).await;
}

#[expect(clippy::print_stdout, reason = "the row of the table is what the test is run for")]
async fn zero_failed_requests(plane: Plane, rounds: usize) {
    let mut fleet = Fleet::start(Version::Newer, 1, plane).await;
    let callers = Callers::start(&fleet.addresses, Duration::from_secs(10)).await;
    let mut served = 0;
    for _ in 0..rounds {
        for at in 0..fleet.ids().len() {
            tokio::time::sleep(Duration::from_millis(500)).await;
            served += fleet.restart_worker(at).await;
        }
    }
    let outcomes = callers.stop().await;
    served += fleet.stop().await;
    println!("| workers: restarted by SIGTERM (Newer, {}) | {rounds} | {outcomes} | - | - |", plane.name());
    assert!(outcomes.failed.is_empty() && outcomes.hung == 0 && outcomes.wrong == 0, "{outcomes:?}");
    assert_eq!(served, outcomes.ok, "every call was executed once");
}
