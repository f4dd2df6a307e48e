//! The store against a model of it, and against the invariants one by one.
//!
//! Each property test draws a profile and a sequence of steps, runs them on a [`Store`](slipring_memory::store::Store),
//! and looks at the whole record of what happened. Tests are named after the invariants (K: keys, L: leases, W:
//! watches).

#![allow(clippy::unwrap_used, reason = "a test that fails panics")]

mod keys;
mod leases;
mod model;
mod run;
mod surprises;
mod watches;
