use std::fmt::Write;
use std::fs;

use slipring::Config;
use slipring_servers::{Etcd, Nats, NatsOptions, Version};

use crate::log::Log;

/// A part of every secret in these tests.
const SECRET: &str = "hunter2";

/// Whatever comes of credentials, right ones and wrong ones, in the address, in a file or in a variable: no
/// secret is in what any crate logs at any level, in an error, in `Debug`, or in what a parser says.
#[tokio::test]
async fn secrets_are_nowhere_to_be_seen() {
    let log = Log::capture();
    let etcd = Etcd::start(Version::Newer).await;
    let users = format!("user add root:{SECRET}-root; user grant-role root root; auth enable");
    crate::etcdctl(Version::Newer, &etcd, &users);
    let mut options = NatsOptions::default();
    options.configuration = format!("authorization {{ user: root, password: {SECRET}-root }}");
    let nats = Nats::start_with(Version::Newer, options).await;
    let file = std::env::temp_dir().join(format!("slipring-secrets-{}", std::process::id()));
    fs::write(&file, format!("{SECRET}-root\n")).unwrap();
    let file = file.display();

    let mut shown = String::new();
    for (user, option, right) in [
        (format!("root:{SECRET}-root@"), String::new(), true),
        ("root@".to_owned(), format!("?password_file={file}"), true),
        (format!("root:{SECRET}-wrong@"), String::new(), false),
        (format!("nobody:{SECRET}@"), String::new(), false),
        (String::new(), String::new(), false),
    ] {
        let discovery = format!("etcd://{user}{}{option}", etcd.endpoint());
        let messaging = format!("nats://{user}{}{option}", nats.endpoint());
        let config = Config::new(discovery.parse().unwrap(), messaging.parse().unwrap());
        let etcd = slipring_etcd::Config::from_address(&config.discovery).unwrap();
        let nats = slipring_nats::Config::from_address(&config.messaging).unwrap();
        write!(shown, "{config:?} {etcd:?} {nats:?}").unwrap();
        for config in [config, Config::new("memory:".parse().unwrap(), messaging.parse().unwrap())] {
            let builder = slipring::DistributedRuntime::builder().config(config);
            write!(shown, "{builder:?}").unwrap();
            match builder.build().await {
                Ok(runtime) => {
                    assert!(right);
                    write!(shown, "{runtime:?} {}", runtime.stop().await).unwrap();
                }
                Err(error) => {
                    assert!(!right && error.code() == "unauthorized", "{error}");
                    write!(shown, "{error} {error:?}").unwrap();
                }
            }
        }
    }
    fs::remove_file(file.to_string()).unwrap();

    let logged = log.text();
    assert!(logged.contains("TRACE") && logged.lines().count() > 100, "nothing was captured:\n{logged}");
    let leaking = |line: &&str| line.contains(SECRET);
    assert_eq!(logged.lines().find(leaking), None);
    assert_eq!(shown.find(SECRET), None, "{shown}");
}

/// Texts that are no address are not shown either, wherever in them the secret stands.
#[test]
fn unreadable_addresses_are_not_shown() {
    for text in [
        SECRET.to_owned(),
        format!("root:{SECRET}@host"),
        format!("etcd:root:{SECRET}@host"),
        format!("etcd://root:{SECRET}@host:port"),
        format!("etcd://root:{SECRET}%@host"),
        format!("etcd://host?password={SECRET}"),
    ] {
        let file = serde_json::json!({ "discovery": text, "messaging": "memory:" });
        let said = match serde_json::from_value::<Config>(file) {
            Err(error) => error.to_string(),
            Ok(config) => format!("{config:?}"),
        };
        assert!(!said.contains(SECRET), "{text}: {said}");
    }
}
