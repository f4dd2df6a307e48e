//! Events of namespaces and components.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::common::{Lossy, runtime, runtime_on, seconds};
use futures_util::{FutureExt, StreamExt};
use serde::{Deserialize, Serialize};
use slipring::{DistributedRuntime, Effect, Error, EventStream, Events, MemoryWorld, Messaging};
use slipring_core::{Message, Subscription};
use slipring_sim::World;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Stored {
    block: u64,
    tokens: Vec<u32>,
}

fn stored(block: u64) -> Stored {
    Stored { block, tokens: vec![1, 2] }
}

/// The events `kv_events` of component `a` in namespace `dynamo`.
fn kv_events(runtime: &DistributedRuntime) -> Events<Stored> {
    runtime.namespace("dynamo").unwrap().component("a").unwrap().events("kv_events").unwrap()
}

async fn next(events: &mut EventStream<Stored>) -> Result<u64, Error> {
    let event = tokio::time::timeout(seconds(1), events.next()).await.expect("an event is there");
    event.unwrap().map(|event| event.data.block)
}

/// Events arrive typed, in the order of their publisher, at every subscriber, and say who published them as
/// their how many-th.
#[tokio::test(start_paused = true)]
async fn events_arrive_typed_and_in_order() {
    let world = MemoryWorld::new();
    let (publisher, reader) = (runtime(&world).await, runtime(&world).await);
    let mut first = kv_events(&reader).subscribe().await.unwrap();
    let mut second = kv_events(&publisher).subscribe().await.unwrap();
    let events = kv_events(&publisher);
    for block in 1..=100 {
        events.publish(&stored(block)).await.unwrap();
    }
    for subscriber in [&mut first, &mut second] {
        for block in 1..=100 {
            let event = subscriber.next().await.unwrap().unwrap();
            assert_eq!(event.data, stored(block));
            assert_eq!((event.publisher, event.sequence), (Some(publisher.instance_id()), block));
        }
        assert!(subscriber.next().now_or_never().is_none());
    }
}

/// Concurrent publishers of one runtime do not mix their numbers up: nothing counts as lost.
#[tokio::test(start_paused = true)]
async fn concurrent_publishing_loses_nothing() {
    let world = MemoryWorld::new();
    let (publisher, reader) = (runtime(&world).await, runtime(&world).await);
    let mut subscriber = kv_events(&reader).subscribe().await.unwrap();
    let publishing = (0..100).map(|block| {
        let events = kv_events(&publisher);
        async move { events.publish(&stored(block)).await.unwrap() }
    });
    futures_util::future::join_all(publishing).await;
    let mut seen = Vec::new();
    for _ in 0..100 {
        seen.push(next(&mut subscriber).await.unwrap());
    }
    seen.sort_unstable();
    assert_eq!(seen, (0..100).collect::<Vec<_>>());
}

/// Subjects are those of the document, and a nested namespace is one token; events of other names, components
/// and namespaces do not arrive.
#[tokio::test(start_paused = true)]
async fn subjects_are_exact() {
    let world = MemoryWorld::new();
    let runtime = runtime(&world).await;
    let (dynamo, nested) = (runtime.namespace("dynamo").unwrap(), runtime.namespace("parent.child").unwrap());
    let all = [
        (dynamo.events("event").unwrap(), "namespace.dynamo.event"),
        (dynamo.events("kv_events").unwrap(), "namespace.dynamo.kv_events"),
        (kv_events(&runtime), "namespace.dynamo.component.a.kv_events"),
        (
            dynamo.component("A").unwrap().events("kv_events").unwrap(),
            "namespace.dynamo.component.A.kv_events",
        ),
        (nested.events("event").unwrap(), "namespace.parent/child.event"),
        (
            nested.component("a").unwrap().events("kv_events").unwrap(),
            "namespace.parent/child.component.a.kv_events",
        ),
    ];
    let mut subscribers = Vec::new();
    for (events, subject) in &all {
        assert_eq!(events.subject().as_str(), *subject);
        subscribers.push(events.subscribe().await.unwrap());
    }
    for (at, (events, _)) in all.iter().enumerate() {
        events.publish(&stored(at as u64)).await.unwrap();
    }
    for (at, subscriber) in subscribers.iter_mut().enumerate() {
        assert_eq!(next(subscriber).await.unwrap(), at as u64);
        assert!(subscriber.next().now_or_never().is_none());
    }
    assert!(dynamo.events::<Stored>("a.b").is_err());
}

