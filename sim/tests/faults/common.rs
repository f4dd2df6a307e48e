//! What the tests of faults share.

pub(crate) use std::time::Duration;

pub(crate) use futures_util::StreamExt;
pub(crate) use futures_util::future::{join, join3};
pub(crate) use slipring_core::{
    Change, Discovery, DiscoveryExt, Effect, Environment, Error, Key, Message, Messaging, Pattern, Range,
    Result, Start, Subject, Subscriber, Subscription, Txn, Watch,
};
pub(crate) use slipring_memory::Profile;
pub(crate) use slipring_sim::{Direction, Fault, Latency, Node, Setup, World, simulate};
pub(crate) use tokio::time::{Instant, sleep, timeout};

pub(crate) const TTL: Duration = Duration::from_secs(6);
pub(crate) const SECOND: Duration = Duration::from_secs(1);

pub(crate) fn key(text: &str) -> Key {
    Key::new(text).unwrap()
}

pub(crate) fn named() -> String {
    "a".to_owned()
}

pub(crate) async fn watch(node: &Node) -> Watch {
    node.discovery().watch(Range::All, Start::Snapshot).await.unwrap()
}

/// The next changes of a watch: keys, with a `-` before those deleted.
pub(crate) async fn changes(watch: &mut Watch) -> Result<Vec<String>> {
    loop {
        let batch = watch.events.next().await.unwrap()?;
        let shown = |change: &Change| match change {
            Change::Put(entry) => entry.key.to_string(),
            Change::Delete(key) => format!("-{key}"),
        };
        if !batch.changes.is_empty() {
            return Ok(batch.changes.iter().map(shown).collect());
        }
    }
}

/// A lease of a node, with a key of the node's name.
pub(crate) async fn register(node: &Node) -> slipring_core::Lease {
    let lease = node.discovery().grant(TTL).await.unwrap();
    node.discovery().put(key(node.name()), "".into(), Some(lease.id)).await.unwrap();
    lease
}

pub(crate) async fn subscribe(node: &Node, subject: &str) -> Subscriber {
    let subscription = Subscription::new(Pattern::new(subject).unwrap());
    node.messaging().subscribe(subscription).await.unwrap()
}

pub(crate) fn message(text: &str) -> Message {
    Message::new(Subject::new("s").unwrap(), text.to_owned())
}

#[track_caller]
pub(crate) fn assert_unavailable<T: std::fmt::Debug>(result: Result<T>, effect: Effect) {
    let error = result.unwrap_err();
    assert_eq!((error.code(), error.effect()), ("unavailable", effect), "{error}");
}

/// The names of the keys in the store.
pub(crate) fn keys(world: &World) -> Vec<String> {
    world.memory().entries().entries.into_iter().map(|entry| entry.key.to_string()).collect()
}
