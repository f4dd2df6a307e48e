//! The component model from outside: its public API alone, on the in-memory backend, under faults.
//!
//! One program, so that it is linked once; each module is a subject.
#![allow(clippy::unwrap_used, reason = "a test may, and so may what it is set up with")]

mod calls;
mod cancel;
mod cancelled;
mod churn;
mod common;
mod deadlines;
mod events;
mod lease;
mod liveness;
mod names;
mod process;
mod quick;
mod registry;
mod retries;
mod rolling;
mod routing;
mod serving;
mod stop;
mod streams;
mod watching;
mod weak;
