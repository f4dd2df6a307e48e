use std::ops::{Deref, DerefMut};
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::{Instant, sleep, timeout};

use crate::Port;
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
    version: Version,
    tls: bool,
    _peer: Port,
}

impl Etcd {
    /// How long a server may take until it answers.
    const READY_MAX: Duration = Duration::from_secs(30);

    /// An etcd with fast elections, so that a TTL of 1 s is granted and a restart is quick. It answers when
    /// this resolves.
    ///
    /// # Panics
    /// If it does not start, or is not installed.
    pub async fn start(version: Version) -> Self {
        Self::start_with(version, EtcdOptions::default()).await
    }

    /// An etcd with options. It answers when this resolves; with TLS it listens.
    ///
    /// # Panics
    /// If it does not start, or is not installed.
    pub async fn start_with(version: Version, options: EtcdOptions) -> Self {
        let mut problem = String::new();
        for _ in 0..STARTS_MAX {
            let [port, peer] = Port::claim();
            let members = format!("default=http://{}", peer.address());
            match start(version, &options, "default", port, peer, &members).await {
                Ok(etcd) => {
                    etcd.ready().await;
                    return etcd;
                }
                Err(error) => problem = error,
            }
        }
        panic!("{problem}");
    }

    /// Waits until it answers: after a [restart](Process::restart) it listens at once, but calls wait for its
    /// election. With TLS it is not waited for.
    ///
    /// # Panics
    /// If it does not in half a minute.
    pub async fn ready(&self) {
        let began = Instant::now();
        while !self.tls && !timeout(Duration::from_secs(1), self.is_healthy()).await.unwrap_or(false) {
            assert!(began.elapsed() < Self::READY_MAX, "etcd does not answer:\n{}", self.log_end());
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// What its health page says, which includes a linearizable read.
    async fn is_healthy(&self) -> bool {
        let Ok(mut connection) = TcpStream::connect(self.endpoint()).await else { return false };
        let mut page = String::new();
        let asked = connection.write_all(b"GET /health HTTP/1.0\r\n\r\n").await;
        asked.is_ok()
            && connection.read_to_string(&mut page).await.is_ok()
            && page.contains(r#""health":"true""#)
    }

    /// Its URL, as `http://127.0.0.1:port`.
    pub fn url(&self) -> String {
        format!("{}://{}", if self.tls { "https" } else { "http" }, self.endpoint())
    }

    /// Runs `etcdctl` of the same version on it, and returns what it prints.
    ///
    /// # Panics
    /// If it fails, with what it says, or is not installed.
    pub async fn ctl(&self, arguments: &[&str]) -> String {
        ctl(self.version, &[self.url()], arguments).await
    }

    /// Its current revision.
    pub async fn revision(&self) -> u64 {
        let status = statuses(self.ctl(&["endpoint", "status", "-w", "json"]).await);
        number(&status[0]["Status"]["header"]["revision"])
    }

    /// Forgets the history before the current revision.
    pub async fn compact(&self) {
        let revision = self.revision().await.to_string();
        self.ctl(&["compact", &revision]).await;
    }

    /// Forgets everything: its data are removed. Not while it runs.
    pub fn wipe(&self) {
        assert!(!self.process.is_running(), "an etcd that runs would write its data again");
        let _ = std::fs::remove_dir_all(self.process.directory().join("data"));
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
    /// A cluster of three at etcd's own pace of elections, or at a test's. It answers when this resolves.
    ///
    /// # Panics
    /// If it does not start, or is not installed.
    pub async fn start(version: Version, options: EtcdOptions) -> Self {
        let mut problem = String::new();
        for _ in 0..STARTS_MAX {
            let members = ["one", "two", "three"].map(|name| (name, Port::claim::<2>()));
            let peers = members.iter().map(|(name, [_, peer])| format!("{name}=http://{}", peer.address()));
            let peers = peers.collect::<Vec<_>>().join(",");
            let [one, two, three] = members.map(|(name, [port, peer])| {
                let (options, peers) = (&options, &peers);
                async move { start(version, options, name, port, peer, peers).await }
            });
            // Each waits for the others before it serves.
            match tokio::join!(one, two, three) {
                (Ok(one), Ok(two), Ok(three)) => {
                    let cluster = Self { members: vec![one, two, three] };
                    for member in &cluster.members {
                        member.ready().await;
                    }
                    return cluster;
                }
                (one, two, three) => {
                    problem = [one, two, three].into_iter().filter_map(Result::err).collect();
                }
            }
        }
        panic!("{problem}");
    }

    /// Where the members listen.
    pub fn endpoints(&self) -> Vec<String> {
        self.members.iter().map(|member| member.endpoint()).collect()
    }

    /// The index of the member that leads, as the running members tell.
    ///
    /// # Panics
    /// If none of them runs, or nobody leads in half a minute.
    pub async fn leader(&self) -> usize {
        let running: Vec<_> = (0..self.members.len()).filter(|i| self.members[*i].is_running()).collect();
        let asked = &self.members[*running.first().expect("a member that runs")];
        let urls: Vec<_> = running.iter().map(|member| self.members[*member].url()).collect();
        let began = Instant::now();
        loop {
            let status = statuses(ctl(asked.version, &urls, &["endpoint", "status", "-w", "json"]).await);
            let leads = |member: &Value| {
                let status = &member["Status"];
                number(&status["leader"]) == number(&status["header"]["member_id"])
            };
            if let Some(leader) = status.iter().find(|member| leads(member)) {
                let url = leader["Endpoint"].as_str().expect("etcdctl names the endpoint");
                return running[urls.iter().position(|asked| asked == url).expect("one that was asked")];
            }
            assert!(began.elapsed() < Etcd::READY_MAX, "nobody leads: {status:?}");
            sleep(Duration::from_millis(20)).await;
        }
    }
}

async fn ctl(version: Version, urls: &[String], arguments: &[&str]) -> String {
    let mut command = Command::new(version.program("etcdctl"));
    command.env("ETCDCTL_API", "3").arg(format!("--endpoints={}", urls.join(","))).args(arguments);
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await.expect("etcdctl runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "etcdctl {arguments:?}: {errors}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn statuses(json: String) -> Vec<Value> {
    serde_json::from_str(&json).expect("etcdctl prints a list as JSON")
}

/// A member without a leader leaves the field out, which is 0.
fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_default()
}

async fn start(
    version: Version,
    options: &EtcdOptions,
    name: &str,
    port: Port,
    peer: Port,
    members: &str,
) -> Result<Etcd, String> {
    let directory = Directory::new("etcd", &port);
    let scheme = if options.tls { "https" } else { "http" };
    let client_url = format!("{scheme}://{}", port.address());
    let peer_url = format!("http://{}", peer.address());
    let data = directory.path().join("data").display().to_string();
    let mut arguments = Vec::new();
    for (flag, value) in [
        ("--name", name),
        ("--data-dir", &data),
        ("--listen-client-urls", &client_url),
        ("--advertise-client-urls", &client_url),
        ("--listen-peer-urls", &peer_url),
        ("--initial-advertise-peer-urls", &peer_url),
        ("--initial-cluster", members),
        ("--log-level", "warn"),
    ] {
        arguments.extend([flag.to_owned(), value.to_owned()]);
    }
    if !options.own_timing {
        arguments.extend(["--heartbeat-interval=20", "--election-timeout=200"].map(str::to_owned));
    }
    arguments.extend(options.arguments.iter().cloned());
    let process = Process::start(version.program("etcd"), arguments, directory, port).await?;
    Ok(Etcd { process, version, tls: options.tls, _peer: peer })
}
