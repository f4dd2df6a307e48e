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
//! share the server and run side by side; those that act on the server ([`Action`]) run alone, or each on a
//! server of its own ([`Suite::run_each`]). Cases check order and lower bounds of time; upper bounds are
//! generous, and what was measured stands in the report. They run on a paused clock as on a real one.
//!
//! # How do I show what happens when the server goes away?
//! Let the [`Fixture`] stop, pause and cut it. A store in this process has a switch; a real server is a process
//! to be killed and to be sent SIGSTOP, behind a proxy that ends connections. Without these actions the cases
//! that need them are skipped, and nothing is proven about outages.
//!
//! # What happens to a case that panics or hangs?
//! It fails, with the message or the time it was given, and the run goes on: the server is started and resumed
//! again first.
//!
//! # What does a pass prove?
//! That this backend, with this server, in this run, kept every promise that it declares and that a case is
//! about: each case is failed by at least one backend that is broken on purpose, for the reason that the case
//! is there for. With every action and every capability it covers keys, transactions, leases, watches, publish,
//! queue groups, requests, streams, services, limits and names, and all of that while the server restarts,
//! stands still, or loses its connections.
//!
//! # What does it not prove?
//! - *What was not declared.* A skip proves nothing; that is why [`Report::assert_passed`] wants to know each.
//! - *Races that did not happen.* Cases put writers, readers and faults side by side, and do not try every
//!   order. A history under load is not searched for linearizability.
//! - *Clusters.* One server is stopped and comes back with what it had: nothing is said about elections, lost
//!   disks, members that disagree, or a store restored from an older state.
//! - *Time spans.* The longest lease that is seen to end lives seconds; nothing runs for days.
//! - *Access.* Credentials, permissions and TLS are the adapter's own.
//! - *Speed and memory*, beyond what a generous wait notices.

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
