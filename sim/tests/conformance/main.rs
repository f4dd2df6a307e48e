//! What is behind a link keeps all contracts: those of an open link, and those about a server that goes away.

use std::sync::Arc;

use slipring_conformance::CASES;

mod bounded;
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
