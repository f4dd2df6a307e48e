use std::time::Duration;

use futures_util::StreamExt;
use slipring_core::{
    Discovery, DiscoveryExt, Environment, EnvironmentExt, Key, Message, Messaging, Pattern, Prefix, Range,
    Result, Start, Subject, Subscription,
};
use slipring_memory::Profile;
use slipring_sim::check::{Violation, check};
use slipring_sim::{Fault, Latency, Node, Report, Schedule, Setup, Shape, World, simulate};
use tokio::time::{sleep, timeout};

const SECOND: Duration = Duration::from_secs(1);
const TTL: Duration = Duration::from_secs(6);

/// A run, and what is wrong with it.
pub(crate) struct Story {
    pub(crate) report: Report,
    pub(crate) violations: Vec<Violation>,
}

/// Members that register, watch each other and talk.
async fn member(node: Node) {
    let (watching, listening) = (node.clone(), node.clone());
    node.environment().start("watching", watch_others(watching)).detach();
    node.environment().start("listening", async move { drop(listen(listening).await) }).detach();
    loop {
        drop(keep_registered(&node).await);
        sleep(SECOND).await;
    }
}

async fn keep_registered(node: &Node) -> Result<()> {
    let lease = node.discovery().grant(TTL).await?;
    let key = Key::new(format!("members/{}", node.name()))?;
    node.discovery().put(key, "</script><!-- \n".into(), Some(lease.id)).await?;
    let subject = Subject::new("hello")?;
    loop {
        let jitter = Duration::from_millis(node.environment().random("jitter") % 400);
        sleep(TTL / 3 - jitter).await;
        if let Ok(beat) = timeout(TTL / 6, node.discovery().keep_alive(lease.id)).await {
            beat?;
        }
        node.messaging().publish(Message::new(subject.clone(), node.name().to_owned())).await?;
    }
}

async fn listen(node: Node) -> Result<()> {
    let subscription = Subscription::new(Pattern::new("hello")?);
    let mut subscriber = node.messaging().subscribe(subscription).await?;
    while subscriber.next().await.is_some() {}
    Ok(())
}

async fn watch_others(node: Node) {
    let range = Range::Prefix(Prefix::new("members/").unwrap());
    loop {
        if let Ok(mut watch) = node.discovery().watch(range.clone(), Start::Snapshot).await {
            while let Some(Ok(_)) = watch.events.next().await {}
        }
        sleep(SECOND).await;
    }
}

fn play(nodes: usize, length: Duration, schedule: Schedule) -> Report {
    let latency = Latency::between(Duration::from_millis(1), Duration::from_millis(40));
    let setup = Setup::from(Profile::etcd()).with_latency(latency).with_messages(true);
    simulate(7, setup, async |world: World| {
        for number in 1..=nodes {
            world.spawn_node(&format!("worker-{number}"), member);
        }
        world.play(schedule.clone());
        sleep(length).await;
    })
}

/// More than 10,000 events of eight nodes under many faults. Nobody told those who judge it that the store looks
/// for ended leases at intervals, so that they find each lease too late that expires.
pub(crate) fn large() -> Story {
    let length = 400 * SECOND;
    let names = (1..=8).map(|number| format!("worker-{number}"));
    let schedule = Schedule::generate(7, &Shape::new(names, TTL, length).with_faults_max(60));
    let report = play(8, length, schedule);
    let mut strict = Profile::etcd();
    strict.expiry_granularity = Duration::ZERO;
    let violations = check(&report.history, &strict);
    Story { report, violations }
}

/// A partition over the end of a lease.
pub(crate) fn small() -> Story {
    let lost = slipring_sim::Direction::Both;
    let cut = Fault::Partition { node: "worker-1".to_owned(), lost, lasts: 10 * SECOND };
    let report = play(3, 30 * SECOND, Schedule::new().with(10 * SECOND, cut));
    Story { report, violations: Vec::new() }
}
