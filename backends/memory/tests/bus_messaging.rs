//! Messaging over the bus: requests, closing, capabilities, threads, fairness.

#![allow(clippy::unwrap_used, reason = "a test may")]

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::{FutureExt, StreamExt};
use slipring_core::{
    Effect, Environment, Error, Message, Messaging, MessagingCapabilities, MessagingExt, Pattern, QueueGroup,
    Subject, Subscription, SystemEnvironment, TaskEnd,
};
use slipring_memory::{MemoryMessaging, SharedBus};
use tokio::time::Instant;

const LONG: Duration = Duration::from_secs(10);

fn bus_with(capabilities: MessagingCapabilities) -> Arc<SharedBus> {
    SharedBus::new(capabilities, Arc::new(SystemEnvironment::new()))
}

fn bus() -> Arc<SharedBus> {
    bus_with(SharedBus::capabilities_max())
}

fn subject(text: &str) -> Subject {
    Subject::new(text).unwrap()
}

fn message(to: &str, payload: impl Into<slipring_core::Bytes>) -> Message {
    Message::new(subject(to), payload)
}

fn on(pattern: &str) -> Subscription {
    Subscription::new(Pattern::new(pattern).unwrap())
}

/// A request is answered with the first reply; the handle it comes from needs no other preparation.
#[tokio::test(start_paused = true)]
async fn m6_the_first_reply_is_the_answer() {
    let bus = bus();
    let (server, client) = (MemoryMessaging::new(bus.clone()), MemoryMessaging::new(bus));
    let mut requests = server.subscribe(on("s")).await.unwrap();
    let serve = async {
        let request = requests.next().await.unwrap().unwrap();
        for reply in ["first", "second", "third"] {
            server.respond(&request, reply.into()).await.unwrap();
        }
    };
    let (answer, ()) = tokio::join!(client.request(message("s", "?"), LONG), serve);
    assert_eq!(answer.unwrap().payload, "first");
    assert_eq!(client.subscriptions(), 1, "late replies find no inbox");
}

/// A thousand requests at once, answered twice each and backwards: everyone gets the answer to its own.
#[tokio::test(start_paused = true)]
async fn m6_answers_are_never_crossed() {
    let bus = bus();
    let (server, client) = (MemoryMessaging::new(bus.clone()), MemoryMessaging::new(bus));
    let mut requests = server.subscribe(on("s")).await.unwrap();
    let asking = join_all((0..1000).map(|n| client.request(message("s", n.to_string()), LONG)));
    let serve = async {
        let mut asked: Vec<_> = requests.by_ref().take(1000).map(Result::unwrap).collect().await;
        asked.reverse();
        for request in asked.iter().chain(&asked) {
            server.respond(request, request.payload.clone()).await.unwrap();
        }
    };
    let (answers, ()) = tokio::join!(asking, serve);
    for (n, answer) in answers.into_iter().enumerate() {
        assert_eq!(answer.unwrap().payload, n.to_string());
    }
}

/// Nobody there is told at once, with effect none; somebody silent costs the whole timeout, effect unknown.
#[tokio::test(start_paused = true)]
async fn m7_nobody_is_told_at_once_and_silence_costs_the_timeout() {
    let messaging = MemoryMessaging::new(bus());
    let began = Instant::now();
    let nobody = messaging.request(message("s", "?"), LONG).await.unwrap_err();
    assert_eq!((nobody, began.elapsed()), (Error::no_responders("s"), Duration::ZERO));
    let _silent = messaging.subscribe(on("s")).await.unwrap();
    let silent = messaging.request(message("s", "?"), LONG).await.unwrap_err();
    assert_eq!((silent.code(), silent.effect()), ("deadline_exceeded", Effect::Unknown));
    assert_eq!(began.elapsed(), LONG);
}

/// 100,000 requests that nobody answers, timed out or dropped half-way, leave not one subscription behind.
#[tokio::test(start_paused = true)]
async fn nats_leak_unanswered_requests_leave_nothing() {
    let messaging = MemoryMessaging::new(bus());
    let silent = messaging.subscribe(on("s").with_messages_max(1)).await.unwrap();
    for _ in 0..100 {
        let asking = (0..1000).map(|_| messaging.request(message("s", "?"), LONG));
        let (dropped, timed_out): (Vec<_>, Vec<_>) = asking.enumerate().partition(|(n, _)| n % 2 == 0);
        let mut dropped = join_all(dropped.into_iter().map(|(_, request)| request));
        assert!((&mut dropped).now_or_never().is_none());
        assert!(messaging.subscriptions() > 1);
        drop(dropped);
        for answer in join_all(timed_out.into_iter().map(|(_, request)| request)).await {
            assert_eq!(answer.unwrap_err().code(), "deadline_exceeded");
        }
    }
    assert_eq!(messaging.subscriptions(), 1);
    drop(silent);
    assert_eq!(messaging.subscriptions(), 0);
}