/// Lost events are seen, with their exact number, in their place, for each publisher apart.
#[tokio::test(start_paused = true)]
async fn loss_is_counted_exactly() {
    let world = MemoryWorld::new();
    let published = AtomicU64::new(0);
    let lossy = Lossy::new(world.messaging(), move |message| {
        let is_event = message.subject.as_str().starts_with("namespace.");
        is_event && matches!(published.fetch_add(1, Ordering::Relaxed) + 1, 3 | 5..=7)
    });
    let builder = DistributedRuntime::builder().discovery(world.discovery()).messaging(lossy);
    let (losing, sound) = (builder.build().await.unwrap(), runtime(&world).await);
    let mut subscriber = kv_events(&sound).subscribe().await.unwrap();
    for block in 1..=8 {
        kv_events(&losing).publish(&stored(block)).await.unwrap();
        kv_events(&sound).publish(&stored(100 + block)).await.unwrap();
    }
    let mut seen = Vec::new();
    while let Some(Some(event)) = subscriber.next().now_or_never() {
        seen.push(match event {
            Ok(event) => event.data.block as i64,
            Err(Error::Lagged { missed, .. }) => -(missed as i64),
            Err(error) => panic!("{error}"),
        });
    }
    assert_eq!(seen, [1, 101, 2, 102, 103, -1, 4, 104, 105, 106, 107, -3, 8, 108]);
}

/// Events lost while the subscriber's connection was away are counted when the next one arrives.
#[tokio::test(start_paused = true)]
async fn a_blink_of_the_subscribers_connection_is_counted() {
    let world = World::new(7);
    let publisher = runtime_on(&world.node("publisher")).await;
    let node = world.node("reader");
    let reader = runtime_on(&node).await;
    let mut subscriber = kv_events(&reader).subscribe().await.unwrap();
    let events = kv_events(&publisher);
    events.publish(&stored(1)).await.unwrap();
    assert_eq!(next(&mut subscriber).await.unwrap(), 1);
    node.link().cut();
    events.publish(&stored(2)).await.unwrap();
    events.publish(&stored(3)).await.unwrap();
    node.link().open();
    // The subscription is restored by whoever reads it.
    assert!(tokio::time::timeout(seconds(1), subscriber.next()).await.is_err());
    events.publish(&stored(4)).await.unwrap();
    assert_eq!(next(&mut subscriber).await, Err(Error::lagged(2)));
    assert_eq!(next(&mut subscriber).await, Ok(4));
}

