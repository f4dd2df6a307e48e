//! The servers and the worker processes.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;
use slipring::{Discovery, Plane};
use slipring_core::Range;
use slipring_etcd::EtcdDiscovery;
use slipring_servers::{Etcd, EtcdCluster, EtcdOptions, Nats, Version};
use tokio::process::Command;
use tokio::time::{Instant, sleep, timeout};

use super::callers::{Callers, Known};
use crate::backends::{decode, etcd_at, eventually};
use crate::worker::{Addresses, Worker};

/// Worker processes.
const WORKERS: usize = 3;
/// What is well has to stay well for so long: an etcd that was paused removes what has expired within this.
const STEADY: Duration = Duration::from_secs(1);

/// Servers, and workers on them.
pub(crate) struct Fleet {
    version: Version,
    /// One, or the members of a cluster.
    pub(crate) etcd: Vec<Etcd>,
    pub(crate) nats: Nats,
    workers: Vec<Worker>,
    pub(crate) addresses: Addresses,
    /// Reads what the store holds, on a connection of its own.
    store: EtcdDiscovery,
}

impl Fleet {
    /// Starts so many etcd servers, a nats-server and three workers that are called on a plane.
    pub(crate) async fn start(version: Version, members: usize, plane: Plane) -> Self {
        let etcd = match members {
            1 => vec![Etcd::start(version).await],
            // At its own pace of elections, as in production.
            _ => {
                let mut options = EtcdOptions::default();
                options.own_timing = true;
                EtcdCluster::start(version, options).await.members
            }
        };
        let nats = Nats::start(version).await;
        let endpoints = etcd.iter().map(|member| member.endpoint()).collect();
        let addresses = Addresses { etcd: endpoints, nats: nats.endpoint(), plane };
        let mut workers = Vec::new();
        for _ in 0..WORKERS {
            workers.push(Worker::start(&addresses).await);
        }
        let store = etcd_at(addresses.etcd.clone());
        Self { version, etcd, nats, workers, addresses, store }
    }

    /// The ids of the workers that live.
    pub(crate) fn ids(&self) -> BTreeSet<u64> {
        self.workers.iter().map(|worker| worker.id).collect()
    }

    /// Fails if a worker ended by itself.
    pub(crate) fn assert_running(&mut self) {
        self.workers.iter_mut().for_each(Worker::assert_running);
    }

    /// Waits until exactly the workers that live are in the store, and every caller sees what the store holds.
    /// Returns how long after `since` that was so, and what the store holds.
    pub(crate) async fn settle(
        &self,
        callers: &Callers,
        since: Instant,
        limit: Duration,
    ) -> (Duration, Known) {
        let mut steady = None;
        loop {
            let known = self.known().await;
            let ids = known.iter().map(|(id, ..)| *id).collect::<BTreeSet<_>>();
            let well = ids == self.ids() && callers.all_see(&known);
            let now = Instant::now();
            steady = if well { steady.or(Some(now)) } else { None };
            match steady {
                Some(from) if now >= from + STEADY => return (from - since, known),
                Some(_) => {}
                None => assert!(now < since + limit, "after {limit:?} the store has {known:?}: {self:?}"),
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// What the store holds; nothing while it cannot be reached.
    async fn known(&self) -> Known {
        let reading = timeout(STEADY, self.store.read(Range::All)).await;
        let entries = reading.map_or(Vec::new(), |read| read.map_or(Vec::new(), |all| all.entries));
        let records = entries.iter().filter_map(decode);
        records.map(|record| (record.instance.id(), record.epoch, record.lease)).collect()
    }

    /// SIGKILL for one worker; another is started.
    pub(crate) async fn replace_worker(&mut self, round: usize) {
        let at = round % WORKERS;
        let replacement = Worker::start(&self.addresses).await;
        std::mem::replace(&mut self.workers[at], replacement).kill().await;
    }

    /// SIGTERM for one worker; once it has ended another is started. Returns how many requests it served.
    pub(crate) async fn restart_worker(&mut self, at: usize) -> u64 {
        let served = self.workers.remove(at).terminate().await;
        self.workers.insert(at, Worker::start(&self.addresses).await);
        served
    }

    /// SIGTERM for all. Returns how many requests they served.
    pub(crate) async fn stop(self) -> u64 {
        let mut served = 0;
        for worker in self.workers {
            served += worker.terminate().await;
        }
        served
    }

    /// SIGKILL for the member that leads.
    pub(crate) async fn kill_leader(&mut self) {
        let leader = self.leader().await.expect("the cluster has a leader");
        self.etcd.iter_mut().find(|member| member.endpoint() == leader).unwrap().kill();
    }

    /// Starts again what is down, and waits until every member follows a leader.
    pub(crate) async fn repair(&mut self) {
        for member in self.etcd.iter_mut().filter(|member| !member.is_running()) {
            member.restart().await.unwrap();
        }
        eventually("the cluster has a leader", async || self.leader().await.is_some()).await;
    }

    /// Where the member listens that leads, if all members answer and agree.
    async fn leader(&self) -> Option<String> {
        let mut etcdctl = Command::new(self.version.program("etcdctl"));
        let endpoints = self.addresses.etcd.join(",");
        etcdctl.env("ETCDCTL_API", "3").args(["--endpoints", &endpoints, "endpoint", "status", "-w", "json"]);
        let output = etcdctl.output().await.unwrap();
        let status: Vec<Value> = serde_json::from_slice(&output.stdout).ok()?;
        let leads = |member: &&Value| {
            member["Status"]["leader"].as_u64() == member["Status"]["header"]["member_id"].as_u64()
        };
        let all = status.len() == self.etcd.len();
        let agreed = status.iter().all(|one| one["Status"]["leader"] == status[0]["Status"]["leader"]);
        let leader = status.iter().find(leads).filter(|_| all && agreed)?;
        leader["Endpoint"].as_str().map(str::to_owned)
    }
}

impl std::fmt::Debug for Fleet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fleet").field("workers", &self.workers).finish_non_exhaustive()
    }
}