/// Closing ends the handle's subscriptions after what they had accepted, refuses every later call with effect
/// none, also on its clones, and touches no other handle.
#[tokio::test(start_paused = true)]
async fn m12_a_closed_handle_ends_alone() {
    let bus = bus();
    let (one, other) = (MemoryMessaging::new(bus.clone()), MemoryMessaging::new(bus.clone()));
    let clone = one.clone();
    let mut ours = one.subscribe(on("s")).await.unwrap();
    let mut theirs = other.subscribe(on("s")).await.unwrap();
    one.publish(message("s", "before")).await.unwrap();
    one.close(LONG).await.unwrap();
    one.close(LONG).await.unwrap();
    other.publish(message("s", "after")).await.unwrap();
    assert_eq!(ours.next().await.unwrap().unwrap().payload, "before");
    assert!(ours.next().await.is_none());
    for expected in ["before", "after"] {
        assert_eq!(theirs.next().await.unwrap().unwrap().payload, expected);
    }
    for refused in [
        clone.capabilities().await.map(drop),
        clone.publish(message("s", "")).await,
        clone.subscribe(on("s")).await.map(drop),
        clone.request(message("s", ""), LONG).await.map(drop),
        clone.flush().await,
    ] {
        let error = refused.unwrap_err();
        assert_eq!((error.code(), error.effect()), ("unavailable", Effect::None));
    }
    drop(theirs);
    assert_eq!(bus.subscriptions(), 0);
}

/// A request that waits when its handle is closed ends at once, and admits that it was sent.
#[tokio::test(start_paused = true)]
async fn a_close_ends_the_requests_that_wait() {
    let bus = bus();
    let (server, client) = (MemoryMessaging::new(bus.clone()), MemoryMessaging::new(bus));
    let mut requests = server.subscribe(on("s")).await.unwrap();
    let close = async {
        requests.next().await.unwrap().unwrap();
        client.close(LONG).await.unwrap();
    };
    let began = Instant::now();
    let (answer, ()) = tokio::join!(client.request(message("s", "?"), LONG), close);
    let error = answer.unwrap_err();
    assert_eq!((error.code(), error.effect()), ("unavailable", Effect::Unknown));
    assert_eq!(began.elapsed(), Duration::ZERO);
}

/// A stop wakes a reader that waits, keeps what was accepted, and frees the subscription once that is read.
#[tokio::test(start_paused = true)]
async fn m12_a_stopped_subscriber_reads_to_its_end() {
    let messaging = MemoryMessaging::new(bus());
    let mut waits = messaging.subscribe(on("s")).await.unwrap();
    assert!(waits.next().now_or_never().is_none());
    waits.stop();
    assert_eq!(messaging.subscriptions(), 0, "nothing was left to be read");
    assert!(waits.next().await.is_none());

    let mut reads = messaging.subscribe(on("s")).await.unwrap();
    messaging.publish(message("s", "accepted")).await.unwrap();
    reads.stop();
    reads.stop();
    messaging.publish(message("s", "too late")).await.unwrap();
    assert_eq!(messaging.subscriptions(), 1);
    assert_eq!(reads.next().await.unwrap().unwrap().payload, "accepted");
    assert_eq!(messaging.subscriptions(), 0);
    assert!(reads.next().await.is_none());
}

/// A reader that waits in another task is woken by a stop from this one's close.
#[tokio::test(start_paused = true)]
async fn a_waiting_reader_is_woken_by_a_close() {
    let messaging = MemoryMessaging::new(bus());
    let mut subscriber = messaging.subscribe(on("s")).await.unwrap();
    let end: Arc<std::sync::Mutex<Option<usize>>> = Arc::default();
    let told = end.clone();
    let mut reader = SystemEnvironment::new().spawn(
        "reader",
        Box::pin(async move {
            let read = subscriber.by_ref().count().await;
            *told.lock().unwrap() = Some(read);
        }),
    );
    tokio::task::yield_now().await;
    messaging.publish(message("s", "x")).await.unwrap();
    tokio::task::yield_now().await;
    messaging.close(LONG).await.unwrap();
    reader.end().await;
    assert_eq!(*end.lock().unwrap(), Some(1));
}

/// Dropping the last handle and its subscribers leaves nothing; a subscriber keeps its connection alive.
#[tokio::test(start_paused = true)]
async fn a_subscriber_outlives_its_handle() {
    let bus = bus();
    let handle = MemoryMessaging::new(bus.clone());
    let mut subscriber = handle.subscribe(on("s")).await.unwrap();
    drop(handle);
    MemoryMessaging::new(bus.clone()).publish(message("s", "x")).await.unwrap();
    assert_eq!(subscriber.next().await.unwrap().unwrap().payload, "x");
    drop(subscriber);
    assert_eq!(bus.subscriptions(), 0);
}

