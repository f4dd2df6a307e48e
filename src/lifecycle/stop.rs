use std::fmt;
use std::future::Future;
use std::time::Duration;

use tokio::time::Instant;

/// How a phase of a stop went.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// As it should.
    Done,
    /// Its time was up before it was confirmed; what it wanted may yet happen, or happens when the lease ends.
    Unconfirmed(String),
    /// Its time was up with so many requests in flight, which were cancelled.
    Abandoned(u64),
}

/// One phase of a stop.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PhaseReport {
    /// `deregister`, `watcher grace`, `drain`, `unsubscribe`, `revoke` or `close`; with the endpoint's name
    /// in front where it is one endpoint's.
    pub name: String,
    /// How long it took.
    pub took: Duration,
    /// How it went.
    pub outcome: Outcome,
}

/// What a stop did, phase by phase, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StopReport {
    /// The phases.
    pub phases: Vec<PhaseReport>,
    /// Requests that were served in the whole life of what was stopped.
    pub requests: u64,
    /// Of these, requests that ended in an error: the handler's fault, a deadline, or a caller that gave up.
    pub errors: u64,
    /// Requests that were cancelled because they took longer than the drain's bound.
    pub abandoned: u64,
}

impl StopReport {
    /// Did every phase go as it should?
    pub fn is_clean(&self) -> bool {
        self.phases.iter().all(|phase| phase.outcome == Outcome::Done)
    }

    pub(crate) fn absorb(&mut self, endpoint: &str, other: &Self) {
        self.requests += other.requests;
        self.errors += other.errors;
        self.abandoned += other.abandoned;
        let phases = other.phases.iter();
        self.phases.extend(
            phases.map(|phase| PhaseReport { name: format!("{endpoint}: {}", phase.name), ..phase.clone() }),
        );
    }
}

impl fmt::Display for StopReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for phase in &self.phases {
            let took = phase.took.as_millis();
            match &phase.outcome {
                Outcome::Done => writeln!(f, "{}: done in {took} ms", phase.name)?,
                Outcome::Unconfirmed(why) => {
                    writeln!(f, "{}: unconfirmed after {took} ms: {why}", phase.name)?
                }
                Outcome::Abandoned(left) => writeln!(f, "{}: {left} abandoned after {took} ms", phase.name)?,
            }
        }
        write!(f, "requests={} abandoned={}", self.requests, self.abandoned)
    }
}

/// Runs phases one after another and notes how they went.
#[derive(Debug, Default)]
pub(crate) struct Phases {
    pub(crate) report: StopReport,
}

impl Phases {
    pub(crate) async fn run(&mut self, name: &str, phase: impl Future<Output = Outcome>) {
        let began = Instant::now();
        let outcome = phase.await;
        if outcome != Outcome::Done {
            tracing::warn!(phase = name, ?outcome, "a phase of the stop did not go as it should");
        }
        if let Outcome::Abandoned(left) = outcome {
            self.report.abandoned += left;
        }
        self.report.phases.push(PhaseReport { name: name.to_owned(), took: began.elapsed(), outcome });
    }
}
