//! Who we are: every kind of credentials, right and wrong, and that none of them is seen.

use std::fmt::{self, Write};
use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use nkeys::KeyPair;
use serde_json::{Value, json};
use slipring_core::{Messaging, Secret};
use slipring_nats::{Config, Credentials};
use slipring_servers::{Nats, Version};
use tracing::field::{Field, Visit};
use tracing::span;

use crate::world::{configured, publish, with, within};

/// Right credentials are let in; wrong ones, and none, are refused at once, and no secret is in the error.
async fn check(server: &Nats, right: Credentials, wrong: Credentials, secrets: &[&str]) {
    let broker = with(Config::new([server.endpoint()]).with_credentials(right));
    within("the server", broker.capabilities()).await.unwrap();
    publish(&broker, "s", "x").await.unwrap();
    broker.flush().await.unwrap();
    for other in [wrong, Credentials::None] {
        let broker = with(Config::new([server.endpoint()]).with_credentials(other));
        let error = within("the refusal", broker.capabilities()).await.unwrap_err();
        let shown = format!("{error} {error:?} {broker:?} {:?}", broker.state());
        assert_eq!(error.code(), "unauthorized", "{shown}");
        assert!(secrets.iter().all(|secret| !shown.contains(secret)), "{shown}");
    }
}

fn password(user: &str, password: &str) -> Credentials {
    Credentials::Password { user: user.to_owned(), password: Secret::new(password) }
}

/// A user with a password.
#[tokio::test]
async fn user_and_password() {
    for version in Version::ALL {
        let server = configured(version, "authorization { user: me, password: hunter2 }".to_owned()).await;
        check(&server, password("me", "hunter2"), password("me", "hunter3"), &["hunter2", "hunter3"]).await;
    }
}

/// A token.
#[tokio::test]
async fn token() {
    for version in Version::ALL {
        let server = configured(version, "authorization { token: hunter2 }".to_owned()).await;
        let token = |text: &str| Credentials::Token(Secret::new(text));
        check(&server, token("hunter2"), token("hunter3"), &["hunter2", "hunter3"]).await;
    }
}

/// A key pair that the server knows: it signs, and the seed never leaves.
#[tokio::test]
async fn nkey() {
    for version in Version::ALL {
        let (right, wrong) = (KeyPair::new_user(), KeyPair::new_user());
        let configuration = format!("authorization {{ users = [{{ nkey: {} }}] }}", right.public_key());
        let server = configured(version, configuration).await;
        let seeds = [right, wrong].map(|pair| pair.seed().unwrap());
        let [right, wrong] = [0, 1].map(|index: usize| Credentials::Nkey(Secret::new(&*seeds[index])));
        check(&server, right, wrong, &[&seeds[0], &seeds[1]]).await;
    }
}

/// A seed that is none is a mistake in the configuration, told at once and without showing it.
#[tokio::test]
async fn a_bad_seed_is_invalid() {
    let server = configured(Version::Newer, "authorization { user: me, password: hunter2 }".to_owned()).await;
    let config = Config::new([server.endpoint()]).with_credentials(Credentials::Nkey(Secret::new("hunter2")));
    let error = within("the refusal", with(config).capabilities()).await.unwrap_err();
    assert_eq!(error.code(), "invalid");
    assert!(error.to_string().contains("seed") && !error.to_string().contains("hunter2"), "{error}");
}

/// A credentials file: a JWT that the account has signed, and the user's seed.
#[tokio::test]
async fn credentials_file() {
    for version in Version::ALL {
        let (operator, account) = (KeyPair::new_operator(), KeyPair::new_account());
        let (user, stranger) = (KeyPair::new_user(), KeyPair::new_user());
        let of_operator = jwt(&operator, &operator, json!({"type": "operator", "version": 2}));
        let limits = json!({"subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1,
            "wildcards": true, "conn": -1, "leaf": -1});
        let of_account = jwt(&operator, &account, json!({"type": "account", "version": 2, "limits": limits}));
        let of_user = jwt(
            &account,
            &user,
            json!({"type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1}),
        );
        let configuration = format!(
            "operator: {of_operator}\nresolver: MEMORY\nresolver_preload {{ {}: {of_account} }}",
            account.public_key()
        );
        let server = configured(version, configuration).await;
        let seeds = [&user, &stranger].map(|pair| pair.seed().unwrap());
        let [right, wrong] = [0, 1].map(|index: usize| {
            let content = format!(
                "-----BEGIN NATS USER JWT-----\n{of_user}\n------END NATS USER JWT------\n\n\
                 -----BEGIN USER NKEY SEED-----\n{}\n------END USER NKEY SEED------\n",
                seeds[index]
            );
            let file = std::env::temp_dir().join(format!("slipring-creds-{}-{index}", std::process::id()));
            std::fs::write(&file, content).unwrap();
            let address = format!("nats://h?credentials_file={}", file.display()).parse().unwrap();
            let read = Config::from_address(&address).unwrap().credentials;
            std::fs::remove_file(&file).unwrap();
            read
        });
        check(&server, right, wrong, &[&seeds[0], &seeds[1], &of_user]).await;
    }
}

/// A JWT about `subject`, signed by `issuer`.
fn jwt(issuer: &KeyPair, subject: &KeyPair, nats: Value) -> String {
    let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let claims = json!({"jti": "test", "iat": 1_700_000_000, "iss": issuer.public_key(), "name": "test",
        "sub": subject.public_key(), "nats": nats});
    let signed = format!("{}.{}", part(json!({"typ": "JWT", "alg": "ed25519-nkey"})), part(claims));
    let signature = URL_SAFE_NO_PAD.encode(issuer.sign(signed.as_bytes()).unwrap());
    format!("{signed}.{signature}")
}

/// No log line holds a secret, ours or the client library's, at any level.
#[tokio::test]
async fn logs_hold_no_secret() {
    let log = Log::default();
    let _guard = tracing::subscriber::set_default(log.clone());
    let seed = KeyPair::new_user().seed().unwrap();
    let server = configured(Version::Newer, "authorization { user: me, password: hunter2 }".to_owned()).await;
    for credentials in [
        password("me", "hunter2"),
        password("me", "hunter3"),
        Credentials::Token(Secret::new("hunter4")),
        Credentials::Nkey(Secret::new(&*seed)),
        Credentials::Nkey(Secret::new("hunter5")),
    ] {
        let broker = with(Config::new([server.endpoint()]).with_credentials(credentials));
        let _ = within("an answer", broker.capabilities()).await;
    }
    let text = log.0.lock().unwrap();
    assert!(text.contains("write operation: CONNECT"), "the client library's finest lines are not there");
    assert!(!text.contains("hunter") && !text.contains(&seed), "{text}");
}

/// Collects everything that is logged on this thread.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<String>>);

impl tracing::Subscriber for Log {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, attributes: &span::Attributes<'_>) -> span::Id {
        attributes.record(&mut Line(&mut self.0.lock().unwrap()));
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, values: &span::Record<'_>) {
        values.record(&mut Line(&mut self.0.lock().unwrap()));
    }

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let mut text = self.0.lock().unwrap();
        event.record(&mut Line(&mut text));
        text.push('\n');
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

struct Line<'a>(&'a mut String);

impl Visit for Line<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        write!(self.0, "{}={value:?} ", field.name()).unwrap();
    }
}
