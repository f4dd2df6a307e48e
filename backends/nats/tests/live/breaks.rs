//! Lost connections: what is refused, what is told, and what never happens later.

use std::time::Duration;

use futures_util::StreamExt;
use slipring_core::{Effect, Error, Message, Messaging};
use slipring_nats::{Config, ConnectionState};
use slipring_servers::{Nats, Proxy, Version};
use tokio::runtime::Handle;
use tokio::time::{Instant, timeout};

use crate::world::{
    connect, connected, disconnected, next, publish, rest, subject, subscribe, until, with, within,
};

/// What is published without a connection is refused at once, with effect none, and never sent, however much it
/// is: neither a subscriber that was there all the time nor our own, restored one sees any of it. (A NATS client
/// executes it seconds later, and blocks for ever once 2,048 wait.)
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn disconnected_publishes_are_never_sent() {
    for version in Version::ALL {
        let server = Nats::start(version).await;
        let proxy = Proxy::start(server.endpoint()).await;
        let (watcher, broker) = (connect(&server), with(Config::new([proxy.endpoint()])));
        let mut seen = subscribe(&watcher, "s").await;
        let mut own = subscribe(&broker, "s").await;
        proxy.cut();
        disconnected(&broker).await;
        let began = Instant::now();
        for number in 0..5000 {
            let error = publish(&broker, "s", number).await.unwrap_err();
            assert_eq!((error.code(), error.effect()), ("unavailable", Effect::None));
        }
        let request = Message::new(subject("s"), "request");
        let error = broker.request(request, Duration::from_secs(60)).await.unwrap_err();
        assert_eq!((error.code(), error.effect()), ("unavailable", Effect::None));
        eprintln!("5,000 publishes were refused in {:?}", began.elapsed());
        proxy.mend();
        connected(&broker).await;
        publish(&broker, "s", "after").await.unwrap();
        assert_eq!(next(&mut seen).await, "after");
        assert_eq!(within("the gap", own.next()).await, Some(Err(Error::lagged(0))));
        assert_eq!(next(&mut own).await, "after");
    }
}

/// The same when the server is killed and started again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_is_found_again() {
    for version in Version::ALL {
        let mut server = Nats::start(version).await;
        let (one, other) = (connect(&server), connect(&server));
        let mut own = subscribe(&one, "s").await;
        let mut theirs = subscribe(&other, "s").await;
        server.kill();
        tokio::join!(disconnected(&one), disconnected(&other));
        for number in 0..5000 {
            assert_eq!(publish(&one, "s", number).await.unwrap_err().effect(), Effect::None);
        }
        server.restart().await.unwrap();
        let (took, _) = tokio::join!(connected(&one), connected(&other));
        eprintln!("{version:?}: connected {took:?} after the server was back");
        publish(&one, "s", "after").await.unwrap();
        for messages in [&mut own, &mut theirs] {
            assert_eq!(within("the gap", messages.next()).await, Some(Err(Error::lagged(0))));
            assert_eq!(next(messages).await, "after");
        }
    }
}

/// Connected again means subscribed again: the server has taken every subscription by then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn m3_a_restored_subscription_is_proved() {
    let server = Nats::start(Version::Newer).await;
    let proxy = Proxy::start(server.endpoint()).await;
    let (publisher, broker) = (connect(&server), with(Config::new([proxy.endpoint()])));
    publisher.flush().await.unwrap();
    let mut all = Vec::new();
    for number in 0..1000 {
        all.push(subscribe(&broker, &format!("s.{number}")).await);
    }
    proxy.reset().await;
    disconnected(&broker).await;
    connected(&broker).await;
    for number in (0..1000).rev() {
        publish(&publisher, &format!("s.{number}"), number).await.unwrap();
    }
    for (number, messages) in all.iter_mut().enumerate() {
        assert_eq!(within("the gap", messages.next()).await, Some(Err(Error::lagged(0))));
        assert_eq!(next(messages).await, number.to_string());
    }
}

