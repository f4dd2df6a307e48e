//! Scenarios of slipring's component model: its real runtimes on the nodes of a simulated world, under faults,
//! judged by the checkers of the simulator and by expectations of their own.
//!
//! ```console
//! $ cargo run --release -p scenarios -- list
//! $ cargo run --release -p scenarios -- explore --scenario lease_expiry --seeds 0..1000
//! ```
//!
//! A scenario that is named after a defect of another system, such as `u3493_lease_loss_heals`, shows that
//! slipring does not have it.

mod broker;
mod calls;
mod defects;
mod fleet;
mod leases;
pub mod mutants;
mod planes;
mod records;
mod soak;
mod views;

use slipring_sim::Scenario;

/// All scenarios, each of which is such that a seed is one run.
pub fn all() -> Vec<Scenario> {
    let subjects = [
        broker::all(),
        leases::all(),
        records::all(),
        views::all(),
        calls::all(),
        defects::all(),
        planes::all(),
        soak::all(),
    ];
    subjects.into_iter().flatten().collect()
}
