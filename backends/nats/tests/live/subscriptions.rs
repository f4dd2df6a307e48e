//! What subscriptions promise beyond the kit.

use std::time::Duration;

use futures_util::StreamExt;
use slipring_core::{Effect, Error, Message, Messaging, QueueGroup, Subject, Subscription};
use slipring_nats::Config;
use slipring_servers::{Nats, Version};
use tokio::time::Instant;

use crate::world::{configured, connect, next, publish, rest, subject, subscribe, with, within};

/// Subscribing is asynchronous in NATS; here it has been proved when it resolves: of 1,000 messages that another
/// connection publishes right afterwards, none is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn m3_subscribe_is_proved() {
    for version in Version::ALL {
        let server = Nats::start(version).await;
        let (one, other) = (connect(&server), connect(&server));
        other.capabilities().await.unwrap();
        for round in 0..1000 {
            let name = format!("round.{round}");
            let mut messages = subscribe(&one, &name).await;
            publish(&other, &name, round).await.unwrap();
            assert_eq!(next(&mut messages).await, round.to_string());
        }
        assert_eq!(one.subscriptions(), 0);
    }
}

/// A subscription that is made while messages pour in gets them: the message that arrives in the very moment in
/// which it begins to look is neither overlooked nor in its way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subscriptions_begin_under_load() {
    const ROUNDS: u32 = 200;
    let server = Nats::start(Version::Newer).await;
    let (one, other) = (connect(&server), connect(&server));
    other.capabilities().await.unwrap();
    let pouring = async {
        loop {
            publish(&other, "s", "x").await.unwrap();
            tokio::task::yield_now().await;
        }
    };
    let subscribing = async {
        for _ in 0..ROUNDS {
            let mut messages = subscribe(&one, "s").await;
            assert_eq!(next(&mut messages).await, "x");
        }
    };
    tokio::select! {
        biased;
        () = subscribing => {}
        () = pouring => {}
    }
}

/// What the server would lose silently, a subject with an empty token, cannot even be made.
#[test]
fn empty_tokens_are_refused() {
    for text in [".", ".a", "a.", "a..b"] {
        assert_eq!(Subject::new(text).unwrap_err().code(), "invalid", "{text}");
    }
}

/// A reader that reads nothing costs no more than its bound; what it lost is counted to the message, where it was
/// lost, also at a high rate; and afterwards nothing is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn m10_losses_are_counted_at_full_speed() {
    const MESSAGES: u64 = 100_000;
    const BUFFER: usize = 10;
    for version in Version::ALL {
        let server = Nats::start(version).await;
        let (one, other) = (connect(&server), connect(&server));
        let slow = Subscription::new(subject("s")).with_messages_max(BUFFER);
        let mut slow = one.subscribe(slow).await.unwrap();
        for number in 0..MESSAGES {
            publish(&other, "s", number).await.unwrap();
        }
        other.flush().await.unwrap();
        one.flush().await.unwrap();
        publish(&other, "s", "last").await.unwrap();
        other.flush().await.unwrap();
        one.flush().await.unwrap();
        for number in 0..BUFFER {
            assert_eq!(next(&mut slow).await, number.to_string());
        }
        let lost = within("the loss", slow.next()).await.unwrap().unwrap_err();
        assert_eq!(lost, Error::lagged(MESSAGES + 1 - BUFFER as u64));
        publish(&other, "s", "after").await.unwrap();
        assert_eq!(next(&mut slow).await, "after");
    }
}

/// M12: a member of a queue group that stops under load answers for all that was routed to it: together the
/// members have each message exactly once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn m12_a_member_that_stops_loses_nothing() {
    const ROUNDS: u32 = 20;
    const MESSAGES: u32 = 3_000;
    for version in Version::ALL {
        let server = Nats::start(version).await;
        let (stays, stops, publisher) = (connect(&server), connect(&server), connect(&server));
        let member = || Subscription::new(subject("q")).with_queue(QueueGroup::new("group").unwrap());
        for round in 0..ROUNDS {
            let mut one = stays.subscribe(member()).await.unwrap();
            let mut other = stops.subscribe(member()).await.unwrap();
            let load = async {
                for number in 0..MESSAGES {
                    publish(&publisher, "q", number).await.unwrap();
                    if number % 50 == 0 {
                        tokio::task::yield_now().await;
                    }
                }
                publisher.flush().await.unwrap();
            };
            let stopping = async {
                let first = next(&mut other).await;
                other.stop();
                let mut got = vec![first];
                got.extend(rest(other).await);
                got
            };
            let ((), theirs) = tokio::join!(load, stopping);
            one.stop();
            let ours = rest(one).await;
            let mut all: Vec<u32> =
                ours.iter().chain(&theirs).map(|number| number.parse().unwrap()).collect();
            all.sort_unstable();
            assert!(
                all.iter().copied().eq(0..MESSAGES),
                "{version:?}, round {round}: {} + {} of {MESSAGES}",
                ours.len(),
                theirs.len()
            );
        }
    }
}

