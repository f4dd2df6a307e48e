//! What the kit skips on a world in memory.

use slipring_conformance::{Action, CASES};

/// The cases in which the server goes away: this one is there as long as the process. They are played on it
/// behind a link of the simulator.
pub(crate) fn outages() -> Vec<&'static str> {
    let is_outage = |action: Action| action != Action::Compact;
    CASES.iter().filter(|case| case.actions().any(is_outage)).map(|case| case.name).collect()
}
