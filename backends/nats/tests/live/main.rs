//! The adapter against real servers, old and new. Each test starts its own.

#![allow(clippy::unwrap_used, reason = "a test that fails panics")]
#![allow(clippy::print_stderr, reason = "measured figures are printed")]

mod authentication;
mod breaks;
mod conformance;
mod handles;
mod permissions;
mod startup;
mod subscriptions;
#[cfg(feature = "tls")]
mod tls;
mod world;