/// Events of a publisher that is no slipring program are taken as they are; a slipring event is bare JSON for
/// subscribers of any other kind.
#[tokio::test(start_paused = true)]
async fn foreign_publishers_and_subscribers_take_part() {
    let world = MemoryWorld::new();
    let runtime = runtime(&world).await;
    let events = kv_events(&runtime);
    let mut subscriber = events.subscribe().await.unwrap();
    let foreign = world.messaging();
    let mut bare = foreign.subscribe(Subscription::new(events.subject())).await.unwrap();
    let message = Message::new(events.subject(), r#"{"block":7,"tokens":[],"more":true}"#);
    foreign.publish(message).await.unwrap();
    let event = subscriber.next().await.unwrap().unwrap();
    assert_eq!((event.data.block, event.publisher, event.sequence), (7, None, 0));
    bare.next().await.unwrap().unwrap();
    events.publish(&stored(8)).await.unwrap();
    let message = bare.next().await.unwrap().unwrap();
    assert_eq!(&message.payload[..], br#"{"block":8,"tokens":[1,2]}"#);
}

/// An event that cannot be read is said in its place, is not the end, and hides no loss before it.
#[tokio::test(start_paused = true)]
async fn an_unreadable_event_is_not_the_end() {
    let world = MemoryWorld::new();
    let lose = Arc::new(AtomicU64::new(0));
    let losing = lose.clone();
    let lossy = Lossy::new(world.messaging(), move |_| losing.load(Ordering::Relaxed) == 1);
    let builder = DistributedRuntime::builder().discovery(world.discovery()).messaging(lossy);
    let publisher = builder.build().await.unwrap();
    let mut subscriber = kv_events(&runtime(&world).await).subscribe().await.unwrap();
    let (events, others) = (kv_events(&publisher), strings(&publisher));
    events.publish(&stored(1)).await.unwrap();
    lose.store(1, Ordering::Relaxed);
    events.publish(&stored(2)).await.unwrap();
    events.publish(&stored(3)).await.unwrap();
    lose.store(0, Ordering::Relaxed);
    others.publish(&"no block".to_owned()).await.unwrap();
    events.publish(&stored(5)).await.unwrap();
    assert_eq!(next(&mut subscriber).await, Ok(1));
    assert_eq!(next(&mut subscriber).await, Err(Error::lagged(2)));
    assert_eq!(next(&mut subscriber).await.unwrap_err().code(), "invalid");
    assert_eq!(next(&mut subscriber).await, Ok(5));
}

/// The same events as [`kv_events`], of another type.
fn strings(runtime: &DistributedRuntime) -> Events<String> {
    runtime.namespace("dynamo").unwrap().component("a").unwrap().events("kv_events").unwrap()
}

/// What cannot be published is said, has no effect, and does not count as lost: too large, or after the stop.
#[tokio::test(start_paused = true)]
async fn what_is_refused_does_not_count_as_lost() {
    let world = MemoryWorld::new();
    let publisher = runtime(&world).await;
    let reader = runtime(&world).await;
    let mut subscriber = kv_events(&reader).subscribe().await.unwrap();
    let events = kv_events(&publisher);
    events.publish(&stored(1)).await.unwrap();
    let huge = Stored { block: 2, tokens: vec![u32::MAX; 200_000] };
    let error = events.publish(&huge).await.unwrap_err();
    assert_eq!((error.code(), error.effect()), ("payload_too_large", Effect::None));
    events.publish(&stored(3)).await.unwrap();
    assert_eq!((next(&mut subscriber).await, next(&mut subscriber).await), (Ok(1), Ok(3)));
    publisher.stop().await;
    assert_eq!(events.publish(&stored(4)).await.unwrap_err().code(), "draining");
    let Err(error) = events.subscribe().await else { panic!("it has stopped") };
    assert_eq!(error.code(), "draining");
}

/// A reader that does not read loses the newest events and is told how many; the publisher is never held up.
#[tokio::test(start_paused = true)]
async fn a_slow_reader_is_told_what_it_missed() {
    let world = MemoryWorld::new();
    let (publisher, reader) = (runtime(&world).await, runtime(&world).await);
    let mut subscriber = kv_events(&reader).subscribe().await.unwrap();
    let events = kv_events(&publisher);
    let buffered = Subscription::MESSAGES_MAX as u64;
    for block in 1..=buffered + 10 {
        events.publish(&stored(block)).await.unwrap();
    }
    for block in 1..=buffered {
        assert_eq!(next(&mut subscriber).await, Ok(block));
    }
    assert!(subscriber.next().now_or_never().is_none());
    events.publish(&stored(0)).await.unwrap();
    assert_eq!((next(&mut subscriber).await, next(&mut subscriber).await), (Err(Error::lagged(10)), Ok(0)));
}

/// Leaving a subscription leaves nothing behind.
#[tokio::test(start_paused = true)]
async fn a_dropped_subscription_is_gone() {
    let world = MemoryWorld::new();
    let runtime = runtime(&world).await;
    let before = world.messaging().subscriptions();
    let subscriber = kv_events(&runtime).subscribe().await.unwrap();
    assert_eq!(world.messaging().subscriptions(), before + 1);
    drop(subscriber);
    assert_eq!(world.messaging().subscriptions(), before);
}
