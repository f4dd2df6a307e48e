use super::*;

fn parsed(text: &str) -> Result<Config> {
    Config::from_address(&text.parse()?)
}

/// Everything that an address can say is found, and what it does not say has its default.
#[test]
fn an_address_says_it_all() {
    let config = parsed(
        "etcd://me:hunter2@one,two:7?prefix=blue/&call_timeout=1s&connect_timeout=2s&startup_timeout=3s\
         &keep_alive_interval=6s&keep_alive_timeout=7s&tls=true&ca_file=/ca&cert_file=/cert&key_file=/key&ttl=9s",
    )
    .unwrap();
    assert_eq!(config.endpoints, ["one:2379", "two:7"]);
    assert_eq!((config.user.as_deref(), config.password), (Some("me"), Some(Secret::new("hunter2"))));
    assert_eq!(config.prefix, Some(Prefix::new("blue/").unwrap()));
    let seconds = [
        config.call_timeout,
        config.connect_timeout,
        config.startup_timeout,
        config.keep_alive_interval,
        config.keep_alive_timeout,
    ];
    assert_eq!(seconds.map(|duration| duration.as_secs()), [1, 2, 3, 6, 7]);
    assert_eq!(config.tls, Some(TlsConfig::new("/ca").with_client_files("/cert", "/key")));
    let bare = parsed("etcd://h").unwrap();
    let default = Config::new(["h:2379"]);
    assert_eq!(format!("{bare:?}"), format!("{default:?}"));
}

/// Each mistake is refused with words that say what is wrong.
#[test]
fn mistakes_are_named() {
    for (text, words) in [
        ("etcd:", "none is given"),
        ("etcd://h?calltimeout=1s", "unknown option \"calltimeout\""),
        ("etcd://h?ttl=10", "ttl=\"10\""),
        ("etcd://h?call_timeout=0s", "call_timeout"),
        ("etcd://h?connect_timeout=0s", "connect_timeout"),
        ("etcd://h?keep_alive_timeout=0s", "keep_alive_timeout"),
        ("etcd://h?keep_alive_interval=4s", "5s"),
        ("etcd://h?prefix=blue", "must end in '/'"),
        ("etcd://me@h", "password is missing"),
        ("etcd://:hunter2@h", "no user"),
        ("etcd://me:hunter2@h?password_env=HOME", "two passwords"),
        ("etcd://h?tls=true", "ca_file"),
        ("etcd://h?ca_file=/ca", "need tls=true"),
        ("etcd://h?tls=true&ca_file=/ca&key_file=/key", "cert_file together with key_file"),
    ] {
        let error = parsed(text).unwrap_err();
        assert!(error.to_string().contains(words), "{text}: {error}");
        assert!(!error.to_string().contains("hunter"), "{error}");
    }
}

/// An endpoint that was not made of an address is checked too.
#[test]
fn endpoints_have_a_port() {
    for wrong in ["", "host", "host:", ":1", "http://host:1", "host:99999", "me@host:1", "a b:1"] {
        let error = Config::new([wrong]).check().unwrap_err();
        assert!(error.to_string().contains("host:port"), "{wrong}: {error}");
    }
    for right in ["host:1", "127.0.0.1:2379", "[::1]:2379"] {
        Config::new([right]).check().unwrap();
    }
    assert!(Config::new(["h:1"]).with_watch_buffer(0, 1).check().is_err());
    assert!(Config::new(["h:1"]).with_watch_silence_max(Duration::ZERO).check().is_err());
}

/// No secret is shown.
#[test]
fn secrets_are_not_shown() {
    let config = Config::new(["h:1"]).with_user("me", Secret::new("hunter2"));
    assert!(!format!("{config:?}").contains("hunter2"));
}
