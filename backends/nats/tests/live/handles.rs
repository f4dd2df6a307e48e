//! Flushing, closing, and sharing a connection.

use std::time::Duration;

use futures_util::StreamExt;
use slipring_core::{Message, Messaging, MessagingExt};
use slipring_nats::{Config, ConnectionState};
use slipring_servers::{Nats, Proxy, Version};
use tokio::runtime::Handle;
use tokio::time::{Instant, timeout};

use crate::world::{connect, next, publish, rest, subject, subscribe, until, with, within};

const GRACE: Duration = Duration::from_secs(10);

/// Flushing waits for the server, not for the socket: as long as the server hears nothing it does not resolve.
#[tokio::test]
async fn flush_waits_for_the_server() {
    for version in Version::ALL {
        let server = Nats::start(version).await;
        let proxy = Proxy::start(server.endpoint()).await;
        let broker = with(Config::new([proxy.endpoint()]));
        broker.flush().await.unwrap();
        proxy.silence();
        publish(&broker, "s", "x").await.unwrap();
        let mut flush = broker.flush();
        assert!(timeout(Duration::from_millis(300), &mut flush).await.is_err(), "the server has nothing yet");
        proxy.mend();
        within("the flush", flush).await.unwrap();
    }
}

/// Draining and dropping a NATS client loses what it had queued; closing does not: 2,000 of 2,000 arrive.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn close_loses_nothing() {
    for version in Version::ALL {
        let server = Nats::start(version).await;
        let watcher = connect(&server);
        for round in 0..5 {
            let mut messages = subscribe(&watcher, "s").await;
            let publisher = connect(&server);
            for number in 0..2000 {
                publish(&publisher, "s", number).await.unwrap();
            }
            publisher.close(GRACE).await.unwrap();
            drop(publisher);
            messages.stop();
            let got = rest(messages).await;
            assert!(
                got.iter().cloned().eq((0..2000).map(|number| number.to_string())),
                "{version:?} {round}: {}",
                got.len()
            );
        }
    }
}

/// A connection is shared by its handles: closing one ends its subscriptions and requests alone; the last one
/// closes the connection, and no task is left.
#[tokio::test]
async fn the_last_handle_closes_the_connection() {
    let server = Nats::start(Version::Newer).await;
    let tasks = Handle::current().metrics().num_alive_tasks();
    let one = connect(&server);
    let other = one.handle();
    let mine = subscribe(&one, "s").await;
    let mut theirs = subscribe(&other, "s").await;
    let silent = subscribe(&other, "silent").await;
    let asks = one.request(Message::new(subject("silent"), "?"), GRACE);
    let closes = async {
        until("the request to wait", || one.waiting_requests() == 1).await;
        one.close(GRACE).await.unwrap();
    };
    let (asked, ()) = tokio::join!(asks, closes);
    assert_eq!(asked.unwrap_err().code(), "unavailable");
    assert_eq!(rest(mine).await, Vec::<String>::new());
    publish(&other, "s", "goes on").await.unwrap();
    assert_eq!(next(&mut theirs).await, "goes on");
    assert!(matches!(other.state(), ConnectionState::Connected { .. }));
    assert_eq!(publish(&one, "s", "closed").await.unwrap_err().code(), "unavailable");
    drop(silent);
    other.close(GRACE).await.unwrap();
    assert_eq!(other.state(), ConnectionState::Closed);
    assert_eq!(rest(theirs).await, Vec::<String>::new());
    until("all tasks to end", || Handle::current().metrics().num_alive_tasks() == tasks).await;
}

/// Handles that are dropped without closing leave no task either, connected or not.
#[tokio::test]
async fn dropping_leaves_no_task() {
    let mut server = Nats::start(Version::Newer).await;
    let tasks = Handle::current().metrics().num_alive_tasks();
    for is_up in [true, false] {
        if !is_up {
            server.kill();
        }
        let one = connect(&server);
        assert_eq!(one.flush().await.is_ok(), is_up);
        let messages = one.subscribe(slipring_core::Subscription::new(subject("s"))).await;
        drop((one.handle(), one));
        drop(messages);
        until("all tasks to end", || Handle::current().metrics().num_alive_tasks() == tasks).await;
    }
}

/// Closing ends in time, though the server is mute.
#[tokio::test]
async fn close_is_bounded() {
    const GRACE: Duration = Duration::from_millis(200);
    let server = Nats::start(Version::Newer).await;
    let proxy = Proxy::start(server.endpoint()).await;
    let broker = with(Config::new([proxy.endpoint()]));
    let messages = subscribe(&broker, "s").await;
    proxy.silence();
    let began = Instant::now();
    let error = within("the close", broker.close(GRACE)).await.unwrap_err();
    assert_eq!(error.code(), "deadline_exceeded");
    assert!(began.elapsed() >= GRACE);
    assert_eq!(rest(messages).await, Vec::<String>::new());
    assert_eq!(publish(&broker, "s", "x").await.unwrap_err().code(), "unavailable");
}

/// When the runtime that a connection lives in goes away, its streams end and its calls fail; nothing hangs.
#[test]
fn a_lost_runtime_is_no_hang() {
    let runtime =
        || tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (servers, lost, other) = (runtime(), runtime(), runtime());
    let server = servers.block_on(Nats::start(Version::Newer));
    let broker = connect(&server);
    let mut messages = lost.block_on(subscribe(&broker, "s"));
    drop(lost);
    other.block_on(async {
        let error = within("the end", messages.next()).await.unwrap().unwrap_err();
        assert_eq!(error.code(), "unavailable");
        assert_eq!(within("the end", messages.next()).await, None);
        let error = within("a refusal", publish(&broker, "s", "x")).await.unwrap_err();
        assert_eq!(error.code(), "unavailable");
        assert_eq!(broker.state(), ConnectionState::Closed);
    });
}

/// A client that is not ours finds the services of ours: `$SRV.PING`, `$SRV.INFO` and `$SRV.STATS` are answered.
#[tokio::test]
async fn other_clients_find_our_services() {
    use slipring_core::SystemEnvironment;
    use slipring_core::service::{ServiceName, ServiceSpec};
    for version in Version::ALL {
        let server = Nats::start(version).await;
        let broker = connect(&server);
        let spec = ServiceSpec::new(ServiceName::new("ours").unwrap(), "one");
        let service = broker.serve(std::sync::Arc::new(SystemEnvironment), spec).await.unwrap();
        let client = async_nats::connect(server.endpoint()).await.unwrap();
        for verb in ["PING", "INFO", "STATS"] {
            for scope in ["", ".ours"] {
                let reply =
                    within("an answer", client.request(format!("$SRV.{verb}{scope}"), "".into())).await;
                let said: serde_json::Value = serde_json::from_slice(&reply.unwrap().payload).unwrap();
                let kind = format!("io.nats.micro.v1.{}_response", verb.to_lowercase());
                assert_eq!((said["type"].as_str(), said["name"].as_str()), (Some(&*kind), Some("ours")));
            }
        }
        drop(service);
    }
}
