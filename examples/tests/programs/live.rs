use slipring_servers::{Etcd, Nats, Version};

use crate::program::Program;

/// An etcd and a nats-server of one version.
pub(crate) struct Servers {
    pub(crate) version: Version,
    pub(crate) etcd: Etcd,
    pub(crate) nats: Nats,
}

impl Servers {
    pub(crate) async fn start(version: Version) -> Self {
        Self { version, etcd: Etcd::start(version).await, nats: Nats::start(version).await }
    }

    /// The variables under which programs run on these servers.
    pub(crate) fn variables(&self) -> [(&'static str, String); 2] {
        [
            ("SLIPRING_DISCOVERY", format!("etcd://{}?ttl=2s", self.etcd.endpoint())),
            ("SLIPRING_MESSAGING", format!("nats://{}", self.nats.endpoint())),
        ]
    }

    /// A worker that is registered.
    pub(crate) async fn worker(&self, arguments: &str) -> Program {
        let mut worker = Program::start("worker", arguments, &self.variables());
        assert_eq!(worker.line().await, "registered");
        worker
    }
}

/// Workers and a caller as processes on real servers: every call is answered, also while one worker after the
/// other is replaced, and the workers' counts add up to the caller's.
#[tokio::test]
async fn a_caller_reaches_workers_while_they_are_replaced() {
    for version in Version::ALL {
        let servers = Servers::start(version).await;
        const WORKER: &str = "--endpoint dynamo.processor.generate --delay-ms 5";
        let mut workers = vec![servers.worker(WORKER).await, servers.worker(WORKER).await];
        let load = "--endpoint dynamo.processor.generate --requests 1000 --concurrency 8 --rate 400";
        let caller = Program::start("caller", load, &servers.variables());
        let replacing = async {
            let mut served = 0;
            for _ in 0..2 {
                workers.push(servers.worker(WORKER).await);
                served += stopped(workers.remove(0)).await;
            }
            served
        };
        let (called, before) = tokio::join!(caller.end(), replacing);
        let report = called.report();
        let mut after = 0;
        for worker in workers {
            after += stopped(worker).await;
        }
        assert_eq!((&report["ok"], &report["failed"]), (&1000.into(), &serde_json::json!({})), "{report}");
        assert_eq!((before + after, &report["hung"]), (1000, &0.into()), "{version:?}");
        assert!(before > 0 && after > 0, "they were not replaced under load");
    }
}

/// A worker whose lease is revoked says that it is lost, registers again, and says so.
#[tokio::test]
async fn a_worker_registers_again() {
    let servers = Servers::start(Version::Debian).await;
    let mut worker = servers.worker("--endpoint dynamo.processor.generate").await;
    let etcdctl = |arguments: &[&str]| {
        let mut command = std::process::Command::new(servers.version.program("etcdctl"));
        command.env("ETCDCTL_API", "3").env("ETCDCTL_ENDPOINTS", servers.etcd.endpoint());
        String::from_utf8(command.args(arguments).output().unwrap().stdout).unwrap()
    };
    for epoch in [2, 3] {
        let leases = etcdctl(&["lease", "list"]);
        let [lease] = leases.lines().skip(1).collect::<Vec<_>>()[..] else { panic!("{leases}") };
        etcdctl(&["lease", "revoke", lease]);
        assert_eq!(worker.line().await, "lost");
        assert_eq!(worker.line().await, format!("re-registered epoch={epoch}"));
    }
    assert_eq!(stopped(worker).await, 0);
}

/// Stops a worker by SIGTERM and returns how many requests it says that it served, none of them failed.
pub(crate) async fn stopped(worker: Program) -> u64 {
    worker.terminate();
    let ended = worker.end().await;
    let [stopping, stopped] = &ended.output[..] else { panic!("{ended:?}") };
    assert_eq!((stopping.as_str(), ended.code), ("stopping", Some(0)), "{ended:?}");
    let requests = stopped.strip_prefix("stopped requests=").and_then(|rest| rest.strip_suffix(" failed=0"));
    requests.and_then(|requests| requests.parse().ok()).unwrap_or_else(|| panic!("{stopped}"))
}
