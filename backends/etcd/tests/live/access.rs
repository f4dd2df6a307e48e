//! Who may come in: users, passwords and their tokens, TLS, and servers of the wrong age.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use slipring_core::{Discovery, Range, Secret, Start};
use slipring_etcd::{Config, EtcdDiscovery, TlsConfig};
use slipring_servers::{Etcd, EtcdOptions, Proxy, Version};
use tokio::time::{Instant, sleep};

use crate::fixture::{handle, key, next, put, range, system, until_ok};

/// Users: `root`, who may everything, and `worker`, who may read and write below `mine/`.
async fn with_users(server: &Etcd) {
    for command in [
        "user add root:secret",
        "user grant-role root root",
        "role add some",
        "role grant-permission some --prefix=true readwrite mine/",
        "user add worker:hunter2",
        "user grant-role worker some",
        "auth enable",
    ] {
        let arguments: Vec<_> = command.split(' ').collect();
        server.ctl(&arguments).await;
    }
}

fn worker(server: &Etcd) -> Config {
    Config::new([server.endpoint()]).with_user("worker", Secret::new("hunter2"))
}

/// Wrong credentials are refused at once, not when waiting for the server is over, and are in no message.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_credentials_are_refused_at_once() {
    for version in Version::ALL {
        let server = Etcd::start(version).await;
        with_users(&server).await;
        let config = |user| Config::new([server.endpoint()]).with_user(user, Secret::new("hunter3"));
        for config in [config("worker"), config("nobody"), Config::new([server.endpoint()])] {
            let shown = format!("{config:?}");
            let store = EtcdDiscovery::new(config, system()).unwrap();
            let began = Instant::now();
            let error = store.capabilities().await.unwrap_err();
            assert_eq!(error.code(), "unauthorized", "{error}");
            assert!(began.elapsed() < Duration::from_secs(10));
            let shown = format!("{shown} {store:?} {error} {error:?}");
            assert!(!shown.contains("hunter"), "{shown}");
        }
    }
}

/// A server that knows no users refuses those who give one, and says why.
#[tokio::test]
async fn a_user_where_there_are_none_is_refused() {
    let server = Etcd::start(Version::Newer).await;
    let error = EtcdDiscovery::new(worker(&server), system()).unwrap().capabilities().await.unwrap_err();
    assert_eq!(error.code(), "unauthorized");
    assert!(error.to_string().contains("authentication is not enabled"), "{error}");
}

/// What a user may do works whole, and what it may not is `Unauthorized`: reads, writes and watches alike. The
/// prefix is what the permission is about.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn permissions_are_kept() {
    for version in Version::ALL {
        let server = Etcd::start(version).await;
        with_users(&server).await;
        let mine = slipring_core::Prefix::new("mine/").unwrap();
        let store = handle(worker(&server).with_prefix(mine)).await;
        let mut watch = store.watch(range("k/"), Start::Snapshot).await.unwrap();
        let lease = store.grant(Duration::from_secs(60)).await.unwrap().id;
        let at = put(&store, "k/1", "v").await;
        assert_eq!(next(&mut watch).await.unwrap().revision, at);
        // All that is ours is asked for, and not all that there is.
        assert_eq!(store.read(Range::All).await.unwrap().entries.len(), 1);
        store.watch(Range::All, Start::Snapshot).await.unwrap();
        store.keep_alive(lease).await.unwrap();
        store.revoke(lease).await.unwrap();
        // The same user without the prefix is out of bounds.
        let lost = handle(worker(&server)).await;
        assert_eq!(lost.read(Range::All).await.unwrap_err().code(), "unauthorized");
        assert_eq!(lost.watch(Range::All, Start::Snapshot).await.unwrap_err().code(), "unauthorized");
        let other = lost.watch(range("other/"), Start::After(at)).await;
        assert_eq!(other.unwrap_err().code(), "unauthorized");
        let txn = slipring_core::Txn::new().put(key("other/1"), "v", None);
        assert_eq!(lost.commit(txn).await.unwrap_err().code(), "unauthorized");
        lost.watch(range("mine/"), Start::Snapshot).await.unwrap();
    }
}

