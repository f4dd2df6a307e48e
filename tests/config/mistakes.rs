use std::time::Duration;

use slipring_servers::{Etcd, Nats, NatsOptions, Version, free_ports};
use tokio::time::Instant;

use crate::refused;

/// Options that no adapter knows, values that are none, a secret that is not where it should be: each is
/// named, and nothing is dialled.
#[tokio::test]
async fn options_are_checked_before_anything_is_dialled() {
    for (discovery, messaging, words) in [
        ("etcd://a?tttl=1s", "memory:", "unknown option \"tttl\"; allowed: "),
        ("etcd://a?ttl=1", "memory:", "ttl=\"1\" is no duration"),
        ("etcd://a?call_timeout=soon", "memory:", "call_timeout=\"soon\" is no duration"),
        ("etcd://me@a?password_file=/no/such/file", "memory:", "invalid secret file \"/no/such/file\""),
        (
            "etcd://me@a?password_env=NO_SUCH_VARIABLE",
            "memory:",
            "invalid secret variable \"NO_SUCH_VARIABLE\"",
        ),
        ("etcd://", "memory:", "none is given"),
        ("memory:", "nats://a?ttl=1s", "unknown option \"ttl\"; allowed: "),
        ("memory:", "nats://a?startup_timeout=1", "startup_timeout=\"1\" is no duration"),
        ("memory:", "nats://me@a?password_file=/no/such/file", "invalid secret file \"/no/such/file\""),
        ("memory:", "nats://", "there is none; allowed: host:port"),
    ] {
        let error = refused(discovery, messaging).await;
        let text = error.to_string();
        assert!(error.code() == "invalid" && text.contains(words), "{discovery} {messaging}: {text}");
    }
}

/// A server that cannot be reached is named, after the time in which it might have come.
#[tokio::test]
async fn a_server_that_is_not_there_is_named() {
    let [port] = free_ports();
    let server = format!("127.0.0.1:{port}");
    for (discovery, messaging) in [
        (format!("etcd://{server}?startup_timeout=300ms"), "memory:".to_owned()),
        ("memory:".to_owned(), format!("nats://{server}?startup_timeout=300ms")),
    ] {
        let began = Instant::now();
        let error = refused(&discovery, &messaging).await;
        assert!(began.elapsed() >= Duration::from_millis(300), "{error}");
        assert!(error.code() == "unavailable" && error.to_string().contains(&server), "{error}");
    }
}

/// Wrong credentials are told at once, not after the time in which a server might have come.
#[tokio::test]
async fn wrong_credentials_are_told_at_once() {
    for version in Version::ALL {
        let etcd = Etcd::start(version).await;
        crate::etcdctl(version, &etcd, "user add root:right; user grant-role root root; auth enable");
        let mut options = NatsOptions::default();
        options.configuration = "authorization { user: root, password: right }".to_owned();
        let nats = Nats::start_with(version, options).await;
        for who in ["", "root:wrong@", "nobody:right@"] {
            let began = Instant::now();
            let error = refused(&format!("etcd://{who}{}", etcd.endpoint()), "memory:").await;
            assert_eq!(error.code(), "unauthorized", "{version:?} {who}: {error}");
            let error = refused("memory:", &format!("nats://{who}{}", nats.endpoint())).await;
            assert_eq!(error.code(), "unauthorized", "{version:?} {who}: {error}");
            assert!(began.elapsed() < Duration::from_secs(30), "it waited");
        }
        let (etcd, nats) = (etcd.endpoint(), nats.endpoint());
        let (etcd, nats) = (format!("etcd://root:right@{etcd}"), format!("nats://root:right@{nats}"));
        assert!(crate::runtime(&etcd, &nats).await.unwrap().stop().await.is_clean());
    }
}
