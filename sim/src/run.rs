use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt;
use slipring_memory::Profile;

use crate::history::History;
use crate::setup::Setup;
use crate::trace::Trace;
use crate::world::World;

/// Runs a scenario in a world of its own, on a runtime of its own whose clock is paused: time passes only
/// while everybody waits. Returns what happened; the same seed and scenario give the same bytes.
///
/// The promise holds for code that keeps to the rules: entropy, wall time, connections and tasks from the
/// node's environment, `select!` with `biased`, no `HashMap` order, and no `tokio::sync::watch` channel that
/// several tasks wait for (tokio wakes them in a random order). So the scenario is run twice, and the two runs
/// are compared, unless the setup has no [self-check](Setup::with_self_check).
///
/// # Panics
/// If the scenario does, with the seed and the end of the trace; if the two runs differ, with the first event
/// in which they do.
pub fn run(seed: u64, scenario: impl AsyncFn(World)) -> Trace {
    run_with(seed, Profile::default(), scenario)
}

/// [`run`] in a world with this [`Setup`], or on a broker with this [`Profile`].
///
/// # Panics
/// As [`run`].
pub fn run_with(seed: u64, setup: impl Into<Setup>, scenario: impl AsyncFn(World)) -> Trace {
    Trace::from(&simulate(seed, setup, scenario).history)
}

/// What a run leaves.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// What happened; its last piece, if the scenario [took](World::take_history) the others.
    pub history: History,
    /// Tasks that were started past the environments and are alive at the end, when all nodes are ended.
    pub stray_tasks: usize,
}

impl Report {
    /// A number for the whole run: equal for equal runs, in every process and on every machine.
    pub fn hash(&self) -> u64 {
        self.history.hash()
    }
}

/// [`run_with`], for those who check what happened rather than read it. At the end of the scenario all nodes
/// are ended.
///
/// # Panics
/// As [`run`].
pub fn simulate(seed: u64, setup: impl Into<Setup>, scenario: impl AsyncFn(World)) -> Report {
    let setup = setup.into();
    compare(seed, setup.self_check, || unbroken(seed, attempt(seed, setup.clone(), &scenario)))
}

/// A run; with a check, twice.
///
/// # Panics
/// If the two differ.
pub(crate) fn compare(seed: u64, self_check: bool, run: impl Fn() -> Report) -> Report {
    let report = run();
    if self_check {
        let again = run();
        if let Some(difference) = report.history.first_difference(&again.history) {
            panic!("seed {seed} does not decide the run: it was run twice, and {difference}");
        }
    }
    report
}

/// A run whose scenario did not panic.
///
/// # Panics
/// If it did.
pub(crate) fn unbroken(seed: u64, (report, panic): (Report, Option<(Duration, String)>)) -> Report {
    if let Some((_, what)) = panic {
        let trace = Trace::from(&report.history);
        panic!("seed {seed}: {what}; the end of its trace:\n{}", trace.tail(TAIL_LINES));
    }
    report
}

/// One run, with when the scenario ended in a panic and what it said, if it did.
pub(crate) fn attempt(
    seed: u64,
    setup: impl Into<Setup>,
    scenario: impl AsyncFnOnce(World),
) -> (Report, Option<(Duration, String)>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without I/O needs nothing from the system");
    runtime.block_on(async {
        let world = World::with(seed, setup);
        let run = AssertUnwindSafe(scenario(world.clone())).catch_unwind().await;
        let panic = run.err().map(|panic| (world.elapsed(), panic_text(&*panic).to_owned()));
        (world.finish().await, panic)
    })
}

/// Lines of the trace in the message of a failed run.
const TAIL_LINES: usize = 40;

/// What a panic said.
pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}