/// F31: tokens expire. Calls, heartbeats, a watch that is open and a new one on its stream go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f31_an_expired_token_is_renewed() {
    for version in Version::ALL {
        let mut options = EtcdOptions::default();
        options.arguments = vec!["--auth-token-ttl=1".into()];
        let server = Etcd::start_with(version, options).await;
        with_users(&server).await;
        let store = EtcdDiscovery::new(worker(&server), system()).unwrap();
        let lease = store.grant(Duration::from_secs(60)).await.unwrap().id;
        let mut watch = store.watch(range("mine/a/"), Start::Snapshot).await.unwrap();
        for round in 0..2 {
            // Nothing is asked meanwhile, which would extend the token.
            sleep(Duration::from_secs(3)).await;
            let mut another = match round {
                0 => store.watch(range("mine/b/"), Start::After(slipring_core::Revision(1))).await.unwrap(),
                _ => store.watch(range("mine/b/"), Start::Snapshot).await.unwrap(),
            };
            store.keep_alive(lease).await.unwrap();
            let at = put(&store, format!("mine/a/{round}"), "v").await;
            assert_eq!(next(&mut watch).await.unwrap().revision, at);
            let at = put(&store, format!("mine/b/{round}"), "v").await;
            while next(&mut another).await.unwrap().revision < at {}
        }
    }
}

/// A restart forgets all tokens: the handle authenticates anew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_forgets_tokens() {
    let mut server = Etcd::start(Version::Debian).await;
    with_users(&server).await;
    let store = EtcdDiscovery::new(worker(&server), system()).unwrap();
    let lease = store.grant(Duration::from_secs(60)).await.unwrap().id;
    store.keep_alive(lease).await.unwrap();
    server.kill();
    server.restart().await.unwrap();
    until_ok("a read", || store.read(range("mine/"))).await;
    until_ok("a heartbeat", || store.keep_alive(lease)).await;
    until_ok("a watch", || store.watch(range("mine/"), Start::Snapshot)).await;
}

/// A server that hangs when it is told who we are is left for another, by calls and heartbeats alike.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hung_endpoint_is_left_by_authentication() {
    let server = Etcd::start(Version::Newer).await;
    with_users(&server).await;
    let lease = handle(worker(&server)).await.grant(Duration::from_secs(60)).await.unwrap();
    let hung = Proxy::start(server.endpoint()).await;
    hung.silence();
    let config = Config::new([hung.endpoint(), server.endpoint()]).with_call_timeout(Duration::from_secs(1));
    let store = EtcdDiscovery::new(config.with_user("worker", Secret::new("hunter2")), system()).unwrap();
    assert_eq!(store.read(range("mine/")).await.unwrap_err().code(), "unavailable");
    store.read(range("mine/")).await.unwrap();
    assert_eq!(store.keep_alive(lease.id).await.unwrap_err().code(), "unavailable");
    assert_eq!(store.keep_alive(lease.id).await.unwrap(), lease.ttl);
}

/// Certificates for a test: an authority, a server on 127.0.0.1, and a client.
struct Certificates {
    directory: std::path::PathBuf,
}

