//! The first connection.

use std::time::Duration;

use slipring_core::{Effect, Messaging};
use slipring_nats::Config;
use slipring_servers::{Nats, Version, free_ports};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio::time::Instant;

use crate::world::{connect, publish, with, within};

/// Started before its server: asking what it can do waits until the server is there.
#[tokio::test]
async fn capabilities_wait_for_the_server() {
    let mut server = Nats::start(Version::Newer).await;
    server.kill();
    let broker = connect(&server);
    let waits = broker.capabilities();
    let starts = async {
        let failed = |state: &slipring_nats::ConnectionState| {
            matches!(state, slipring_nats::ConnectionState::Disconnected { attempts: 2.., .. })
        };
        within("two attempts", broker.wait_for(failed)).await;
        server.restart().await.unwrap();
    };
    let (can, ()) = tokio::join!(waits, starts);
    assert!(can.unwrap().no_responders);
    publish(&broker, "s", "x").await.unwrap();
}

/// The wait has a bound, and the error says how long it was, for whom, and why. Other calls do not wait so long.
#[tokio::test]
async fn the_wait_is_bounded() {
    const BOUND: Duration = Duration::from_millis(400);
    let [port] = free_ports();
    let server = format!("127.0.0.1:{port}");
    let broker = with(Config::new([&server]).with_startup_timeout(BOUND));
    let began = Instant::now();
    let error = within("the bound", broker.capabilities()).await.unwrap_err();
    assert!(began.elapsed() >= BOUND, "{:?}", began.elapsed());
    assert_eq!((error.code(), error.effect()), ("unavailable", Effect::None));
    let shown = error.to_string();
    assert!(shown.contains("400ms") && shown.contains(&server) && shown.contains("refused"), "{shown}");
    let error = within("the refusal", publish(&broker, "s", "x")).await.unwrap_err();
    assert_eq!((error.code(), error.effect()), ("unavailable", Effect::None));
}

/// A server that talks like NATS but is too old, or has no headers, is told apart from one that is not there.
#[tokio::test]
async fn an_old_server_is_unsupported() {
    for (info, words) in [
        (r#"{"version":"2.8.4","headers":true,"max_payload":1048576}"#, ["2.8.4", "2.9 or newer"]),
        (r#"{"version":"1.4.1","max_payload":1048576}"#, ["1.4.1", "2.9 or newer"]),
        (r#"{"version":"2.9.0","headers":false,"max_payload":1048576}"#, ["2.9.0", "no_header_support"]),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let broker = with(Config::new([listener.local_addr().unwrap().to_string()]));
        let fake = async {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (read, mut write) = stream.into_split();
                write.write_all(format!("INFO {info}\r\n").as_bytes()).await.unwrap();
                let mut lines = BufReader::new(read).lines();
                while let Ok(Some(line)) = lines.next_line().await {
                    if line == "PING" {
                        write.write_all(b"PONG\r\n").await.unwrap();
                    }
                }
            }
        };
        let error = tokio::select! {
            biased;
            () = fake => unreachable!(),
            can = within("the refusal", broker.capabilities()) => can.unwrap_err(),
        };
        assert_eq!(error.code(), "unsupported");
        for words in words {
            assert!(error.to_string().contains(words), "{error}");
        }
    }
}

/// What accepts connections and says nothing, or something else, is not waited for longer than the bound.
#[tokio::test]
async fn no_nats_is_unavailable() {
    for greeting in ["", "HTTP/1.1 400 Bad Request\r\n\r\n"] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let config = Config::new([listener.local_addr().unwrap().to_string()])
            .with_connection_timeout(Duration::from_millis(200))
            .with_startup_timeout(Duration::from_millis(500));
        let broker = with(config);
        let fake = async {
            let mut open = Vec::new();
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                stream.write_all(greeting.as_bytes()).await.unwrap();
                open.push(stream);
            }
        };
        let error = tokio::select! {
            biased;
            () = fake => unreachable!(),
            can = within("the refusal", broker.capabilities()) => can.unwrap_err(),
        };
        assert_eq!((error.code(), error.effect()), ("unavailable", Effect::None), "{error}");
    }
}
