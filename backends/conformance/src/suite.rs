use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{FutureExt, StreamExt, stream};
use tokio::time::{Instant, timeout};

use crate::{CASES, Case, CaseReport, Failure, Fixture, Outcome, Report, Trial};

/// Runs the whole table on a backend, one case after the other. Needs a tokio runtime with time (paused or
/// not) and with whatever the backend needs.
pub async fn run(fixture: Arc<dyn Fixture>) -> Report {
    Suite::new().run(fixture).await
}

/// A choice of cases, and how to run them.
#[derive(Debug, Clone)]
#[must_use]
pub struct Suite {
    cases: Vec<&'static Case>,
    concurrent_max: usize,
    case_time_max: Duration,
}

impl Suite {
    /// The longest that a case may take by default.
    pub const CASE_TIME_MAX: Duration = Duration::from_secs(120);

    /// The whole table, one case after the other.
    pub fn new() -> Self {
        Self { cases: CASES.iter().collect(), concurrent_max: 1, case_time_max: Self::CASE_TIME_MAX }
    }

    /// Only the cases that this says yes to.
    pub fn only(mut self, choose: impl Fn(&Case) -> bool) -> Self {
        self.cases.retain(|case| choose(case));
        self
    }

    /// With up to so many cases side by side, at least 1. Cases that are
    /// [exclusive](Case::is_exclusive) still run alone.
    pub fn with_concurrent_max(mut self, cases: usize) -> Self {
        self.concurrent_max = cases.max(1);
        self
    }

    /// With this bound on each case.
    pub fn with_case_time_max(mut self, time: Duration) -> Self {
        self.case_time_max = time;
        self
    }

    /// Runs the cases.
    pub async fn run(self, fixture: Arc<dyn Fixture>) -> Report {
        let (exclusive, shared): (Vec<_>, Vec<_>) = self.cases.iter().partition(|case| case.is_exclusive());
        let result = |case: &'static Case| run_case(case, fixture.clone(), self.case_time_max);
        let mut results: Vec<_> =
            stream::iter(shared).map(result).buffered(self.concurrent_max).collect().await;
        for case in exclusive {
            results.push(result(case).await);
        }
        Report::new(results)
    }

    /// Runs the cases on servers of their own: those that share one on the first, and each that is
    /// [exclusive](Case::is_exclusive) on a fresh one, so that these too run side by side. What they wait for costs no work, so this
    /// saves most of their time.
    pub async fn run_each<F: Fixture>(self, fixture: impl AsyncFn() -> Arc<F>) -> Report {
        let (exclusive, shared): (Vec<_>, Vec<_>) =
            self.cases.iter().copied().partition(|case| case.is_exclusive());
        let shared = Self { cases: shared, ..self };
        let mut results = Vec::new();
        if !shared.cases.is_empty() {
            results = shared.run(fixture().await).await.cases;
        }
        let result = async |case| run_case(case, fixture().await, self.case_time_max).await;
        let exclusive = stream::iter(exclusive).map(result).buffered(self.concurrent_max);
        results.extend(exclusive.collect::<Vec<_>>().await);
        Report::new(results)
    }
}

impl Default for Suite {
    fn default() -> Self {
        Self::new()
    }
}

/// The clock of a test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clock {
    /// tokio's paused clock: for a backend that lives in this process.
    Paused,
    /// The clock of the machine: for a real server.
    Real,
}

/// Runs one case in a current-thread runtime of its own: what [`tests!`](crate::tests) makes its tests of.
///
/// # Panics
/// If the case fails, or if it is skipped without being in `skips`, or not skipped though it is.
#[track_caller]
pub fn test_case<F: Fixture>(
    name: &str,
    clock: Clock,
    skips: &[&str],
    fixture: impl AsyncFnOnce() -> Arc<F>,
) {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().start_paused(clock == Clock::Paused).build();
    let report = runtime.expect("the operating system gives a test its runtime").block_on(async {
        let fixture = fixture().await;
        Suite::new().only(|case| case.name == name).run(fixture).await
    });
    assert!(report.cases.len() == 1, "the table has no case {name:?}");
    let skips: Vec<_> = skips.iter().copied().filter(|skip| *skip == name).collect();
    report.assert_passed(&skips);
}

async fn run_case(case: &'static Case, fixture: Arc<dyn Fixture>, time_max: Duration) -> CaseReport {
    let began = Instant::now();
    let trial = Trial::new(fixture);
    let attempt = AssertUnwindSafe(attempt(case, &trial)).catch_unwind();
    let mut outcome = match timeout(time_max, attempt).await {
        Ok(Ok(Ok(outcome))) => outcome,
        Ok(Ok(Err(failure))) => Outcome::Failed { reason: failure.to_string() },
        Ok(Err(panic)) => Outcome::Failed { reason: format!("a panic: {}", panic_message(&*panic)) },
        Err(_) => Outcome::Failed { reason: format!("not done after {time_max:?}") },
    };
    if case.is_exclusive()
        && let Err(failure) = trial.heal().await
    {
        outcome = Outcome::Failed { reason: format!("the server could not be healed: {failure}") };
    }
    let (name, group) = (case.name, case.group);
    CaseReport { name, group, outcome, notes: trial.into_notes(), took: began.elapsed() }
}

async fn attempt(case: &Case, trial: &Trial) -> Result<Outcome, Failure> {
    if let Some(need) = trial.unmet(case.needs).await? {
        return Ok(Outcome::Skipped { undeclared: need.to_string() });
    }
    (case.run)(trial).await?;
    Ok(Outcome::Passed)
}

fn panic_message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a message")
}
