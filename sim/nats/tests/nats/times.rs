//! What takes its time, on a paused clock: questions, deadlines, clients that do not read; and that a seed decides
//! it all.

use std::time::Duration;

use slipring_core::TaskEnd;
use slipring_sim_nats::{Access, Options, Version};
use tokio::time::Instant;

use crate::exchange::shown;
use crate::pipe::Piped;

const QUIET: &str = "CONNECT {\"verbose\":false}\r\n";

fn options() -> Options {
    Options::new(Version::V2_15)
}

fn is_near(time: Duration, seconds: f64) -> bool {
    (seconds..seconds * 1.25).contains(&time.as_secs_f64())
}

/// A client is asked after 2 s to 2.4 s, as measured; answers keep it; two questions without an answer end it, with
/// the reason.
#[tokio::test(start_paused = true)]
async fn whoever_is_silent_is_asked_and_then_let_go() {
    let server = Piped::start(options(), 1);
    let mut client = server.client().await;
    client.say(QUIET).await;
    let began = Instant::now();
    assert_eq!(client.heard_until("\r\n").await, "PING\\r\\n");
    assert!(is_near(began.elapsed(), 2.0), "{:?}", began.elapsed());
    for _ in 0..5 {
        client.say("PONG\r\n").await;
        let asked = Instant::now();
        assert_eq!(client.heard_until("\r\n").await, "PING\\r\\n");
        assert!(asked.elapsed() >= options().ping_interval, "{:?}", asked.elapsed());
    }
    assert_eq!(client.heard_until("\r\n").await, "PING\\r\\n");
    assert_eq!(client.heard_until("<").await, "-ERR \\'Stale Connection\\'\\r\\n<closed>");
    assert!(server.nats.is_empty());
}

/// Whoever talks is not asked, but for the first time.
#[tokio::test(start_paused = true)]
async fn whoever_talks_is_not_asked() {
    let server = Piped::start(options().with_pings(Duration::from_secs(10), 2), 2);
    let mut client = server.client().await;
    client.say(QUIET).await;
    assert_eq!(client.heard_until("\r\n").await, "PING\\r\\n");
    for _ in 0..100 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        client.say("PUB a 0\r\n\r\n").await;
    }
    client.say("SUB a 1\r\nPUB a 0\r\n\r\n").await;
    assert_eq!(client.heard_until("MSG a 1 0\\r\\n".trim_end_matches("\\r\\n")).await, "MSG a 1 0");
}

/// Where it matters who is there, whoever does not say so is let go after two seconds; whoever does is not.
#[tokio::test(start_paused = true)]
async fn whoever_does_not_say_who_it_is_is_let_go() {
    let server = Piped::start(options().with_access(Access::Token("t".to_owned())), 3);
    let mut known = server.client().await;
    known.say("CONNECT {\"auth_token\":\"t\",\"verbose\":false}\r\n").await;
    let (mut client, began) = (server.client().await, Instant::now());
    assert_eq!(client.heard_until("<").await, "-ERR \\'Authentication Timeout\\'\\r\\n<closed>");
    assert!(is_near(began.elapsed(), 2.0), "{:?}", began.elapsed());
    assert_eq!(known.heard_until("\r\n").await, "PING\\r\\n");
}

/// Whoever does not read is let go: when too much waits for it, or when it took too long; others do not suffer, and
/// who sends is slowed down.
#[tokio::test(start_paused = true)]
async fn whoever_does_not_read_is_let_go() {
    const MESSAGES: usize = 100;
    let body = "x".repeat(10_000);
    for (pending_bytes_max, waits) in [(300_000, false), (64 << 20, true)] {
        let options = options().with_pending_bytes_max(pending_bytes_max);
        let (server, began) = (Piped::start(options, 4), Instant::now());
        let [mut deaf, mut other, mut sender] =
            [server.client().await, server.client().await, server.client().await];
        for client in [&mut deaf, &mut other] {
            client.say(format!("{QUIET}SUB a 1\r\nPING\r\n")).await;
            client.heard_until("PONG\r\n").await;
        }
        let sends = async {
            sender.say(QUIET).await;
            for _ in 0..MESSAGES {
                sender.say(format!("PUB a 10000\r\n{body}\r\n")).await;
            }
            sender.say("PING\r\n").await;
            sender.heard_until("PONG\r\n").await
        };
        let reads = async {
            for _ in 0..MESSAGES {
                assert_eq!(other.heard_until("\r\n").await, "MSG a 1 10000\\r\\n");
                other.heard_until("\r\n").await;
            }
        };
        assert_eq!(tokio::join!(sends, reads).0, "PONG\\r\\n");
        while server.nats.connections() > 2 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let took = began.elapsed();
        // A client that reads loses nothing, whatever becomes of the deaf one.
        assert_eq!(took >= Duration::from_secs(10), waits, "{took:?}");
        let got = deaf.count().await;
        assert!(got < 100_000, "{got} bytes had come before");
        assert!(server.nats.connections() == 2 && server.nats.subscriptions() == 1);
    }
}

