//! A small service: its members keep their keys registered and watch each other.

use std::time::Duration;

use futures_util::StreamExt;
use slipring_core::{Discovery, DiscoveryExt, Environment, Key, Lease, Prefix, Range, Result, Start};
use slipring_memory::Profile;
use slipring_sim::{Latency, Node, Report, Schedule, Setup, World, turmoil};
use tokio::time::{sleep, timeout};

pub(crate) const TTL: Duration = Duration::from_secs(6);
pub(crate) const NAMES: [&str; 3] = ["a", "b", "c"];

/// Keeps a key registered, and watches the others'. In each life it begins anew.
pub(crate) async fn member(node: Node) {
    let watching = node.clone();
    node.environment().spawn("watching", Box::pin(watch_others(watching))).detach();
    loop {
        let _lost = keep_registered(&node).await;
        sleep(TTL / 6).await;
    }
}

/// Until the lease is lost, or something else goes wrong.
async fn keep_registered(node: &Node) -> Result<()> {
    let store = node.discovery();
    let Ok(lease) = timeout(TTL / 6, store.grant(TTL)).await else { return Ok(()) };
    let Lease { id, ttl } = lease?;
    let key = key(node.name());
    let Ok(put) = timeout(TTL / 6, store.put(key, "".into(), Some(id))).await else { return Ok(()) };
    put?;
    loop {
        let jitter = Duration::from_millis(node.environment().random("jitter") % 200);
        sleep(ttl / 3 - jitter).await;
        if let Ok(beat) = timeout(ttl / 6, store.keep_alive(id)).await {
            match beat {
                // The connection broke; the lease may live on.
                Err(error) if error.code() == "unavailable" => {}
                beat => drop(beat?),
            }
        }
    }
}

pub(crate) async fn watch_others(node: Node) {
    loop {
        let opened = timeout(TTL, node.discovery().watch(members(), Start::Snapshot)).await;
        if let Ok(Ok(mut watch)) = opened {
            while let Ok(Some(Ok(_))) = timeout(3 * TTL, watch.events.next()).await {}
        }
        sleep(TTL / 6).await;
    }
}

pub(crate) fn key(name: &str) -> Key {
    Key::new(format!("members/{}", name.replace('#', ":"))).unwrap()
}

pub(crate) fn members() -> Range {
    Range::Prefix(Prefix::new("members/").unwrap())
}

pub(crate) fn setup() -> Setup {
    let latency = Latency::between(Duration::from_millis(1), Duration::from_millis(50));
    Setup::from(Profile::etcd()).with_latency(latency).with_shuffling(true)
}

/// The service, while a schedule is played, once.
pub(crate) fn play(seed: u64, setup: Setup, schedule: Schedule, length: Duration) -> Report {
    turmoil::simulate(seed, setup.with_self_check(false), move |world: World| {
        let schedule = schedule.clone();
        async move {
            for name in NAMES {
                world.spawn_node(name, member);
            }
            world.play(schedule);
            sleep(length).await;
        }
    })
}

/// How many lines of a history are of this kind.
pub(crate) fn count(report: &Report, kind: &str) -> usize {
    report.history.moments().iter().filter(|moment| moment.event.kind() == kind).count()
}
