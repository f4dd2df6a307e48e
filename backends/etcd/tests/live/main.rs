//! The adapter on real servers, each test with its own.
//!
//! Tests that begin with the number of an invariant, of a fault, or of another system's defect show that one.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]
#![expect(clippy::print_stdout, reason = "what was measured is shown")]
#![expect(clippy::disallowed_methods, reason = "no simulation: the tasks of a test are tokio's")]

mod access;
mod conformance;
mod faults;
mod fixture;
mod keys;
mod leases;
mod watches;
