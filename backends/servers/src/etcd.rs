use std::ops::{Deref, DerefMut};

use crate::free_ports;
use crate::process::{Directory, Process, Version};

/// How often other ports are tried when somebody else was faster.
const STARTS_MAX: usize = 5;

/// How to start an etcd.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct EtcdOptions {
    /// Heartbeats and elections at etcd's own pace (a TTL of 2 s at least), not at a test's.
    pub own_timing: bool,
    /// Further arguments.
    pub arguments: Vec<String>,
    /// Clients speak TLS: `https` in the URL. The certificates go into `arguments`.
    pub tls: bool,
}

/// One etcd server. Dereferences to its [`Process`].
#[derive(Debug)]
pub struct Etcd {
    process: Process,
    port: u16,
    directory: Directory,
}

impl Etcd {
    /// An etcd with fast elections, so that a TTL of 1 s is granted and a restart is quick.
    ///
    /// # Panics
    /// If it does not start, or is not installed.
    pub async fn start(version: Version) -> Self {
        Self::start_with(version, EtcdOptions::default()).await
    }

    /// An etcd with options.
    ///
    /// # Panics
    /// If it does not start, or is not installed.
    pub async fn start_with(version: Version, options: EtcdOptions) -> Self {
        let mut problem = String::new();
        for _ in 0..STARTS_MAX {
            let [port, peer] = free_ports();
            let members = format!("default=http://127.0.0.1:{peer}");
            match start(version, &options, "default", port, peer, &members).await {
                Ok(etcd) => return etcd,
                Err(error) => problem = error,
            }
        }
        panic!("{problem}");
    }

    /// Where it listens, as `127.0.0.1:port`.
    pub fn endpoint(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Forgets everything: its data are removed. Not while it runs.
    pub fn wipe(&self) {
        assert!(!self.process.is_running(), "an etcd that runs would write its data again");
        let _ = std::fs::remove_dir_all(self.directory.path().join("data"));
    }
}

impl Deref for Etcd {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.process
    }
}

impl DerefMut for Etcd {
    fn deref_mut(&mut self) -> &mut Process {
        &mut self.process
    }
}

/// Three etcd servers that form a cluster.
#[derive(Debug)]
pub struct EtcdCluster {
    /// The members.
    pub members: Vec<Etcd>,
}

impl EtcdCluster {
    /// A cluster of three at etcd's own pace of elections, or at a test's.
    ///
    /// # Panics
    /// If it does not start, or is not installed.
    pub async fn start(version: Version, options: EtcdOptions) -> Self {
        let mut problem = String::new();
        for _ in 0..STARTS_MAX {
            let [a, b, c, x, y, z] = free_ports();
            let ports = [("one", a, x), ("two", b, y), ("three", c, z)];
            let peers = ports.map(|(name, _, peer)| format!("{name}=http://127.0.0.1:{peer}")).join(",");
            // Each waits for the others before it serves.
            let [one, two, three] = ports.map(|(name, port, peer)| {
                let (options, peers) = (options.clone(), peers.clone());
                async move { start(version, &options, name, port, peer, &peers).await }
            });
            match tokio::join!(one, two, three) {
                (Ok(one), Ok(two), Ok(three)) => return Self { members: vec![one, two, three] },
                (one, two, three) => {
                    problem = [one, two, three].into_iter().filter_map(Result::err).collect();
                }
            }
        }
        panic!("{problem}");
    }

    /// Where the members listen.
    pub fn endpoints(&self) -> Vec<String> {
        self.members.iter().map(Etcd::endpoint).collect()
    }
}

async fn start(
    version: Version,
    options: &EtcdOptions,
    name: &str,
    port: u16,
    peer: u16,
    members: &str,
) -> Result<Etcd, String> {
    let directory = Directory::new("etcd", port);
    let scheme = if options.tls { "https" } else { "http" };
    let client = format!("{scheme}://127.0.0.1:{port}");
    let peer = format!("http://127.0.0.1:{peer}");
    let data = directory.path().join("data").display().to_string();
    let mut arguments = Vec::new();
    for (flag, value) in [
        ("--name", name),
        ("--data-dir", &data),
        ("--listen-client-urls", &client),
        ("--advertise-client-urls", &client),
        ("--listen-peer-urls", &peer),
        ("--initial-advertise-peer-urls", &peer),
        ("--initial-cluster", members),
        ("--log-level", "warn"),
    ] {
        arguments.extend([flag.to_owned(), value.to_owned()]);
    }
    if !options.own_timing {
        arguments.extend(["--heartbeat-interval=20", "--election-timeout=200"].map(str::to_owned));
    }
    arguments.extend(options.arguments.iter().cloned());
    let log = directory.path().join("log");
    let process = Process::start(version.program("etcd"), arguments, log, port).await?;
    Ok(Etcd { process, port, directory })
}
