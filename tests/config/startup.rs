use std::time::Duration;

use slipring_servers::{Etcd, Nats, Version};
use tokio::time::{Instant, sleep};

use crate::log::Log;

/// A runtime that starts before its servers waits for them, says so once for each, and is there when they are.
#[tokio::test]
async fn a_runtime_waits_for_servers_that_come_late() {
    const LATE: Duration = Duration::from_secs(2);
    let log = Log::capture();
    let (mut etcd, mut nats) = (Etcd::start(Version::Debian).await, Nats::start(Version::Debian).await);
    let addresses = (format!("etcd://{}", etcd.endpoint()), format!("nats://{}", nats.endpoint()));
    etcd.kill();
    nats.kill();
    etcd.wipe();
    let began = Instant::now();
    let starting = crate::runtime(&addresses.0, &addresses.1);
    let servers = async {
        sleep(LATE).await;
        etcd.restart().await.unwrap();
        sleep(LATE).await;
        nats.restart().await.unwrap();
    };
    let (runtime, ()) = tokio::join!(starting, servers);
    let runtime = runtime.unwrap();
    assert!(began.elapsed() >= 2 * LATE);
    assert!(runtime.stop().await.is_clean());
    for server in [etcd.endpoint(), nats.endpoint()] {
        let text = log.text();
        let said = text.lines().filter(|line| line.contains("WARN") && line.contains("waiting for"));
        assert_eq!(said.filter(|line| line.contains(&server)).count(), 1, "{text}");
    }
}
