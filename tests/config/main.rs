//! A runtime from its configuration, on real servers: what operators get wrong, servers that come late, secrets,
//! and deployments that share servers.
#![allow(clippy::unwrap_used, reason = "a test may, and so may what it is set up with")]

mod deployments;
mod log;
mod mistakes;
mod secrets;
mod startup;

use std::process::Command;

use slipring::{Config, DistributedRuntime, Error, Result};
use slipring_servers::{Etcd, Version};

/// The runtime on a discovery and a messaging address.
async fn runtime(discovery: &str, messaging: &str) -> Result<DistributedRuntime> {
    DistributedRuntime::from_config(Config::new(discovery.parse()?, messaging.parse()?)).await
}

/// Why there is no runtime on these addresses.
async fn refused(discovery: &str, messaging: &str) -> Error {
    runtime(discovery, messaging).await.unwrap_err()
}

/// Runs commands of etcdctl, separated by semicolons.
fn etcdctl(version: Version, etcd: &Etcd, commands: &str) {
    for command in commands.split(';') {
        let mut etcdctl = Command::new(version.program("etcdctl"));
        etcdctl.env("ETCDCTL_API", "3").env("ETCDCTL_ENDPOINTS", etcd.endpoint());
        let output = etcdctl.args(command.split_whitespace()).output().unwrap();
        assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    }
}
