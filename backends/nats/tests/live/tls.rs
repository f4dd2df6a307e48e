//! TLS, with certificates of our own.

use std::path::{Path, PathBuf};

use async_nats::rustls::crypto::CryptoProvider;
use rcgen::{BasicConstraints, Certificate, CertificateParams, IsCa, Issuer, KeyPair};
use slipring_core::Messaging;
use slipring_nats::{Config, Tls};
use slipring_servers::{Nats, Version};

use crate::world::{configured, next, publish, subscribe, with, within};

/// A certificate authority, and certificates of it for the server and for us, as files.
struct Files(PathBuf);

impl Files {
    fn new(name: &str) -> Self {
        let directory = std::env::temp_dir().join(format!("slipring-nats-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let files = Self(directory);
        let key = KeyPair::generate().unwrap();
        let mut authority = CertificateParams::new([]).unwrap();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        files.write("ca", &authority.self_signed(&key).unwrap(), &key);
        let issuer = Issuer::new(authority, key);
        for name in ["server", "client"] {
            let key = KeyPair::generate().unwrap();
            let params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
            files.write(name, &params.signed_by(&key, &issuer).unwrap(), &key);
        }
        files
    }

    fn write(&self, name: &str, certificate: &Certificate, key: &KeyPair) {
        std::fs::write(self.path(&format!("{name}.pem")), certificate.pem()).unwrap();
        std::fs::write(self.path(&format!("{name}.key")), key.serialize_pem()).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    async fn server(&self, version: Version, verify: bool) -> Nats {
        let [cert, key, ca] =
            ["server.pem", "server.key", "ca.pem"].map(|name| self.path(name).display().to_string());
        let configuration =
            format!("tls {{ cert_file: {cert:?}, key_file: {key:?}, ca_file: {ca:?}, verify: {verify} }}");
        configured(version, configuration).await
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

async fn works(config: Config) {
    let broker = with(config);
    within("the server", broker.capabilities()).await.unwrap();
    let mut messages = subscribe(&broker, "s").await;
    publish(&broker, "s", "x").await.unwrap();
    assert_eq!(next(&mut messages).await, "x");
}

async fn fails(config: Config, words: &str) {
    let error = within("the refusal", publish(&with(config), "s", "x")).await.unwrap_err();
    assert_eq!(error.code(), "unavailable", "{error}");
    assert!(error.to_string().contains(words), "{error}");
}

/// A server whose authority we trust is connected to; one that we do not trust is not, also if TLS was not asked
/// for. No provider is installed for the process.
#[tokio::test]
async fn the_server_is_verified() {
    let (files, others) = (Files::new("tls"), Files::new("tls-other"));
    for version in Version::ALL {
        let server = files.server(version, false).await;
        let config = || Config::new([server.endpoint()]);
        let ca = files.path("ca.pem");
        works(config().with_tls(Tls::new().with_ca_file(&ca))).await;
        let text = format!("nats://{}?tls=true&ca_file={}", server.endpoint(), ca.display());
        works(Config::from_address(&text.parse().unwrap()).unwrap()).await;
        fails(config().with_tls(Tls::new().with_ca_file(others.path("ca.pem"))), "certificate").await;
        fails(config(), "tls=true").await;
    }
    assert!(CryptoProvider::get_default().is_none());
}

/// A server that wants to know us is shown our certificate.
#[tokio::test]
async fn we_are_verified() {
    let files = Files::new("mtls");
    for version in Version::ALL {
        let server = files.server(version, true).await;
        let tls = Tls::new().with_ca_file(files.path("ca.pem"));
        let identity = tls.clone().with_identity_files(files.path("client.pem"), files.path("client.key"));
        works(Config::new([server.endpoint()]).with_tls(identity)).await;
        fails(Config::new([server.endpoint()]).with_tls(tls), &server.endpoint()).await;
    }
}

/// A server without TLS is not talked to in the clear if TLS was asked for.
#[tokio::test]
async fn tls_is_never_given_up() {
    let files = Files::new("clear");
    let server = Nats::start(Version::Newer).await;
    let tls = Tls::new().with_ca_file(files.path("ca.pem"));
    fails(Config::new([server.endpoint()]).with_tls(tls), &server.endpoint()).await;
}

/// A file that cannot be used is named before anything is dialled; what is in it is not shown.
#[test]
fn bad_files_are_named() {
    let files = Files::new("files");
    std::fs::write(files.path("empty.pem"), "").unwrap();
    // Line breaks are easily lost, such as in a variable.
    let key = std::fs::read_to_string(files.path("client.key")).unwrap();
    std::fs::write(files.path("one-line.key"), key.replace('\n', "")).unwrap();
    let shown = &key[30..50];
    let in_numbers = format!("{:?}", shown.as_bytes()).replace(['[', ']'], "");
    let new = |tls: Tls| {
        let environment = std::sync::Arc::new(slipring_core::SystemEnvironment);
        slipring_nats::NatsMessaging::new(Config::new(["h:1"]).with_tls(tls), environment).unwrap_err()
    };
    let good = |name: &str| files.path(name);
    let trusting = || Tls::new().with_ca_file(good("ca.pem"));
    for (error, culprit) in [
        (new(Tls::new().with_ca_file(good("missing.pem"))), "missing.pem"),
        (new(Tls::new().with_ca_file(good("empty.pem"))), "empty.pem"),
        (new(trusting().with_identity_files(good("client.pem"), good("ca.pem"))), "ca.pem"),
        (new(trusting().with_identity_files(good("client.pem"), good("one-line.key"))), "one-line.key"),
        (new(trusting().with_identity_files(Path::new("nowhere.pem"), good("client.key"))), "nowhere.pem"),
    ] {
        assert_eq!(error.code(), "invalid");
        let text = format!("{error} {error:?}");
        assert!(text.contains(culprit), "{text}");
        assert!(!text.contains(shown) && !text.contains(&in_numbers), "it shows a key: {text}");
    }
}
