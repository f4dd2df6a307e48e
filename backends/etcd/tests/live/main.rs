//! The adapter on real servers, each test with its own.
//!
//! Tests that begin with the number of an invariant, of a fault, or of another system's defect show that one.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod conformance;
mod fixture;