/// What was accepted and still stood in a queue when the connection broke is not sent over the next one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queued_publishes_die_with_their_connection() {
    for version in Version::ALL {
        let server = Nats::start(version).await;
        let proxy = Proxy::start(server.endpoint()).await;
        // Nothing but the full queue is to be noticed.
        let config = Config::new([proxy.endpoint()])
            .with_queue_timeout(Duration::from_millis(200))
            .with_ping_interval(Duration::from_secs(60));
        let (watcher, broker) = (connect(&server), with(config));
        let seen = subscribe(&watcher, "s").await;
        broker.flush().await.unwrap();
        proxy.silence();
        // Until the socket and the queue are full: then it does not block, it is refused.
        let mut accepted = 0;
        let error = loop {
            match within("room or a refusal", publish(&broker, "s", "x".repeat(10_000))).await {
                Ok(()) => accepted += 1,
                Err(error) => break error,
            }
        };
        assert_eq!((error.code(), error.effect()), ("unavailable", Effect::None));
        eprintln!("{version:?}: {accepted} accepted, then: {error}");
        assert!(accepted > 2000, "{accepted}");
        proxy.cut();
        disconnected(&broker).await;
        proxy.mend();
        connected(&broker).await;
        publish(&broker, "s", "after").await.unwrap();
        broker.flush().await.unwrap();
        let mut seen = seen;
        seen.stop();
        assert_eq!(rest(seen).await, ["after"]);
    }
}

/// Nor is it sent if the server, which only stood still, is there again at once: it gets what the socket held and
/// nothing of what stood in the queue.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_goes_on_gets_nothing_from_the_queue() {
    /// What the client library's queue holds.
    const QUEUE: usize = 2_000;
    for version in Version::ALL {
        let server = Nats::start(version).await;
        let config = Config::new([server.endpoint()])
            .with_queue_timeout(Duration::from_millis(100))
            .with_ping_interval(Duration::from_millis(500));
        let (watcher, broker) = (connect(&server), with(config));
        let mut seen = subscribe(&watcher, "s").await;
        broker.flush().await.unwrap();
        server.pause();
        let mut accepted = 0;
        while within("room or a refusal", publish(&broker, "s", "x".repeat(10_000))).await.is_ok() {
            accepted += 1;
        }
        disconnected(&broker).await;
        server.resume();
        connected(&broker).await;
        publish(&broker, "s", "after").await.unwrap();
        let mut got = 0;
        while next(&mut seen).await != "after" {
            got += 1;
        }
        // What had been sent late would come as late as this.
        broker.flush().await.unwrap();
        watcher.flush().await.unwrap();
        seen.stop();
        got += rest(seen).await.len();
        eprintln!("{version:?}: {accepted} accepted, {got} arrived");
        assert!(got + QUEUE <= accepted, "{got} of {accepted} arrived");
    }
}

/// Requests in flight end when the connection does, not at their deadline, and may have been executed.
#[tokio::test]
async fn requests_end_with_the_connection() {
    for version in Version::ALL {
        let mut server = Nats::start(version).await;
        let (client, responder) = (connect(&server), connect(&server));
        let mut requests = subscribe(&responder, "s").await;
        let dies = async {
            next(&mut requests).await;
            server.kill();
        };
        let asked = client.request(Message::new(subject("s"), "?"), Duration::from_secs(600));
        let (asked, ()) = within("the end of the request", async { tokio::join!(asked, dies) }).await;
        let error = asked.unwrap_err();
        assert_eq!((error.code(), error.effect()), ("unavailable", Effect::Unknown));
    }
}

/// While there is no server, attempts go on with growing delays of at most a second; state and last error can be
/// seen.
#[tokio::test]
async fn the_backoff_is_bounded_and_seen() {
    let mut server = Nats::start(Version::Newer).await;
    let broker = connect(&server);
    assert_eq!(broker.state(), ConnectionState::Idle);
    broker.flush().await.unwrap();
    let ConnectionState::Connected { server: at, version } = broker.state() else { panic!("connected") };
    assert_eq!((at, version.as_str()), (server.endpoint(), "2.15.1"));
    server.kill();
    disconnected(&broker).await;
    let mut times = vec![Instant::now()];
    for wanted in 1..=7 {
        let more = |state: &ConnectionState| matches!(state, ConnectionState::Disconnected { attempts, .. } if *attempts >= wanted);
        let state = within("another attempt", broker.wait_for(more)).await;
        let ConnectionState::Disconnected { error, .. } = state else { panic!("{state}") };
        assert_eq!(error.code(), "unavailable");
        assert!(error.to_string().contains(&server.endpoint()), "{error}");
        times.push(Instant::now());
    }
    let gaps: Vec<_> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    eprintln!("attempts after {gaps:?}");
    // Doubling from 50 ms, of which up to a half is taken off.
    for (gap, millis) in gaps.iter().zip([25, 50, 100, 200, 400, 500, 500]) {
        assert!(*gap >= Duration::from_millis(millis - 5), "{gaps:?}");
    }
    server.restart().await.unwrap();
    let took = connected(&broker).await;
    eprintln!("connected {took:?} after the server was back");
    publish(&broker, "s", "x").await.unwrap();
}