/// One connection more than is allowed is refused with the reason; when another one ends there is room again.
#[tokio::test(start_paused = true)]
async fn there_is_a_limit_to_connections() {
    let server = Piped::start(options().with_connections_max(2), 5);
    let (one, _other) = (server.client().await, server.client().await);
    let refused = server.connect().await.heard_until("<").await;
    assert_eq!(refused, "-ERR \\'maximum connections exceeded\\'\\r\\n<closed>");
    drop(one);
    while server.nats.connections() > 1 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(server.client().await.heard_until("\r\n").await.starts_with("PING"), "nobody is refused");
}

/// While it stands still nothing is said and nobody is let go, however long; then it goes on where it was, and also
/// with whoever came meanwhile.
#[tokio::test(start_paused = true)]
async fn a_pause_is_silence() {
    let server = Piped::start(options(), 6);
    let mut client = server.client().await;
    client.say(format!("{QUIET}SUB a 1\r\nPING\r\n")).await;
    client.heard_until("PONG\r\n").await;
    server.nats.pause();
    client.say("PUB a 1\r\nx\r\n").await;
    let mut late = server.connect().await;
    let hour = Duration::from_secs(3600);
    let silent = async { tokio::join!(client.heard_until("\r\n"), late.heard_until("\r\n")) };
    assert!(tokio::time::timeout(hour, silent).await.is_err(), "something was said");
    assert_eq!(server.nats.connections(), 1);
    server.nats.resume();
    let heard = client.heard_until("\r\nx\r\n").await;
    assert!(heard.ends_with("MSG a 1 1\\r\\nx\\r\\n"), "{heard}");
    assert!(late.heard_until("\r\n").await.starts_with("INFO "), "whoever waited is greeted");
}

/// All connections end at once, and the next ones are good; when the server is dropped, nothing of anybody is kept.
#[tokio::test(start_paused = true)]
async fn a_cut_ends_all_and_the_end_of_the_server_too() {
    let mut server = Piped::start(options(), 7);
    for _ in 0..3 {
        let mut clients = Vec::new();
        for number in 0..5 {
            let mut client = server.client().await;
            client.say(format!("{QUIET}SUB a.{number} q 1\r\nUNSUB 1 5\r\nSUB > 2\r\nPING\r\n")).await;
            client.heard_until("PONG\r\n").await;
            clients.push(client);
        }
        assert_eq!((server.nats.connections(), server.nats.subscriptions()), (5, 10));
        server.nats.cut().await;
        assert!(server.nats.is_empty());
        for client in &mut clients {
            assert_eq!(client.heard_until("<").await, "<closed>");
        }
    }
    let mut client = server.client().await;
    server.serving.abort();
    assert_eq!(server.serving.end().await, TaskEnd::Aborted);
    server.nats.cut().await;
    assert!(server.nats.is_empty());
    assert_eq!(client.heard_until("<").await, "<closed>");
}

/// The same seed gives the same bytes, another one others.
#[tokio::test(start_paused = true)]
async fn a_seed_decides_what_happens() {
    let run = async |seed: u64| {
        let server = Piped::start(options(), seed);
        let mut client = server.connect().await;
        let mut heard = client.heard_until("\r\n").await;
        client.say(QUIET).await;
        for sid in 0..5 {
            client.say(format!("SUB a q {sid}\r\n")).await;
        }
        client.say("PUB a 0\r\n\r\n".repeat(40)).await;
        heard += &client.heard_until("PING\r\n").await;
        heard
    };
    let runs = [run(1).await, run(1).await, run(2).await];
    assert_eq!(runs[0], runs[1]);
    assert_ne!(runs[0], runs[2]);
    let members = (0..5).filter(|sid| runs[0].contains(&format!("MSG a {sid} 0")));
    assert_eq!(members.count(), 5, "{}", shown(runs[0].as_bytes()));
}
