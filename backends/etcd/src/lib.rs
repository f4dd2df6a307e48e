//! [`Discovery`](slipring_core::Discovery) on etcd.

mod config;
mod discovery;

pub use config::Config;
pub use discovery::EtcdDiscovery;
