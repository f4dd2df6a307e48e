//! What the server does not permit.

use std::time::Duration;

use futures_util::StreamExt;
use slipring_core::{Effect, Message, Messaging, Pattern, QueueGroup, Subscription};
use slipring_nats::{Config, ConnectionState, NatsMessaging};
use slipring_servers::{Nats, NatsOptions, Version};

use crate::world::{configured, next, publish, subject, with, within};

async fn server(version: Version, permissions: &str) -> Nats {
    let configuration =
        format!("authorization {{ users = [{{ user: u, password: p, permissions: {{ {permissions} }} }}] }}");
    configured(version, configuration).await
}

fn user(server: &Nats) -> NatsMessaging {
    let address = format!("nats://u:p@{}", server.endpoint()).parse().unwrap();
    with(Config::from_address(&address).unwrap())
}

async fn forbidden_subscriptions_are_refused() {
    for version in Version::ALL {
        let server = server(version, "publish: \">\", subscribe: { deny: [\"no.>\", \"half group\"] }").await;
        let broker = user(&server);
        let mut late = 0;
        for round in 0..200 {
            for subscription in [
                Subscription::new(subject("no.thing")),
                Subscription::new(Pattern::new("no.>").unwrap()),
                Subscription::new(subject("no.thing")).with_queue(QueueGroup::new("q").unwrap()),
            ] {
                let error = match within("a refusal", broker.subscribe(subscription)).await {
                    Err(error) => error,
                    Ok(mut messages) => {
                        late += 1;
                        within("a refusal", messages.next()).await.expect("it is told").unwrap_err()
                    }
                };
                assert_eq!((error.code(), error.effect()), ("unauthorized", Effect::None), "round {round}");
                assert!(error.to_string().contains("no."), "{error}");
            }
        }
        eprintln!("{version:?}: {late} of 600 refusals were told by the stream");
        assert!(late < 60, "{late} of 600");
        assert_eq!(broker.subscriptions(), 0);
        let mut allowed = broker.subscribe(Subscription::new(subject("yes"))).await.unwrap();
        publish(&broker, "yes", "1").await.unwrap();
        assert_eq!(next(&mut allowed).await, "1");
    }
}

/// A subscription that is not permitted is an error, not silence, every time: of `subscribe`, or rarely the first
/// item of the stream. (A NATS client hangs.)
#[tokio::test]
async fn forbidden_subscriptions_are_refused_on_one_thread() {
    forbidden_subscriptions_are_refused().await;
}

/// The same where the client library's tasks run beside ours.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn forbidden_subscriptions_are_refused_on_several_threads() {
    forbidden_subscriptions_are_refused().await;
}

/// A group that is not permitted is refused, and a plain subscription to the same subject lives on.
#[tokio::test]
async fn a_forbidden_group_harms_no_other() {
    for version in Version::ALL {
        let server = server(
            version,
            "publish: \">\", subscribe: { allow: [\"_INBOX.>\", \"s\", \"s good\"], deny: [\"s bad\"] }",
        )
        .await;
        let broker = user(&server);
        let mut plain = broker.subscribe(Subscription::new(subject("s"))).await.unwrap();
        let bad = Subscription::new(subject("s")).with_queue(QueueGroup::new("bad").unwrap());
        let error = within("a refusal", broker.subscribe(bad)).await.unwrap_err();
        assert_eq!(error.code(), "unauthorized");
        publish(&broker, "s", "1").await.unwrap();
        assert_eq!(next(&mut plain).await, "1", "{version:?}");
    }
}

/// A request to a subject that is not permitted is refused at once, with nothing executed.
#[tokio::test]
async fn forbidden_requests_are_refused() {
    for version in Version::ALL {
        let server = server(version, "publish: { deny: \"no\" }, subscribe: \">\"").await;
        let broker = user(&server);
        let asked = broker.request(Message::new(subject("no"), ""), Duration::from_secs(600));
        let error = within("a refusal", asked).await.unwrap_err();
        assert_eq!((error.code(), error.effect()), ("unauthorized", Effect::None));
        assert!(error.to_string().contains("\"no\""), "{error}");
    }
}

/// Without an inbox nothing works, and that is said at once: in which direction, and for which subject.
#[tokio::test]
async fn a_forbidden_inbox_is_told() {
    for version in Version::ALL {
        for (permissions, words) in [
            ("publish: \">\", subscribe: \"s\"", "Subscription to \"_INBOX."),
            ("publish: \"s\", subscribe: \">\"", "Publish to \"_INBOX."),
        ] {
            let server = server(version, permissions).await;
            let error = within("a refusal", user(&server).capabilities()).await.unwrap_err();
            assert_eq!(error.code(), "unauthorized");
            assert!(error.to_string().contains(words), "{error}");
        }
    }
}

/// A deployment of its own needs its own prefix, and no more than that.
#[tokio::test]
async fn an_inbox_prefix_is_enough() {
    for version in Version::ALL {
        let server = server(version, "publish: [\"mine.>\"], subscribe: [\"mine.>\"]").await;
        let address = format!("nats://u:p@{}?inbox_prefix=mine.inbox", server.endpoint()).parse().unwrap();
        let broker = with(Config::from_address(&address).unwrap());
        let mut messages = broker.subscribe(Subscription::new(subject("mine.s"))).await.unwrap();
        publish(&broker, "mine.s", "1").await.unwrap();
        assert_eq!(next(&mut messages).await, "1");
        let asked = broker.request(Message::new(subject("mine.nobody"), ""), Duration::from_secs(10)).await;
        assert_eq!(asked.unwrap_err().code(), "no_responders");
    }
}

/// A permission that is taken away while we are connected ends the subscription with that error.
#[tokio::test]
async fn a_permission_that_is_taken_away_ends_the_stream() {
    // The server reloads its configuration by closing the connection; the new one is refused the subscription.
    let config = |subscribe: &str| {
        format!(
            "authorization {{ users = [{{ user: u, password: p, permissions: {{ publish: \">\", subscribe: [{subscribe}] }} }}] }}"
        )
    };
    let directory = std::env::temp_dir().join(format!("slipring-nats-permissions-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let file = directory.join("nats.conf");
    std::fs::write(&file, config("\"_INBOX.>\", \"s\"")).unwrap();
    let arguments = ["-c".to_owned(), file.display().to_string()].to_vec();
    let mut options = NatsOptions::default();
    options.arguments = arguments;
    let mut server = Nats::start_with(Version::Newer, options).await;
    let broker = user(&server);
    let mut messages = broker.subscribe(Subscription::new(subject("s"))).await.unwrap();
    std::fs::write(&file, config("\"_INBOX.>\"")).unwrap();
    server.kill();
    server.restart().await.unwrap();
    let error = within("the refusal", async {
        loop {
            match messages.next().await.expect("an error comes first") {
                Err(error) if error.code() == "lagged" => {}
                other => return other.unwrap_err(),
            }
        }
    });
    assert_eq!(error.await.code(), "unauthorized");
    assert_eq!(within("the end", messages.next()).await, None);
    within("the connection", broker.wait_for(|state| matches!(state, ConnectionState::Connected { .. })))
        .await;
    std::fs::remove_dir_all(&directory).unwrap();
}
