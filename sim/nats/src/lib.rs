//! A NATS server within the process, for tests of whatever speaks to NATS: its text protocol over the
//! [`Bus`](slipring_memory::Bus) of slipring's simulator.
//!
//! What it does is what nats-server 2.9 and 2.15 were measured to do, words of errors included, and a test compares
//! the three. Clients reach it over connections, real or not, of an [`Environment`](slipring_core::Environment).
//!
//! # Is it deterministic?
//! It is: time is tokio's, what is random comes from the environment, and everything else is ordered. A client
//! library that brings its own sockets and entropy, as `async-nats` does, is not.
//!
//! # What can be done to it?
//! Drop [`Nats::serve`] and it is gone, as after a crash; serve again and it is back, knowing nothing of before.
//! [`Nats::pause`] lets it stand still with its connections open, [`Nats::cut`] ends them all once.
//!
//! # What is not simulated?
//! JetStream, accounts, permissions, nkeys, TLS, clusters, and monitoring. A wildcard after the 60th token of a
//! pattern is refused. Where nats-server reads a line with a stray carriage return differently, depending on how
//! it arrives, it is read as if it came in one piece. Nothing else is known to be answered differently.

mod arguments;
mod connect;
mod connection;
mod info;
mod names;
mod options;
mod outbox;
mod parser;
mod router;
mod server;
mod session;

pub use options::{Access, Options, Version};
pub use server::Nats;
