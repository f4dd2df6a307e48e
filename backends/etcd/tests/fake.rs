//! Servers that cannot be had: of the wrong age, or with an answer of their own to everything.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use etcd_client::Channel;
use http_body_util::{BodyExt, Full};
use slipring_core::{
    Bytes, Discovery, DiscoveryExt, Effect, EnvironmentExt, Key, LeaseId, Range, SystemEnvironment,
};
use slipring_etcd::{Config, EtcdDiscovery};
use tower::util::BoxCloneSyncService;

type Request = http::Request<tonic::body::Body>;
type Answer = http::Response<tonic::body::Body>;

/// A handle on a server that answers each call as `answer` says, by the call's path.
fn handle(answer: impl Fn(&str) -> Answer + Clone + Send + Sync + 'static) -> EtcdDiscovery {
    let service = tower::service_fn(move |request: Request| {
        let answer = answer(request.uri().path());
        async move {
            // A server reads what it is sent for as long as something is sent.
            let reading = async move { drop(request.into_body().collect().await) };
            SystemEnvironment::new().start("request", reading).detach();
            Ok::<_, tower::BoxError>(answer)
        }
    });
    let config = Config::new(["fake:1"]).with_startup_timeout(Duration::from_secs(1));
    let channel = Channel::Custom(BoxCloneSyncService::new(service));
    EtcdDiscovery::with_channel(config, Arc::new(SystemEnvironment::new()), channel).unwrap()
}

/// A message, as gRPC sends one.
fn message(bytes: &[u8]) -> Answer {
    messages(&[bytes])
}

/// A stream of messages that ends.
fn messages(all: &[&[u8]]) -> Answer {
    let mut framed = Vec::new();
    for bytes in all {
        framed.push(0);
        framed.extend(u32::try_from(bytes.len()).unwrap().to_be_bytes());
        framed.extend(*bytes);
    }
    let done = http::HeaderMap::from_iter([(http::HeaderName::from_static("grpc-status"), 0.into())]);
    let body = Full::new(Bytes::from(framed)).with_trailers(std::future::ready(Some(Ok(done))));
    let body = tonic::body::Body::new(body);
    http::Response::builder().header("content-type", "application/grpc").body(body).unwrap()
}

/// An error, as gRPC sends one.
fn refusal(code: i32, words: &str) -> Answer {
    let answer = http::Response::builder().header("content-type", "application/grpc");
    let answer = answer.header("grpc-status", code).header("grpc-message", words);
    answer.body(tonic::body::Body::empty()).unwrap()
}

/// What a server of this version says about itself: the field 2 of its status.
fn status(version: &str) -> Answer {
    message(&[&[0x12, u8::try_from(version.len()).unwrap()], version.as_bytes()].concat())
}

/// A server older than 3.4, or one that does not say how old it is, is refused at once, with what to do; a
/// newer one than any we know is not.
#[tokio::test]
async fn the_version_is_checked() {
    for old in ["3.3.27", "2.3.8", "3", "", "three.four"] {
        let error = handle(move |_| status(old)).capabilities().await.unwrap_err();
        assert_eq!(error.code(), "unsupported");
        let text = error.to_string();
        assert!(text.contains(&format!("{old:?}")) && text.contains("3.4 or newer: upgrade"), "{text}");
    }
    for new in ["3.4.0", "3.4.0-rc.1", "3.10.1", "4.0.0"] {
        let serves = move |path: &str| if path.ends_with("Status") { status(new) } else { message(&[]) };
        handle(serves).capabilities().await.unwrap();
    }
}

