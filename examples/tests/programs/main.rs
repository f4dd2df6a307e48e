//! The programs `worker` and `caller`, run as the processes that users run.
#![expect(clippy::unwrap_used, reason = "this is test code")]

#[cfg(all(feature = "etcd", feature = "nats"))]
mod clients;
#[cfg(all(feature = "etcd", feature = "nats"))]
mod live;
mod memory;
mod program;
