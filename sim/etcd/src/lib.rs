//! An etcd within the process, for tests of whatever speaks to etcd: the gRPC services KV, Lease, Watch and the
//! status of Maintenance over the [`Store`](slipring_memory::store::Store) of slipring's simulator.
//!
//! What it does is what etcd 3.4 and 3.5 were measured to do, words of errors included, and a test compares the
//! two. It is in memory and on tokio's clock: on a paused one, hours pass at once, and the same seed gives the
//! same bytes.
//!
//! # How is it reached?
//! Without a network: [`Etcd::channel`] is a channel for `etcd-client`. Over the network of an
//! [`Environment`](slipring_core::Environment), simulated or real: [`Etcd::serve`]. What a network does to its
//! users then happens to the client too.
//!
//! # What is not simulated?
//! Keys that are no [`Key`](slipring_core::Key), transactions within transactions, progress notifications that
//! nobody asks for, users and permissions, alarms, and members that differ: all servers of an etcd are of one
//! mind. These are refused with `Unimplemented` or `InvalidArgument`, and never ignored, but for
//! `progress_notify`, which etcd itself honours after ten minutes.

mod clock;
mod draft;
mod http;
mod kv;
mod lease;
mod maintenance;
mod range;
mod server;
mod txn;
mod versions;
mod watch;

pub use server::{Backup, Etcd};