/// A server that takes us and drops us at once is dialled with growing pauses too.
#[tokio::test]
async fn a_server_that_drops_us_is_not_dialled_in_a_loop() {
    let server = Nats::start(Version::Newer).await;
    let proxy = Proxy::start(server.endpoint()).await;
    let broker = with(Config::new([proxy.endpoint()]));
    broker.flush().await.unwrap();
    for millis in [25, 50, 100, 200, 400] {
        let dropped = Instant::now();
        proxy.reset().await;
        disconnected(&broker).await;
        connected(&broker).await;
        assert!(dropped.elapsed() >= Duration::from_millis(millis - 5), "{:?}", dropped.elapsed());
    }
}

/// A server that stands still is noticed after three intervals of pings; then nothing blocks, and when it goes on
/// we are back.
#[tokio::test]
async fn a_paused_server_is_noticed() {
    const PING: Duration = Duration::from_millis(300);
    for version in Version::ALL {
        let server = Nats::start(version).await;
        let broker = with(Config::new([server.endpoint()]).with_ping_interval(PING));
        let mut own = subscribe(&broker, "s").await;
        server.pause();
        let took = disconnected(&broker).await;
        eprintln!("{version:?}: with pings every {PING:?} noticed after {took:?}");
        assert!(took >= PING * 2, "that was no silence yet: {took:?}");
        let error =
            timeout(PING * 20, publish(&broker, "s", "x")).await.expect("it does not block").unwrap_err();
        assert_eq!((error.code(), error.effect()), ("unavailable", Effect::None));
        server.resume();
        connected(&broker).await;
        publish(&broker, "s", "after").await.unwrap();
        assert_eq!(within("the gap", own.next()).await, Some(Err(Error::lagged(0))));
        assert_eq!(next(&mut own).await, "after");
    }
}

/// A subscription that is stopped while there is no connection ends, after saying that it may have lost some.
#[tokio::test]
async fn stopping_without_a_connection_ends() {
    let mut server = Nats::start(Version::Newer).await;
    let broker = connect(&server);
    let mut messages = subscribe(&broker, "s").await;
    publish(&broker, "s", "1").await.unwrap();
    broker.flush().await.unwrap();
    server.kill();
    disconnected(&broker).await;
    messages.stop();
    assert_eq!(next(&mut messages).await, "1");
    assert_eq!(within("the gap", messages.next()).await, Some(Err(Error::lagged(0))));
    assert_eq!(within("the end", messages.next()).await, None);
    // And the next connection does not ask for it again.
    server.restart().await.unwrap();
    connected(&broker).await;
    let asked = broker.request(Message::new(subject("s"), "?"), Duration::from_secs(10)).await;
    assert_eq!(asked.unwrap_err().code(), "no_responders");
}

/// Connections that were lost leave nothing behind: after 20 of them there are as many tasks as before.
#[tokio::test]
async fn lost_connections_leave_no_task() {
    let mut server = Nats::start(Version::Newer).await;
    let broker = connect(&server);
    let _messages = subscribe(&broker, "s").await;
    let tasks = Handle::current().metrics().num_alive_tasks();
    for _ in 0..20 {
        server.kill();
        disconnected(&broker).await;
        server.restart().await.unwrap();
        connected(&broker).await;
    }
    until("the tasks of lost connections to end", || Handle::current().metrics().num_alive_tasks() == tasks)
        .await;
    assert_eq!((broker.waiting_requests(), broker.subscriptions()), (0, 1));
}

/// With several servers, one that is down costs nothing but a moment: whichever is there is used.
#[tokio::test]
async fn any_of_the_servers_will_do() {
    let mut one = Nats::start(Version::Newer).await;
    let mut other = Nats::start(Version::Debian).await;
    let broker = with(Config::new([one.endpoint(), other.endpoint()]));
    for _ in 0..3 {
        other.kill();
        let at_one = |state: &ConnectionState| matches!(state, ConnectionState::Connected { server, .. } if *server == one.endpoint());
        let _ = broker.flush().await;
        within("the first server", broker.wait_for(at_one)).await;
        other.restart().await.unwrap();
        one.kill();
        let at_other = |state: &ConnectionState| matches!(state, ConnectionState::Connected { server, .. } if *server == other.endpoint());
        within("the second server", broker.wait_for(at_other)).await;
        one.restart().await.unwrap();
    }
}
