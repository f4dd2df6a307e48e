//! The test kit of slipring's contracts: it proves a backend, whoever wrote it.
//!
//! # I write a backend: what do I do?
//! Implement [`Fixture`] for your server, depend on this crate as a dev-dependency, and run the whole table
//! in one test:
//!
//! ```no_run
//! # async fn example(fixture: std::sync::Arc<dyn slipring_conformance::Fixture>) {
//! let report = slipring_conformance::run(fixture).await;
//! report.assert_passed(&[]);
//! # }
//! ```
//!
//! or, for a test of its own for each case, write [`tests!`](crate::tests) once. The list is of the cases
//! that may be skipped: a case is skipped only if it needs what the backend does not declare, and a skip
//! that nobody expected is a failure, so a capability cannot be lost unnoticed.
//!
//! # What may a case assume?
//! A server for tests, with a history of its own. Each case has keys and subjects of its own, so cases may
//! share the server and run side by side; those that act on the server ([`Action`]) run alone. Cases check
//! order and lower bounds of time; upper bounds are generous. They run on a paused clock as on a real one.
//!
//! # What happens to a case that panics or hangs?
//! It fails, with the message or the time it was given, and the run goes on.

mod case;
pub mod cases;
mod failure;
mod fixture;
mod follower;
mod outage;
mod report;
mod suite;
mod trial;

pub use case::{Case, Need};
pub use cases::CASES;
pub use failure::{Failure, Verdict};
pub use fixture::{Action, Fixture};
pub use report::{CaseReport, Outcome, Report};
pub use suite::{Clock, Suite, run, test_case};
pub use trial::Trial;