/// What is not declared is refused or absent: wildcards, queue groups, and the news that nobody is there.
#[tokio::test(start_paused = true)]
async fn what_is_not_declared_cannot_be_used() {
    let minimal = MessagingCapabilities::minimal();
    let messaging = MemoryMessaging::new(bus_with(minimal));
    assert_eq!(messaging.capabilities().await.unwrap(), minimal);
    for refused in [on("a.*"), on(">"), on("a").with_queue(QueueGroup::new("g").unwrap())] {
        assert_eq!(messaging.subscribe(refused).await.unwrap_err().code(), "unsupported");
    }
    let unanswered = messaging.request(message("nobody", "?"), LONG).await.unwrap_err();
    assert_eq!(unanswered.code(), "deadline_exceeded");
    assert_eq!(messaging.subscriptions(), 0);
}

/// A subject, a reply subject or a pattern over the limit is refused, and says where it begins to be.
#[tokio::test(start_paused = true)]
async fn long_subjects_are_refused() {
    let messaging = MemoryMessaging::new(bus_with(SharedBus::capabilities_max().with_subject_bytes_max(8)));
    let refused = [
        messaging.publish(message("123456789", "")).await,
        messaging.publish(message("s", "").with_reply(subject("123456789"))).await,
        messaging.subscribe(on("123456789")).await.map(drop),
    ];
    for refused in refused {
        let Err(Error::Invalid { position: Some(8), effect: Effect::None, .. }) = refused else {
            panic!("{refused:?}")
        };
    }
    messaging.publish(message("12345678", "")).await.unwrap();
}

/// M11: an oversize request is refused as such, at once, and is never a timeout.
#[tokio::test(start_paused = true)]
async fn m11_an_oversize_request_is_no_timeout() {
    let messaging = MemoryMessaging::new(bus_with(SharedBus::capabilities_max().with_payload_bytes_max(4)));
    let _reader = messaging.subscribe(on("s")).await.unwrap();
    let error = messaging.request(message("s", "12345"), LONG).await.unwrap_err();
    assert_eq!(error, Error::payload_too_large(4, 5));
    assert_eq!(messaging.subscriptions(), 1);
}

/// Handles on different runtimes and threads meet on one bus; every message of each arrives, in its order.
#[test]
fn runtimes_on_different_threads_share_a_bus() {
    const PUBLISHERS: usize = 4;
    const EACH: usize = 5_000;
    fn block_on<T>(work: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
    }
    let bus = bus();
    let reader = MemoryMessaging::new(bus.clone());
    let mut subscriber = block_on(reader.subscribe(on("s.*"))).unwrap();
    std::thread::scope(|threads| {
        for publisher in 0..PUBLISHERS {
            let messaging = MemoryMessaging::new(bus.clone());
            threads.spawn(move || {
                block_on(async {
                    for n in 0..EACH {
                        let to = format!("s.{publisher}");
                        messaging.publish(message(&to, n.to_string())).await.unwrap();
                    }
                });
            });
        }
        block_on(async {
            let mut next = [0; PUBLISHERS];
            for _ in 0..PUBLISHERS * EACH {
                let got = subscriber.next().await.unwrap().unwrap();
                let publisher: usize = got.subject.tokens().last().unwrap().parse().unwrap();
                assert_eq!(got.payload, next[publisher].to_string());
                next[publisher] += 1;
            }
            assert_eq!(next, [EACH; PUBLISHERS]);
        });
    });
}

/// A task that always has something to read, or that only publishes, lets the others of its thread run.
#[tokio::test(start_paused = true)]
async fn a_hot_loop_starves_nobody() {
    const ROUNDS: usize = 10_000;
    let messaging = MemoryMessaging::new(bus());
    let mut subscriber = messaging.subscribe(on("full")).await.unwrap();
    for _ in 0..ROUNDS {
        messaging.publish(message("full", "x")).await.unwrap();
    }
    let environment = SystemEnvironment::new();
    let reads = async move {
        for _ in 0..ROUNDS {
            subscriber.next().await.unwrap().unwrap();
        }
    };
    let publishes = async move {
        for _ in 0..ROUNDS {
            messaging.publish(message("s", "x")).await.unwrap();
        }
    };
    let mut tasks =
        [environment.spawn("reader", Box::pin(reads)), environment.spawn("publisher", Box::pin(publishes))];
    tokio::task::yield_now().await;
    assert!(tasks.iter().all(|task| !task.is_finished()), "each gave way before it was done");
    for task in &mut tasks {
        assert_eq!(task.end().await, TaskEnd::Finished);
    }
}
