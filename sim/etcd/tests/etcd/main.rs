//! The real adapter with the real client, on the simulated etcd: without a network, and over one that fails.
//!
//! Tests that begin with the number of an invariant, of a fault, or of another system's defect show that one.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]
#![expect(clippy::print_stdout, reason = "what was measured is shown")]

mod churn;
mod conformance;
mod faults;
mod honesty;
mod plain;
mod scene;
mod seeds;
mod turmoil;
mod wire;
