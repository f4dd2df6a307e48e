//! How good the scenarios are: bugs are switched on, one at a time, and each must be found.
//!
//! ```console
//! $ cargo run --release -p scenarios --bin mutants -- --out sim/scenarios/MUTANTS.md
//! ```
//!
//! Each bug of [`Mutation::ALL`] is run under one seed of each scenario after the other, then under the next seed
//! of each, until a run breaks a promise. What breaks it is shrunk, and the table says how small it became.

use std::collections::VecDeque;
use std::fmt::Write;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use slipring_core::mutation::{Mutated, Mutation};
use slipring_sim::{Outcome, Scenario};

/// The seeds of each scenario under which a bug has to be found.
pub const SEEDS_MAX: u64 = 1_000;

/// How a bug was found.
#[derive(Debug, Clone)]
pub struct Kill {
    /// The bug.
    pub mutation: Mutation,
    /// The scenario that found it first.
    pub scenario: String,
    /// Its seed; as many seeds of each scenario less one did not find it.
    pub seed: u64,
    /// What was broken.
    pub invariant: &'static str,
    /// The operations that are left of its schedule.
    pub operations: usize,
    /// The faults that are left.
    pub faults: usize,
    /// How long shrinking took.
    pub shrinking: Duration,
}

/// A scenario with a bug.
pub fn mutated(scenario: &Scenario, mutation: Mutation) -> Scenario {
    let mut setup = scenario.setup().clone();
    setup.profile.mutation = Mutated::by(mutation);
    scenario.clone().with_setup(setup)
}

/// Looks for a bug under so many seeds of each scenario; none if it is not found.
pub fn hunt(mutation: Mutation, scenarios: &[Scenario], seeds: u64) -> Option<Kill> {
    let mutants: Vec<Scenario> = scenarios.iter().map(|scenario| mutated(scenario, mutation)).collect();
    for seed in 0..seeds {
        for mutant in &mutants {
            let outcome = mutant.run(seed);
            if !outcome.violations.is_empty() {
                return Some(killed(mutation, mutant, &outcome));
            }
        }
    }
    None
}

#[expect(clippy::disallowed_methods, reason = "it measures the machine")]
fn killed(mutation: Mutation, mutant: &Scenario, outcome: &Outcome) -> Kill {
    let invariant = outcome.violations[0].invariant;
    let began = std::time::Instant::now();
    let smallest = mutant.shrink(outcome.seed, &outcome.schedule, invariant);
    Kill {
        mutation,
        scenario: mutant.name().to_owned(),
        seed: outcome.seed,
        invariant,
        operations: smallest.operations().len(),
        faults: smallest.faults().len(),
        shrinking: began.elapsed(),
    }
}

/// Looks for all these bugs, under so many seeds of each scenario and on so many threads, and says of each whether it was found.
pub fn hunt_all(
    mutations: &[Mutation],
    seeds: u64,
    jobs: usize,
    told: impl Fn(Mutation, Option<&Kill>) + Sync,
) -> Vec<Kill> {
    // The long one finds nothing that the others do not, and takes as long as all of them.
    let scenarios: Vec<_> = crate::all().into_iter().filter(|one| one.name() != "long_soak").collect();
    let waiting: Mutex<VecDeque<Mutation>> = Mutex::new(mutations.iter().copied().collect());
    let kills = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let Some(mutation) = lock(&waiting).pop_front() else { return };
                    let kill = hunt(mutation, &scenarios, seeds);
                    told(mutation, kill.as_ref());
                    lock(&kills).extend(kill);
                }
            });
        }
    });
    let mut kills = std::mem::take(&mut *lock(&kills));
    kills.sort_by_key(|kill| kill.mutation);
    kills
}

/// The table, as Markdown.
pub fn table(mutations: &[Mutation], kills: &[Kill]) -> String {
    let mut text = String::from(
        "# Bugs that the scenarios find\n\n\
         Made by `cargo run --release -p scenarios --bin mutants -- --out sim/scenarios/MUTANTS.md`. Each bug is \
         switched on alone;\nevery scenario runs one seed after the other until one breaks a promise, whose schedule \
         is then shrunk.\n\n\
         | bug | what it does wrong | broken | scenario | seeds | operations | faults | shrunk in |\n\
         |---|---|---|---|---|---|---|---|\n",
    );
    for mutation in mutations {
        let (name, what) = (mutation.name(), mutation.what());
        let line = match kills.iter().find(|kill| kill.mutation == *mutation) {
            None => writeln!(text, "| `{name}` | {what} | **not found** | | {SEEDS_MAX} | | | |"),
            Some(kill) => {
                let Kill { scenario, seed, invariant, operations, faults, shrinking, .. } = kill;
                let (seeds, seconds) = (seed + 1, shrinking.as_secs_f64());
                writeln!(
                    text,
                    "| `{name}` | {what} | {invariant} | `{scenario}` | {seeds} | {operations} | {faults} | {seconds:.1} s |"
                )
            }
        };
        line.expect("a text takes every line");
    }
    let median = |mut sizes: Vec<usize>| {
        sizes.sort_unstable();
        sizes.get(sizes.len() / 2).copied().unwrap_or_default()
    };
    let operations = median(kills.iter().map(|kill| kill.operations).collect());
    let faults = median(kills.iter().map(|kill| kill.faults).collect());
    let (found, all) = (kills.len(), mutations.len());
    writeln!(
        text,
        "\n{found} of {all} found; medians after shrinking: {operations} operations, {faults} faults."
    )
    .expect("a text takes every line");
    text
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no code panics while it holds the lock")
}
