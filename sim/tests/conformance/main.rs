//! What is behind a link keeps all contracts: those of an open link, and those about a server that goes away.

#![expect(clippy::unwrap_used, reason = "this is test code, its wrappers too")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use slipring_conformance::{CASES, Suite};
use slipring_sim::Latency;

mod bounded;
mod broken;
mod broken_broker;
mod broken_store;
mod linked;

use linked::Linked;

/// The whole kit passes through a link: while it is open, when it is cut, and when it is silent. Nothing is
/// skipped.
#[tokio::test(start_paused = true)]
async fn a_link_keeps_all_contracts() {
    let report = slipring_conformance::run(Arc::new(Linked::new())).await;
    report.assert_passed(&[]);
    assert_eq!(report.passed().len(), CASES.len());
}

/// The whole kit passes through a link on which messages take their time, each another.
#[tokio::test(start_paused = true)]
async fn a_link_with_latency_keeps_all_contracts() {
    let linked = Linked::new();
    linked.link.set_latency(Latency::between(Duration::ZERO, Duration::from_millis(20)));
    let report = slipring_conformance::run(Arc::new(linked)).await;
    report.assert_passed(&[]);
    assert_eq!(report.passed().len(), CASES.len());
}

/// Each exclusive case may have a server of its own: then one more is enough for all the others.
#[tokio::test(start_paused = true)]
async fn each_case_may_have_a_server() {
    let servers = AtomicUsize::new(0);
    let fixture = async || {
        servers.fetch_add(1, Ordering::Relaxed);
        Arc::new(Linked::new())
    };
    let report = Suite::new().with_concurrent_max(8).run_each(fixture).await;
    report.assert_passed(&[]);
    assert_eq!(report.passed().len(), CASES.len());
    let exclusive = CASES.iter().filter(|case| case.is_exclusive()).count();
    assert_eq!(servers.into_inner(), exclusive + 1);
}
