//! The store and the bus by themselves, asked by clients that know nothing of components.

use std::time::Duration;

use futures_util::StreamExt;
use slipring_core::{
    Base, DiscoveryExt, Environment, EnvironmentExt, Error, Key, LeaseId, Message, MessagingExt, Pattern,
    Prefix, QueueGroup, Range, Start, Subject, Subscription, Txn,
};
use slipring_sim::{Fault, Node, Scenario, Shape, World};
use tokio::time::sleep;

use crate::fleet::setup;

/// The time to live of the leases.
const TTL: Duration = Duration::from_secs(3);
const LENGTH: Duration = Duration::from_secs(30);
const NODES: [&str; 3] = ["left", "middle", "right"];

/// How long it may take after the last fault until the last lease is gone that nobody keeps.
const REST: Duration = Duration::from_secs(10);

/// How long a request may take.
const REQUEST_MAX: Duration = Duration::from_secs(1);
/// How many messages may wait for a slow reader.
const WAITING_MAX: usize = 4;

pub(crate) fn all() -> Vec<Scenario> {
    let writes =
        ["grant", "keep", "forget", "late", "put", "bare", "move", "pair", "create", "swap", "delete"];
    let messages = ["publish", "burst", "job", "ask", "ask nobody", "subscribe", "flush"];
    vec![
        Scenario::new(
            "store_clients",
            "Keys, transactions, leases and watches of the store are what their contract says, under every fault",
            Shape::new(NODES, TTL, LENGTH).with_operations(writes, 60),
            async |world: World| tell(&world, write).await,
        )
        .with_setup(setup()),
        Scenario::new(
            "bus_clients",
            "Messages reach whom they concern, once and in order, and what is lost is counted",
            Shape::new(NODES, TTL, LENGTH)
                .with_operations(messages, 60)
                .with_faults(|fault| !matches!(fault, Fault::LosePublish { .. })),
            async |world: World| tell(&world, talk).await,
        )
        .with_setup(setup().with_messages(true)),
    ]
}