/// A subscription that is dropped is soon unknown to the server, and to us.
#[tokio::test]
async fn dropped_subscriptions_are_gone() {
    let server = Nats::start(Version::Newer).await;
    let broker = connect(&server);
    for _ in 0..100 {
        drop(subscribe(&broker, "s").await);
    }
    assert_eq!(broker.subscriptions(), 0);
    broker.flush().await.unwrap();
    let asked = broker.request(Message::new(subject("s"), ""), Duration::from_secs(10)).await;
    assert_eq!(asked.unwrap_err().code(), "no_responders");
}

/// Unanswered requests leave nothing behind: after 20,000 of them nobody waits, and memory has not grown as it
/// does with the client library's own requests (7 MB).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unanswered_requests_leave_nothing() {
    const REQUESTS: u64 = 20_000;
    const AT_ONCE: usize = 200;
    let server = Nats::start(Version::Newer).await;
    let broker = connect(&server);
    let _silent = broker.subscribe(Subscription::new(subject("silent")).with_messages_max(1)).await.unwrap();
    let ask = async |requests: u64| {
        let each = |_| async {
            let request = Message::new(subject("silent"), "?");
            let error = broker.request(request, Duration::from_millis(20)).await.unwrap_err();
            assert_eq!((error.code(), error.effect()), ("deadline_exceeded", Effect::Unknown));
        };
        futures_util::stream::iter(0..requests).map(each).buffer_unordered(AT_ONCE).collect::<Vec<_>>().await;
    };
    ask(REQUESTS / 4).await;
    let before = resident_kib();
    ask(REQUESTS).await;
    assert_eq!(broker.waiting_requests(), 0);
    let grown = resident_kib().saturating_sub(before);
    eprintln!("{REQUESTS} unanswered requests: {grown} KiB more");
    assert!(grown < 3 * 1024, "{grown} KiB more");
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// A responder that is killed gives no quick failure in NATS: the request ends at its deadline, not earlier, and
/// may have been executed. (Noticing sooner is the liveness check of the component model.)
#[tokio::test]
async fn a_killed_responder_costs_the_deadline() {
    const TIMEOUT: Duration = Duration::from_millis(500);
    for version in Version::ALL {
        let server = Nats::start(version).await;
        let (client, responder) = (connect(&server), connect(&server));
        let mut requests = subscribe(&responder, "s").await;
        let dies = async {
            next(&mut requests).await;
            drop((requests, responder));
        };
        let began = Instant::now();
        let asked = client.request(Message::new(subject("s"), "?"), TIMEOUT);
        let (asked, ()) = tokio::join!(asked, dies);
        let error = asked.unwrap_err();
        assert_eq!((error.code(), error.effect()), ("deadline_exceeded", Effect::Unknown));
        assert!(began.elapsed() >= TIMEOUT);
    }
}

/// M11: the limit is the server's own, told before anything is sent, with both figures; a larger one is used too.
#[tokio::test]
async fn m11_the_limit_is_the_servers() {
    for (version, limit) in Version::ALL.into_iter().zip([1_000, 2 * 1024 * 1024]) {
        let configuration = format!("max_payload: {limit}");
        let server = configured(version, configuration).await;
        let broker = with(Config::new([server.endpoint()]));
        assert_eq!(broker.capabilities().await.unwrap().payload_bytes_max, limit);
        let mut messages = subscribe(&broker, "s").await;
        let refused = publish(&broker, "s", "x".repeat(limit + 1)).await.unwrap_err();
        assert_eq!(refused, Error::payload_too_large(limit, limit + 1));
        publish(&broker, "s", "x".repeat(limit)).await.unwrap();
        assert_eq!(next(&mut messages).await.len(), limit);
    }
}
