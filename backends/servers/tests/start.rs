//! The servers start, listen, stand still, come back and go away.

use slipring_servers::{Etcd, EtcdCluster, EtcdOptions, Nats, Version};
use tokio::net::TcpStream;

/// Both versions of both servers are installed, start, and are gone when they are dropped.
#[tokio::test]
async fn servers_live_as_long_as_their_values() {
    for version in Version::ALL {
        let (etcd, nats) = (Etcd::start(version).await, Nats::start(version).await);
        let endpoints = [etcd.endpoint(), nats.endpoint()];
        for endpoint in &endpoints {
            TcpStream::connect(endpoint).await.unwrap();
        }
        drop((etcd, nats));
        for endpoint in &endpoints {
            assert!(TcpStream::connect(endpoint).await.is_err());
        }
    }
}

/// A server that was killed comes back on the same port; three of them form a cluster.
#[tokio::test]
async fn servers_come_back() {
    let mut etcd = Etcd::start(Version::Debian).await;
    etcd.kill();
    assert!(TcpStream::connect(etcd.endpoint()).await.is_err());
    etcd.wipe();
    etcd.restart().await.unwrap();
    etcd.pause();
    etcd.resume();
    etcd.terminate().await;
    let cluster = EtcdCluster::start(Version::Newer, EtcdOptions::default()).await;
    assert_eq!(cluster.endpoints().len(), 3);
}
