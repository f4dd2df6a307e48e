//! A store behind a link: what a cut, a silence and a lost reply do to its users.
#![allow(clippy::unwrap_used, reason = "a test may")]

use std::time::Duration;

use futures_util::future::{join, join3, select};
use futures_util::{FutureExt, StreamExt};
use slipring_core::{
    Base, Batch, Change, Commit, Discovery, DiscoveryExt, Effect, Error, Key, Range, Result, Start, Txn,
    Watch,
};
use slipring_sim::World;
use tokio::time::{Instant, sleep, timeout};

const LONG: Duration = Duration::from_secs(60);
const TTL: Duration = Duration::from_secs(3);

fn key(name: &str) -> Key {
    Key::new(name).unwrap()
}

fn keys(world: &World) -> Vec<String> {
    world.memory().entries().entries.iter().map(|entry| entry.key.to_string()).collect()
}

async fn watch(discovery: &dyn Discovery) -> Watch {
    discovery.watch(Range::All, Start::Snapshot).await.unwrap()
}

/// The keys that the next batch with changes puts or (`-`) deletes.
async fn next(watch: &mut Watch) -> Result<Vec<String>> {
    loop {
        let Batch { changes, .. } = watch.events.next().await.expect("an error ends it first")?;
        if !changes.is_empty() {
            let shown = |change: &Change| match change {
                Change::Put(entry) => entry.key.to_string(),
                Change::Delete(key) => format!("-{key}"),
            };
            return Ok(changes.iter().map(shown).collect());
        }
    }
}

#[track_caller]
fn assert_unavailable<T: std::fmt::Debug>(result: Result<T>, effect: Effect) {
    let error = result.unwrap_err();
    assert_eq!((error.code(), error.effect()), ("unavailable", effect));
}

/// F5: over a cut link every call fails at once, and none of them is executed, now or later.
#[tokio::test(start_paused = true)]
async fn f5_a_cut_fails_calls_at_once() {
    let world = World::new(1);
    let node = world.node("a");
    let (store, began) = (node.discovery(), Instant::now());
    let lease = store.grant(LONG).await.unwrap();

    node.link().cut();
    assert_unavailable(store.capabilities().await, Effect::None);
    assert_unavailable(store.read(Range::All).await, Effect::None);
    assert_unavailable(store.put(key("k"), "v".into(), None).await, Effect::None);
    assert_unavailable(store.watch(Range::All, Start::Snapshot).await, Effect::None);
    assert_unavailable(store.grant(TTL).await, Effect::None);
    assert_unavailable(store.keep_alive(lease.id).await, Effect::None);
    assert_unavailable(store.revoke(lease.id).await, Effect::None);
    node.link().open();

    assert_eq!(began.elapsed(), Duration::ZERO);
    assert_eq!(world.memory().leases(), [lease.id]);
    assert!(keys(&world).is_empty());
    store.put(key("k"), "v".into(), Some(lease.id)).await.unwrap();
    assert_eq!(keys(&world), ["k"]);
}

/// A cut ends a watch with an error, even if the link was opened again before its reader looked.
#[tokio::test(start_paused = true)]
async fn a_cut_ends_watches() {
    let world = World::new(1);
    let node = world.node("a");
    let mut seen_later = watch(&*node.discovery()).await;
    let mut waiting = watch(&*node.discovery()).await;
    let link = node.link().clone();

    let (ended, ()) = join(next(&mut waiting), async { link.cut() }).await;
    assert_unavailable(ended, Effect::None);
    assert!(waiting.events.next().await.is_none());

    link.open();
    world.node("b").discovery().put(key("k"), "v".into(), None).await.unwrap();
    assert_unavailable(next(&mut seen_later).await, Effect::None);
}

/// A call that was given up in silence is never executed.
#[tokio::test(start_paused = true)]
async fn silence_hangs_calls_until_they_are_dropped() {
    let world = World::new(1);
    let (node, began) = (world.node("a"), Instant::now());
    node.link().silence();
    let put = timeout(LONG, node.discovery().put(key("k"), "v".into(), None)).await;
    assert!(put.is_err(), "{put:?}");
    let read = timeout(LONG, node.discovery().read(Range::All)).await;
    assert!(read.is_err(), "{read:?}");
    assert_eq!(began.elapsed(), 2 * LONG);

    node.link().open();
    sleep(LONG).await;
    assert!(keys(&world).is_empty());
}

/// A call that still waits when the silence ends is executed then, once.
#[tokio::test(start_paused = true)]
async fn a_waiting_call_goes_on_after_silence() {
    let world = World::new(1);
    let node = world.node("a");
    node.link().silence();
    let (store, link) = (node.discovery(), node.link());
    let create = store.create(key("k"), "v".into(), None);
    let heal = async {
        sleep(TTL).await;
        assert!(keys(&world).is_empty());
        link.open();
    };
    let (created, ()) = join(create, heal).await;
    assert!(matches!(created, Ok(Commit::Applied(_))), "{created:?}");
}

/// A cut in the middle of a silence ends what hangs; a write may have been executed, a read has no effect.
#[tokio::test(start_paused = true)]
async fn a_cut_ends_what_hangs_in_silence() {
    let world = World::new(1);
    let node = world.node("a");
    node.link().silence();
    let (store, link) = (node.discovery(), node.link());
    let flap = async {
        link.cut();
        link.open();
    };
    let write = store.commit(Txn::new().delete(key("k")));
    let (write, read, ()) = join3(write, store.read(Range::All), flap).await;
    assert_unavailable(write, Effect::Unknown);
    assert_unavailable(read, Effect::None);
}

