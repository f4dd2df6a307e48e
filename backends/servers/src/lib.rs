//! Real servers for tests: each test starts its own etcd or nats-server on free loopback ports, with data in a
//! directory of its own, and both are gone when the value is dropped, after a panic too. If the test process is
//! killed, a watchdog takes its servers down.
//!
//! # Which versions?
//! [`Version::Debian`] is what the distribution carries, on the path; [`Version::Newer`] is what the test
//! command installs into `target/servers` (or where `SLIPRING_SERVERS` points). A server that is missing fails
//! the test, with the command that installs it.
//!
//! # How does a test make things go wrong?
//! [`Process`] stops, pauses and restarts a server; [`Proxy`] stands between a client and a server and cuts or
//! silences what goes through it, in one direction or in both; [`Proxied`] is a server behind a proxy.

#![expect(
    clippy::disallowed_methods,
    reason = "this stands outside of every simulation: real processes, real time"
)]

mod etcd;
mod nats;
mod ports;
mod process;
mod proxied;
mod proxy;

pub use etcd::{Etcd, EtcdCluster, EtcdOptions};
pub use nats::{Nats, NatsOptions};
pub use ports::{Port, free_ports};
pub use process::{Process, Version};
pub use proxied::Proxied;
pub use proxy::{Direction, Proxy};
