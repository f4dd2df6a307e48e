//! What each fault does to the node that it strikes, and to those that watch it. The names begin with the
//! numbers of the catalogue in the documentation of [`slipring_sim::Fault`].
#![allow(clippy::unwrap_used, reason = "a test may")]

mod bus;
mod cancel;
mod catalogue;
mod clocks;
mod common;
mod links;
mod network;
mod nodes;
mod store;
mod watches;
