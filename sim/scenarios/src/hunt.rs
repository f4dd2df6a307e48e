//! Switches on one bug after the other, and prints what found it. Fails if one is not found.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "it is a program")]

use std::process::ExitCode;

use scenarios::mutants::{SEEDS_MAX, hunt_all, table};
use slipring_core::mutation::Mutation;

const USAGE: &str = "mutants [--out FILE] [--seeds N] [--jobs N] [NAME...]: looks for these bugs, or for all";

fn main() -> ExitCode {
    // Bugs make panics, and these are violations like others.
    std::panic::set_hook(Box::new(|_| {}));
    match run(std::env::args().skip(1)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(problem) => {
            eprintln!("{problem}\n{USAGE}");
            ExitCode::from(2)
        }
    }
}

fn run(mut arguments: impl Iterator<Item = String>) -> Result<bool, String> {
    let (mut out, mut seeds, mut jobs, mut wanted) = (None, SEEDS_MAX, 2, Vec::new());
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
        match &*argument {
            "--out" => out = Some(value()?),
            "--jobs" => jobs = value()?.parse().map_err(|error| format!("--jobs: {error}"))?,
            "--seeds" => seeds = value()?.parse().map_err(|error| format!("--seeds: {error}"))?,
            name => {
                let known = Mutation::ALL.iter().find(|mutation| mutation.name() == name);
                wanted.push(*known.ok_or(format!("no bug is called {name:?}"))?);
            }
        }
    }
    let mutations = if wanted.is_empty() { Mutation::ALL.to_vec() } else { wanted };
    let kills = hunt_all(&mutations, seeds, jobs, |mutation, kill| match kill {
        Some(kill) => {
            eprintln!("{}: {} in {}, seed {}", mutation.name(), kill.invariant, kill.scenario, kill.seed)
        }
        None => eprintln!("{}: NOT FOUND", mutation.name()),
    });
    let table = table(&mutations, &kills);
    match out {
        Some(out) => std::fs::write(&out, table).map_err(|error| format!("{out}: {error}"))?,
        None => print!("{table}"),
    }
    Ok(kills.len() == mutations.len())
}
