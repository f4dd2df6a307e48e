use std::any::Any;
use std::future::poll_fn;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use futures_util::FutureExt;
use slipring_memory::Profile;

use crate::history::History;
use crate::pulse::{Pulse, standstill};
use crate::setup::Setup;
use crate::trace::Trace;
use crate::world::{Ground, World};

/// Runs a scenario in a world of its own, on a runtime of its own whose clock is paused: time passes only
/// while everybody waits. Returns what happened; the same seed and scenario give the same bytes.
///
/// The promise holds for code that keeps to the rules: entropy, wall time, connections and tasks from the
/// node's environment, `select!` with `biased`, no `HashMap` order, and no `tokio::sync::watch` channel that
/// several tasks wait for (tokio wakes them in a random order). So the scenario is run twice, and the two runs
/// are compared, unless the setup has no [self-check](Setup::with_self_check).
///
/// # Panics
/// If the scenario does, or if time comes to stand still, because somebody wakes himself for ever, with the seed and
/// the end of the trace; if the two runs differ, with the first event in which they do.
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
    compare(seed, setup.self_check, || {
        unbroken(seed, attempt(seed, setup.clone(), Pulse::default(), &scenario))
    })
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

/// A run whose scenario came to its end.
///
/// # Panics
/// If it did not.
pub(crate) fn unbroken(seed: u64, (report, failure): (Report, Option<Failure>)) -> Report {
    if let Some(Failure { what, .. }) = failure {
        let trace = Trace::from(&report.history);
        panic!("seed {seed}: {what}; the end of its trace:\n{}", trace.tail(TAIL_LINES));
    }
    report
}

/// How a scenario failed.
pub(crate) struct Failure {
    pub(crate) at: Duration,
    /// The promise that it broke: [`STORY`] or [`STANDSTILL`].
    pub(crate) promise: &'static str,
    pub(crate) what: String,
}

/// What a panic of the scenario breaks.
pub(crate) const STORY: &str = "story";
/// What breaks a run in which time stands still.
pub(crate) const STANDSTILL: &str = "standstill";

/// One run, and how its scenario failed, if it did.
pub(crate) fn attempt(
    seed: u64,
    setup: impl Into<Setup>,
    pulse: Pulse,
    scenario: impl AsyncFnOnce(World),
) -> (Report, Option<Failure>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without I/O needs nothing from the system");
    runtime.block_on(async {
        let world = World::on(Ground::Memory, seed, setup.into(), pulse);
        let failure = tell(&world, scenario(world.clone())).await;
        (world.finish().await, failure)
    })
}

/// Tells a story to its end, or to where it panics, or to where time stands still.
pub(crate) async fn tell(world: &World, story: impl Future<Output = ()>) -> Option<Failure> {
    let mut story = pin!(AssertUnwindSafe(story).catch_unwind());
    let log = world.log();
    let fail = |promise, what| Some(Failure { at: log.elapsed(), promise, what });
    poll_fn(|cx| {
        if let Poll::Ready(why) = log.pulse().poll_stop(cx) {
            return Poll::Ready(fail(STANDSTILL, why));
        }
        if log.is_one_too_many() {
            return Poll::Ready(fail(STANDSTILL, standstill("the story")));
        }
        story.as_mut().poll(cx).map(|told| match told {
            Ok(()) => None,
            Err(panic) => fail(STORY, panic_text(&*panic).to_owned()),
        })
    })
    .await
}

/// Lines of the trace in the message of a failed run.
const TAIL_LINES: usize = 40;

/// What a panic said.
pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}
