//! The servers start, listen, stand still, come back and go away.

use std::path::Path;
use std::time::Duration;

use slipring_servers::{Etcd, EtcdCluster, EtcdOptions, Nats, Port, Version};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

async fn listens(endpoint: &str) -> bool {
    TcpStream::connect(endpoint).await.is_ok()
}

/// Both versions of both servers are installed, start, and are gone when they are dropped, paused or not; with
/// them go their directories.
#[tokio::test]
async fn servers_live_as_long_as_their_values() {
    for version in Version::ALL {
        let (etcd, nats) = (Etcd::start(version).await, Nats::start(version).await);
        let endpoints = [etcd.endpoint(), nats.endpoint()];
        let directories = [etcd.directory().to_owned(), nats.directory().to_owned()];
        for endpoint in &endpoints {
            assert!(listens(endpoint).await);
        }
        nats.pause();
        drop((etcd, nats));
        for (endpoint, directory) in endpoints.iter().zip(&directories) {
            assert!(!listens(endpoint).await);
            assert!(!directory.exists());
        }
    }
}

/// A server that was killed comes back on the same port with its data, unless they were wiped.
#[tokio::test]
async fn servers_come_back() {
    let mut etcd = Etcd::start(Version::Debian).await;
    etcd.ctl(&["put", "key", "value"]).await;
    etcd.kill();
    assert!(!listens(&etcd.endpoint()).await);
    etcd.restart().await.unwrap();
    etcd.ready().await;
    assert_eq!(etcd.ctl(&["get", "key", "--print-value-only"]).await, "value\n");
    assert_eq!(etcd.revision().await, 2);
    etcd.pause();
    // Asked to end while it is paused, it ends by itself; it is not killed after half a minute.
    let began = Instant::now();
    etcd.terminate().await;
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    etcd.wipe();
    etcd.restart().await.unwrap();
    etcd.ready().await;
    assert_eq!(etcd.revision().await, 1);
}

/// After a compaction the history before the current revision is gone.
#[tokio::test]
async fn history_is_compacted() {
    let etcd = Etcd::start(Version::Newer).await;
    for value in ["1", "2"] {
        etcd.ctl(&["put", "key", value]).await;
    }
    assert_eq!(etcd.ctl(&["get", "key", "--rev=2", "--print-value-only"]).await, "1\n");
    etcd.compact().await;
    // A second compaction to the same revision is refused, so the first one was done.
    let mut again = tokio::task::JoinSet::new();
    again.spawn(async move { etcd.compact().await });
    assert!(again.join_next().await.unwrap().unwrap_err().is_panic());
}

/// Three servers form a cluster; when the leader is killed, another one leads.
#[tokio::test]
async fn three_form_a_cluster() {
    let mut cluster = EtcdCluster::start(Version::Newer, EtcdOptions::default()).await;
    assert_eq!(cluster.endpoints().len(), 3);
    let first = cluster.leader().await;
    cluster.members[first].kill();
    let began = Instant::now();
    let second = loop {
        // The others believe in a dead leader for a moment.
        let leader = cluster.leader().await;
        if leader != first {
            break leader;
        }
    };
    println!("{second} leads {:?} after {first} was killed", began.elapsed());
}

/// A port is not handed out a second time while somebody has it, listening or not.
#[test]
fn ports_are_claimed() {
    let claimed: [Port; 100] = Port::claim();
    let mut numbers: Vec<_> = claimed.iter().map(Port::number).collect();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), 100);
    let [first, ..] = &claimed;
    assert!(std::net::UdpSocket::bind(first.address()).is_err());
}

/// What a test process starts goes down with it, however it ends: this test starts itself as another process,
/// lets that one start a server, and kills it.
#[tokio::test]
async fn servers_do_not_outlive_their_process() {
    const OTHER: &str = "SLIPRING_TEST_IS_THE_OTHER_PROCESS";
    if let Some(file) = std::env::var_os(OTHER) {
        let nats = Nats::start(Version::Debian).await;
        let told = format!("{}\n{}", nats.endpoint(), nats.directory().display());
        std::fs::write(file, told).unwrap();
        return std::future::pending().await;
    }
    let file = std::env::temp_dir().join(format!("slipring-other-{}", std::process::id()));
    let mut other = tokio::process::Command::new(std::env::current_exe().unwrap());
    other.args(["--exact", "servers_do_not_outlive_their_process"]).env(OTHER, &file);
    let mut other = other.stdout(std::process::Stdio::null()).kill_on_drop(true).spawn().unwrap();
    let told = loop {
        match std::fs::read_to_string(&file) {
            Ok(told) if told.contains('\n') => break told,
            _ => sleep(Duration::from_millis(5)).await,
        }
    };
    std::fs::remove_file(&file).unwrap();
    let (endpoint, directory) = told.split_once('\n').unwrap();
    assert!(listens(endpoint).await && Path::new(directory).exists());
    other.kill().await.unwrap();
    while listens(endpoint).await || Path::new(directory).exists() {
        sleep(Duration::from_millis(5)).await;
    }
}