/// W3 after silence: a watch says nothing meanwhile, and then all that happened, in order.
#[tokio::test(start_paused = true)]
async fn w3_a_watch_catches_up_after_silence() {
    let world = World::new(1);
    let (node, writer) = (world.node("a"), world.node("b").discovery());
    let mut watch = watch(&*node.discovery()).await;
    assert!(matches!(&watch.base, Base::Snapshot(base) if base.entries.is_empty()));
    writer.put(key("before"), "".into(), None).await.unwrap();
    assert_eq!(next(&mut watch).await, Ok(vec!["before".to_owned()]));

    node.link().silence();
    writer.put(key("k"), "".into(), None).await.unwrap();
    writer.delete(key("k")).await.unwrap();
    assert!(timeout(LONG, watch.events.next()).await.is_err());

    node.link().open();
    assert_eq!(next(&mut watch).await, Ok(vec!["k".to_owned()]));
    assert_eq!(next(&mut watch).await, Ok(vec!["-k".to_owned()]));
}

/// F2: heartbeats do not get through silence, so the lease ends although its owner never stopped.
#[tokio::test(start_paused = true)]
async fn f2_silence_lets_a_lease_run_out() {
    let world = World::new(1);
    let (node, observer) = (world.node("a"), world.node("b"));
    let lease = node.discovery().grant(TTL).await.unwrap();
    node.discovery().put(key("k"), "".into(), Some(lease.id)).await.unwrap();
    let mut watch = watch(&*observer.discovery()).await;

    node.link().silence();
    let began = Instant::now();
    let heartbeats = async {
        loop {
            let _silent = timeout(TTL / 6, node.discovery().keep_alive(lease.id)).await;
        }
    };
    let gone = select(Box::pin(next(&mut watch)), Box::pin(heartbeats));
    let gone = gone.await.factor_first().0;
    assert_eq!(gone, Ok(vec!["-k".to_owned()]));
    assert_eq!(began.elapsed(), TTL);

    node.link().open();
    let beat = node.discovery().keep_alive(lease.id).await;
    assert_eq!(beat, Err(Error::lease_lost(lease.id)));
}

/// F18: a write whose reply is lost is executed, and its caller cannot know; the next one is as ever.
#[tokio::test(start_paused = true)]
async fn f18_a_lost_reply_leaves_the_effect_unknown() {
    let world = World::new(1);
    let node = world.node("a");
    let store = node.discovery();

    node.link().lose_next_reply();
    assert_unavailable(store.put(key("k"), "v".into(), None).await, Effect::Unknown);
    assert_eq!(keys(&world), ["k"]);
    store.put(key("l"), "v".into(), None).await.unwrap();

    node.link().lose_next_reply();
    assert_unavailable(store.grant(TTL).await, Effect::Unknown);
    let leases = world.memory().leases();
    assert_eq!(leases.len(), 1);

    node.link().lose_next_reply();
    store.keep_alive(leases[0]).await.unwrap();
    store.read(Range::All).await.unwrap();
    assert_unavailable(store.revoke(leases[0]).await, Effect::Unknown);
    assert!(world.memory().leases().is_empty());
}

/// Losses that were ordered add up.
#[tokio::test(start_paused = true)]
async fn lost_replies_add_up() {
    let world = World::new(1);
    let node = world.node("a");
    node.link().lose_next_reply();
    node.link().lose_next_reply();
    assert_unavailable(node.discovery().grant(TTL).await, Effect::Unknown);
    assert_unavailable(node.discovery().grant(TTL).await, Effect::Unknown);
    node.discovery().grant(TTL).await.unwrap();
}

/// F7: a link is one node's; the others see nothing of its faults.
#[tokio::test(start_paused = true)]
async fn f7_other_nodes_are_not_concerned() {
    let world = World::new(1);
    let (cut, silent, well) = (world.node("a"), world.node("b"), world.node("c"));
    let mut watch = watch(&*well.discovery()).await;
    cut.link().cut();
    silent.link().silence();
    well.discovery().put(key("k"), "".into(), None).await.unwrap();
    assert_eq!(next(&mut watch).await, Ok(vec!["k".to_owned()]));
}

/// An open link changes nothing: a base, events and answers are those of the store.
#[tokio::test(start_paused = true)]
async fn an_open_link_is_transparent() {
    let world = World::new(1);
    let (store, plain) = (world.node("a").discovery(), world.memory().discovery());
    assert_eq!(store.capabilities().await, plain.capabilities().await);
    let lease = store.grant(TTL).await.unwrap();
    assert_eq!(store.keep_alive(lease.id).now_or_never(), Some(Ok(lease.ttl)));
    let revision = store.put(key("k"), "v".into(), Some(lease.id)).await.unwrap();
    assert_eq!(store.read(Range::All).await, plain.read(Range::All).await);
    let resumed = store.watch(Range::All, Start::After(revision)).await.unwrap();
    assert_eq!(resumed.base, Base::Resumed(revision));
    assert_eq!(store.create(key("k"), "v".into(), None).await, Ok(Commit::Refused));
    store.revoke(lease.id).await.unwrap();
    assert_eq!(store.revoke(lease.id).await, Err(Error::lease_lost(lease.id)));
    assert!(keys(&world).is_empty());
}
