use std::sync::Arc;

use slipring_core::{Result, SystemEnvironment};
use slipring_etcd::EtcdDiscovery;
use slipring_nats::NatsMessaging;

/// The store that listens there: `host:port`, with or without a scheme.
///
/// # Errors
/// `Invalid` if that is no address.
pub fn discovery(address: &str) -> Result<EtcdDiscovery> {
    let config = slipring_etcd::Config::new([host(address)]);
    EtcdDiscovery::new(config, Arc::new(SystemEnvironment::new()))
}

/// The broker that listens there: `host:port`, with or without a scheme.
///
/// # Errors
/// `Invalid` if that is no address.
pub fn messaging(address: &str) -> Result<NatsMessaging> {
    let config = slipring_nats::Config::new([host(address)]);
    NatsMessaging::new(config, Arc::new(SystemEnvironment::new()))
}

/// An address without its scheme.
pub fn host(address: &str) -> &str {
    address.split_once("://").map_or(address, |(_, host)| host)
}