/// What a server says with an error is its kind and its effect: a write is of unknown effect unless the
/// server says that it was refused, and a read never is.
#[tokio::test]
async fn errors_have_a_kind_and_an_effect() {
    for (code, words, kind, written) in [
        (14, "etcdserver: request timed out", "unavailable", Effect::Unknown),
        (14, "etcdserver: no leader", "unavailable", Effect::Unknown),
        (14, "etcdserver: leader changed", "unavailable", Effect::Unknown),
        (2, "context deadline exceeded", "unavailable", Effect::Unknown),
        (13, "anything else", "unavailable", Effect::Unknown),
        (1, "h2 protocol error", "unavailable", Effect::Unknown),
        (8, "etcdserver: too many requests", "overloaded", Effect::None),
        (8, "etcdserver: mvcc: database space exceeded", "unavailable", Effect::None),
        (7, "etcdserver: permission denied", "unauthorized", Effect::None),
        (16, "etcdserver: invalid auth token", "unauthorized", Effect::None),
        (3, "etcdserver: authentication failed, invalid user ID or password", "unauthorized", Effect::None),
        (3, "etcdserver: too many operations in txn request", "unsupported", Effect::None),
        (3, "etcdserver: request is too large", "unsupported", Effect::None),
        (3, "etcdserver: something else is wrong", "invalid", Effect::None),
        (12, "unknown method", "unsupported", Effect::None),
    ] {
        let store = handle(move |_| refusal(code, words));
        let key = Key::new("k").unwrap();
        let write = store.put(key, Bytes::new(), None).await.unwrap_err();
        assert_eq!((write.code(), write.effect()), (kind, written), "{words}: {write}");
        let read = store.read(Range::All).await.unwrap_err();
        assert_eq!((read.code(), read.effect()), (kind, Effect::None), "{words}: {read}");
    }
}

/// A lease id that is taken is drawn anew, a few times and not for ever.
#[tokio::test]
async fn l9_a_taken_id_is_drawn_anew() {
    let asked = Arc::new(AtomicUsize::new(0));
    for (taken, granted) in [(3, true), (usize::MAX, false)] {
        asked.store(0, Ordering::Relaxed);
        let counted = asked.clone();
        let store = handle(move |_| match counted.fetch_add(1, Ordering::Relaxed) {
            // The field 3 of the answer is the time to live.
            number if number >= taken => message(&[0x18, 9]),
            _ => refusal(9, "etcdserver: lease already exists"),
        });
        let lease = store.grant(Duration::from_secs(5)).await;
        assert_eq!(lease.is_ok(), granted, "{lease:?}");
        if let Ok(lease) = lease {
            assert_eq!(lease.ttl, Duration::from_secs(9), "the answer says how long it lives");
        }
        assert!(asked.load(Ordering::Relaxed) <= 8);
    }
}

/// A time to live of 0, which is no error to etcd, is a lost lease, also when the answer before said that
/// it lives; and a heartbeat that is answered by nothing but the end of its stream claims neither.
#[tokio::test]
async fn a_time_to_live_of_0_is_a_lost_lease() {
    // The fields 2 and 3 of an answer are the lease and its time to live. The client takes the first for itself.
    const LIVES: &[u8] = &[0x10, 7, 0x18, 9];
    const LOST: &[u8] = &[0x10, 7, 0x18, 0];
    let beat =
        async |answers: &'static [&[u8]]| handle(move |_| messages(answers)).keep_alive(LeaseId(7)).await;
    assert_eq!(beat(&[LIVES, LIVES]).await.unwrap(), Duration::from_secs(9));
    assert_eq!(beat(&[LOST]).await.unwrap_err().code(), "lease_lost");
    assert_eq!(beat(&[LIVES, LOST]).await.unwrap_err().code(), "lease_lost");
    assert_eq!(beat(&[LIVES]).await.unwrap_err().code(), "unavailable");
}

/// A history that is always compacted before it can be read is given up, not read for ever.
#[tokio::test]
async fn reading_anew_is_bounded() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    let store = handle(move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
        refusal(11, "etcdserver: mvcc: required revision has been compacted")
    });
    assert_eq!(store.read(Range::All).await.unwrap_err().code(), "unavailable");
    assert_eq!(asked.load(Ordering::Relaxed), 5);
}