async fn tell<T>(world: &World, program: impl Fn(Node) -> T + Clone + Send + Sync + 'static)
where
    T: Future<Output = ()> + Send + 'static,
{
    for name in NODES {
        world.spawn_node(name, program.clone());
    }
    world.calm().await;
    sleep(REST).await;
}

/// Does with the store what it is told; whether that works is up to the faults.
async fn write(node: Node) {
    node.environment().start("following", follow(node.clone())).detach();
    let (mut leases, mut kept): (Vec<LeaseId>, Option<LeaseId>) = (Vec::new(), None);
    loop {
        let asked = node.operation().await;
        let store = node.discovery();
        let draw = |below| node.environment().random("key") % below;
        let (own, shared) = (key(&format!("{}{}", node.name(), draw(3))), key(&format!("shared{}", draw(2))));
        let value = format!("{}", draw(1_000));
        match &*asked {
            "grant" => leases.extend(store.grant(TTL).await.map(|lease| lease.id)),
            "keep" => {
                kept = leases.last().copied();
                if let Some(lease) = kept {
                    node.environment().start("keeping", keep(node.clone(), lease)).detach();
                }
            }
            "forget" => {
                if let Some(lease) = kept.take() {
                    let _ = store.revoke(lease).await;
                }
            }
            // Leases that nobody keeps are gone by now, or about to be.
            "late" => {
                if let Some(lease) = leases.first() {
                    let _ = store.keep_alive(*lease).await;
                    let _ = store.put(own, value.into(), Some(*lease)).await;
                }
            }
            "put" => drop(store.put(own, value.into(), leases.last().copied()).await),
            "bare" => drop(store.put(own, value.into(), None).await),
            "move" => {
                if let Ok(lease) = store.grant(TTL).await {
                    let _ = store.put(own, value.into(), Some(lease.id)).await;
                    leases.push(lease.id);
                }
            }
            "pair" => {
                let lease = leases.last().copied();
                let txn = Txn::new().put(own, value.clone(), lease).put(shared, value, lease);
                let _ = store.commit(txn).await;
            }
            "create" => drop(store.create(shared, value.into(), leases.last().copied()).await),
            "swap" => {
                if let Ok(Some(entry)) = store.entry(&shared).await {
                    let txn = Txn::new().unchanged(shared.clone(), entry.modified);
                    let _ = store.commit(txn.put(shared, value, None).delete(own)).await;
                }
            }
            _ => drop(store.delete(own).await),
        }
    }
}

fn key(name: &str) -> Key {
    Key::new(format!("keys/{name}")).expect("a legal key")
}

/// Sends heartbeats as long as the lease lives.
async fn keep(node: Node, lease: LeaseId) {
    loop {
        match node.discovery().keep_alive(lease).await {
            Err(Error::LeaseLost { .. }) => return,
            _ => sleep(TTL / 3).await,
        }
    }
}

/// Watches all keys, and goes on where it was whenever the watch ends.
async fn follow(node: Node) {
    let range = Range::Prefix(Prefix::new("keys/").expect("a legal prefix"));
    let mut start = Start::Snapshot;
    loop {
        match node.discovery().watch(range.clone(), start).await {
            Ok(mut watch) => {
                let mut seen = match watch.base {
                    Base::Snapshot(snapshot) => snapshot.revision,
                    Base::Resumed(revision) => revision,
                };
                while let Some(Ok(batch)) = watch.events.next().await {
                    seen = batch.revision;
                }
                start = Start::After(seen);
            }
            Err(Error::Compacted { .. }) => start = Start::Snapshot,
            Err(_) => {}
        }
        sleep(TTL / 6).await;
    }
}

/// Does with the bus what it is told, and serves requests together with the others.
async fn talk(node: Node) {
    for subject in ["question", "job"] {
        node.environment().start("serving", serve(node.clone(), subject)).detach();
    }
    for pattern in ["news.today", "news.*", "news.>"] {
        node.environment().start("reading", read(node.clone(), pattern, 1_000)).detach();
    }
    node.environment().start("reading slowly", read(node.clone(), "news.*", WAITING_MAX)).detach();
    loop {
        let asked = node.operation().await;
        let bus = node.messaging();
        let text = format!("{} {}", node.name(), node.environment().random("text") % 1_000_000);
        match &*asked {
            "publish" => drop(bus.publish(Message::new(subject("news.today"), text)).await),
            "burst" => {
                for number in 0..3 * WAITING_MAX {
                    let text = format!("{text} {number}");
                    let _ = bus.publish(Message::new(subject("news.today"), text)).await;
                }
            }
            "job" => drop(bus.publish(Message::new(subject("job"), text)).await),
            "ask" => drop(bus.request(Message::new(subject("question"), text), REQUEST_MAX).await),
            "ask nobody" => drop(bus.request(Message::new(subject("nobody"), text), REQUEST_MAX).await),
            "subscribe" => node.environment().start("reading", read(node.clone(), "news.>", 1_000)).detach(),
            _ => drop(bus.flush().await),
        }
    }
}

fn subject(name: &str) -> Subject {
    Subject::new(name).expect("a legal subject")
}

/// Reads at some pace, for some time, and then again.
async fn read(node: Node, pattern: &'static str, messages_max: usize) {
    loop {
        let wanted = Pattern::new(pattern).expect("a legal pattern");
        let wanted = Subscription::new(wanted).with_messages_max(messages_max);
        if let Ok(mut messages) = node.messaging().subscribe(wanted).await {
            while let Some(Ok(_) | Err(Error::Lagged { .. })) = messages.next().await {
                let slow = if messages_max == WAITING_MAX { 300 } else { 10 };
                sleep(Duration::from_millis(node.environment().random("reading") % slow)).await;
            }
        }
        sleep(TTL / 6).await;
    }
}

/// Takes a share of the messages, and answers those that want an answer.
async fn serve(node: Node, subject: &'static str) {
    loop {
        let wanted = Pattern::new(subject).expect("a legal pattern");
        let wanted = Subscription::new(wanted).with_queue(QueueGroup::new("q").expect("a legal name"));
        if let Ok(mut questions) = node.messaging().subscribe(wanted).await {
            while let Some(Ok(question)) = questions.next().await {
                if question.reply.is_none() {
                    continue;
                }
                let _ = node.messaging().respond(&question, question.payload.clone()).await;
            }
        }
        sleep(TTL / 6).await;
    }
}
