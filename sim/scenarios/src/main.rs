//! The command line of the scenarios.

use std::process::ExitCode;

fn main() -> ExitCode {
    slipring_sim::command::main(scenarios::all())
}