impl Certificates {
    fn make(name: &str) -> Self {
        let directory = std::env::temp_dir().join(format!("slipring-tls-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let made = Self { directory };
        std::fs::write(made.directory.join("ext"), "subjectAltName=IP:127.0.0.1\n").unwrap();
        made.openssl(
            "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=authority -keyout ca.key -out ca.pem",
        );
        for who in ["server", "client"] {
            made.openssl(&format!(
                "req -newkey rsa:2048 -nodes -subj /CN={who} -keyout {who}.key -out {who}.csr"
            ));
            made.openssl(&format!(
                "x509 -req -in {who}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile ext -out {who}.pem"
            ));
        }
        made
    }

    fn openssl(&self, arguments: &str) {
        let mut command = Command::new("openssl");
        command.args(arguments.split(' ')).current_dir(&self.directory);
        let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
        assert!(status.expect("openssl is installed").success(), "openssl {arguments}");
    }

    fn file(&self, name: &str) -> String {
        self.directory.join(name).to_str().unwrap().to_owned()
    }

    fn options(&self, mutual: bool) -> EtcdOptions {
        let mut options = EtcdOptions::default();
        options.tls = true;
        options.arguments = vec!["--cert-file".into(), self.file("server.pem")];
        options.arguments.extend(["--key-file".into(), self.file("server.key")]);
        if mutual {
            options.arguments.extend(["--client-cert-auth".into(), "--trusted-ca-file".into()]);
            options.arguments.push(self.file("ca.pem"));
        }
        options
    }
}

impl Drop for Certificates {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(Path::new(&self.directory));
    }
}

/// TLS and mutual TLS carry calls, heartbeats and watches. A server of an authority that is not trusted or of
/// another name, or a client without a certificate, is told apart from a server that is not there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_and_mutual_tls() {
    let (ours, others) = (Certificates::make("ours"), Certificates::make("others"));
    for (version, mutual) in [(Version::Debian, false), (Version::Debian, true), (Version::Newer, true)] {
        let server = Etcd::start_with(version, ours.options(mutual)).await;
        let tls = TlsConfig::new(ours.file("ca.pem"));
        let with = |tls| Config::new([server.endpoint()]).with_tls(tls);
        let full = tls.clone().with_client_files(ours.file("client.pem"), ours.file("client.key"));
        let store = handle(with(if mutual { full } else { tls.clone() })).await;
        let mut watch = store.watch(range("k/"), Start::Snapshot).await.unwrap();
        let lease = store.grant(Duration::from_secs(60)).await.unwrap().id;
        store.keep_alive(lease).await.unwrap();
        let at = put(&store, "k/1", "v").await;
        assert_eq!(next(&mut watch).await.unwrap().revision, at);
        let wrong = with(TlsConfig::new(others.file("ca.pem")));
        let error = EtcdDiscovery::new(wrong, system()).unwrap().read(Range::All).await.unwrap_err();
        assert!(error.to_string().contains("certificate"), "{error}");
        // The same server under a name that its certificate does not bear.
        let other = server.endpoint().replace("127.0.0.1", "localhost");
        let other = Config::new([other]).with_tls(tls.clone());
        let error = EtcdDiscovery::new(other, system()).unwrap().read(Range::All).await.unwrap_err();
        assert!(error.to_string().contains("not valid for name"), "{error}");
        if mutual {
            let error = EtcdDiscovery::new(with(tls), system()).unwrap().read(Range::All).await.unwrap_err();
            println!("{version:?}: without a certificate: {error}");
            assert_eq!(error.code(), "unavailable");
        }
    }
}

/// Files that are missing or hold something else are named when the handle is made; what is in them is not shown.
#[tokio::test]
async fn bad_files_are_named() {
    let ours = Certificates::make("files");
    let good = TlsConfig::new(ours.file("ca.pem"));
    // Line breaks are easily lost, such as in a variable.
    let key = std::fs::read_to_string(ours.file("client.key")).unwrap();
    std::fs::write(ours.file("one-line.key"), key.replace('\n', "")).unwrap();
    let shown = &key[30..50];
    let in_numbers = format!("{:?}", shown.as_bytes()).replace(['[', ']'], "");
    for (tls, culprit) in [
        (good.clone().with_client_files(ours.file("client.pem"), ours.file("one-line.key")), "one-line.key"),
        (TlsConfig::new("/nowhere/ca.pem"), "/nowhere/ca.pem"),
        (TlsConfig::new(ours.file("ca.key")), "ca.key"),
        (good.clone().with_client_files(ours.file("client.pem"), ours.file("ca.pem")), "ca.pem"),
        (good.with_client_files("/nowhere/cert.pem", ours.file("client.key")), "/nowhere/cert.pem"),
    ] {
        let error = EtcdDiscovery::new(Config::new(["127.0.0.1:1"]).with_tls(tls), system()).unwrap_err();
        assert_eq!(error.code(), "invalid");
        let text = format!("{error} {error:?}");
        assert!(text.contains(culprit), "{text}");
        assert!(!text.contains(shown) && !text.contains(&in_numbers), "it shows a key: {text}");
    }
}
