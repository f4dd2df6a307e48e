//! A scenario that a seed does not decide, for the test of the doctor.

use std::process::ExitCode;
use std::time::Duration;

use slipring_sim::{Scenario, Shape, World, command};

#[expect(clippy::disallowed_types, reason = "it is here to be found")]
mod worker;

fn main() -> ExitCode {
    let ttl = Duration::from_secs(3);
    let shape = Shape::new(["worker"], ttl, 10 * ttl);
    command::main([Scenario::new("leaky", "A map decides an order", shape, async |world: World| {
        world.spawn_node("worker", worker::run);
        world.calm().await;
    })])
}
