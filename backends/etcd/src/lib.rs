//! [`Discovery`](slipring_core::Discovery) on etcd, from version 3.4 on.
//!
//! # Which promises are kept where etcd and its client do not keep them?
//! - *A server hangs*: a call ends after [`Config::call_timeout`], a heartbeat too or with whatever shorter
//!   bound its caller has set, a watch after two thirds of [`Config::watch_silence_max`]. The next attempt
//!   dials the next endpoint.
//! - *A server hangs while nothing is asked*: within [`Config::keep_alive_interval`] and
//!   [`Config::keep_alive_timeout`] the connection is given up, and the next call dials the next endpoint. An
//!   idle connection is asked by a small call, where others would send an HTTP/2 ping: etcd 3.4.23 and 3.5.1
//!   end a connection that is pinged while nothing is open on it (`too_many_pings`).
//! - *A server is down*: calls fail at once with effect none, and the endpoints are dialled again after a
//!   pause that doubles from 50 ms up to 1 s.
//! - *A watch ends*: its last item says why. Nothing is resumed here; that is done once, above the trait.
//! - *The store was emptied or restored*: a watch that stands on its old history is given `Compacted`.
//! - *The pool of threads is busy*: heartbeats have a connection and a thread of their own.
//!
//! # What is not watched or read?
//! Keys of others that are no [`Key`](slipring_core::Key) (not UTF-8, too long, control characters) are left
//! out of snapshots and watches.

mod config;
mod connection;
mod dialer;
mod discovery;
mod error;
mod history;
mod kv;
mod lease;
mod tls;
mod watch;

pub use config::{Config, TlsConfig};
pub use discovery::EtcdDiscovery;
