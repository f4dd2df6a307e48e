//! A client that does not read, on real servers and simulated ones.

use std::time::Duration;

use slipring_sim_nats::{Options, Version};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::honesty::real;
use crate::loopback::Loopback;

const MESSAGE_BYTES: usize = 1 << 20;
/// More than waits for a client anywhere, and more than fits between two sockets.
const MESSAGES_MAX: usize = 1000;
/// How long it may take until a server has had enough; real ones wait for ten seconds.
const ENOUGH_MAX: Duration = Duration::from_secs(60);

async fn client(endpoint: &str, says: &str) -> TcpStream {
    let mut stream = TcpStream::connect(endpoint).await.unwrap();
    let hello = "CONNECT {\"verbose\":false,\"headers\":true,\"no_responders\":true}\r\n";
    stream.write_all(format!("{hello}{says}PING\r\n").as_bytes()).await.unwrap();
    heard(&mut stream).await;
    stream
}

/// All that comes up to the answer to a question.
async fn heard(stream: &mut TcpStream) -> String {
    let mut heard = Vec::new();
    while !heard.ends_with(b"PONG\r\n") {
        assert!(stream.read_buf(&mut heard).await.unwrap() > 0, "closed after {}", heard.escape_ascii());
    }
    String::from_utf8(heard).unwrap()
}

/// Sends to a client that does not read until nobody is there any more. Returns how much that one got.
async fn deafen(endpoint: &str) -> usize {
    let mut deaf = client(endpoint, "SUB deaf 1\r\n").await;
    let mut sender = client(endpoint, "SUB inbox 1\r\n").await;
    let message = [
        format!("PUB deaf inbox {MESSAGE_BYTES}\r\n").as_bytes(),
        &vec![b'x'; MESSAGE_BYTES],
        b"\r\nPING\r\n",
    ]
    .concat();
    let mut sent = 0;
    loop {
        sender.write_all(&message).await.unwrap();
        if heard(&mut sender).await.contains("NATS/1.0 503") {
            break;
        }
        sent += 1;
        assert!(sent < MESSAGES_MAX, "the server takes everything");
    }
    // It gets what was on its way, and no word of why it ends.
    let mut got = Vec::new();
    let _ = deaf.read_to_end(&mut got).await;
    assert!(!got.windows(4).any(|window| window == b"-ERR"), "a reason is told");
    assert!(got.len() < sent * MESSAGE_BYTES, "nothing is lost");
    got.len()
}

/// Whoever does not read is let go without a word, with no more than what is on its way; its subscription goes too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_does_not_read_is_let_go_as_by_real_ones() {
    for version in Version::ALL {
        let real = real(version, &[]).await;
        let simulated = Loopback::start(Options::new(version)).await;
        let (one, other) = (real.endpoint(), simulated.endpoint());
        let both = async { tokio::join!(deafen(&one), deafen(&other)) };
        let (one, other) = timeout(ENOUGH_MAX, both).await.expect("the servers have enough in time");
        println!("{version:?}: {one} bytes from the real one, {other} from the simulated one");
        for got in [one, other] {
            assert!((MESSAGE_BYTES / 64..MESSAGE_BYTES * 32).contains(&got), "{got}");
        }
    }
}
