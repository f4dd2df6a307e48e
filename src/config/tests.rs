use std::time::Duration;

use super::*;
use crate::{DistributedRuntime, LeasePolicy};

fn variables(pairs: &'static [(&'static str, &'static str)]) -> Result<Config> {
    Config::from_variables(|variable| {
        Ok(pairs.iter().find(|(name, _)| *name == variable).map(|(_, value)| (*value).to_owned()))
    })
}

/// What a runtime on these addresses ends in.
#[cfg(any(feature = "memory", not(any(feature = "etcd", feature = "nats"))))]
async fn refused(discovery: &str, messaging: &str) -> Error {
    let config = Config::new(discovery.parse().unwrap(), messaging.parse().unwrap());
    DistributedRuntime::from_config(config).await.unwrap_err()
}

/// Without variables everything is in memory; each variable is taken over (U1188: no server is needed).
#[test]
fn u1188_nothing_set_means_memory() {
    assert_eq!(variables(&[]).unwrap(), Config::default());
    let set = variables(&[
        ("SLIPRING_DISCOVERY", "etcd://one:2379,two:2379?ttl=10s"),
        ("SLIPRING_MESSAGING", "nats://one:4222"),
        ("SLIPRING_DEPLOYMENT", "staging"),
    ])
    .unwrap();
    assert_eq!((set.discovery.scheme(), set.discovery.hosts().len()), ("etcd", 2));
    assert_eq!((set.messaging.scheme(), set.deployment.as_str()), ("nats", "staging"));
    assert_eq!(lease_ttl(&set.discovery).unwrap(), Some(Duration::from_secs(10)));
}

/// A variable that cannot be read is named, with what is allowed; its text is not shown, because it may be a
/// password that was meant to stand elsewhere.
#[test]
fn variables_are_named() {
    for (pairs, words) in [
        (&[("SLIPRING_DISCOVERY", "hunter2")], "SLIPRING_DISCOVERY \"..\": it has no scheme; allowed"),
        (&[("SLIPRING_MESSAGING", "nats:hunter2")], "SLIPRING_MESSAGING \"nats:\": \"//\" is missing"),
        (&[("SLIPRING_DEPLOYMENT", "Staging")], "SLIPRING_DEPLOYMENT \"Staging\" at byte 0"),
    ] as [(&'static [_], _); 3]
    {
        let error = variables(pairs).unwrap_err();
        let text = error.to_string();
        assert!(error.code() == "invalid" && text.contains(words) && !text.contains("hunter2"), "{text}");
    }
}

/// A file may leave everything out, and sets what it names; whatever it misspells is refused by its name.
#[test]
fn files_set_what_they_name() {
    assert_eq!(serde_json::from_str::<Config>("{}").unwrap(), Config::default());
    let file = r#"{
        "discovery": "etcd://one", "messaging": "nats://one", "deployment": "staging",
        "settings": {"drain_timeout": "1m", "probe_after": "1500ms", "lease_policy": "fence", "stream_items_max": 7}
    }"#;
    let config: Config = serde_json::from_str(file).unwrap();
    assert_eq!((config.discovery.scheme(), config.deployment.as_str()), ("etcd", "staging"));
    let settings = Settings {
        drain_timeout: Duration::from_secs(60),
        probe_after: Duration::from_millis(1500),
        lease_policy: LeasePolicy::Fence,
        stream_items_max: 7,
        ..Settings::default()
    };
    assert_eq!(config.settings, settings);
    for (file, words) in [
        (r#"{"discvery": "memory:"}"#, "unknown field `discvery`, expected one of `discovery`"),
        (r#"{"discovery": "localhost"}"#, "it has no scheme"),
        (r#"{"deployment": "a b"}"#, "deployment"),
        (r#"{"settings": {"drain_timout": "1s"}}"#, "unknown field `drain_timout`, expected one of"),
        (r#"{"settings": {"drain_timeout": "10"}}"#, "invalid duration \"10\""),
        (r#"{"settings": {"lease_policy": "die"}}"#, "expected `keep_serving` or `fence`"),
    ] {
        let text = serde_json::from_str::<Config>(file).unwrap_err().to_string();
        assert!(text.contains(words), "{text}");
    }
}

/// Each address that cannot be used has an error of its own: which address, why, and what to do.
#[cfg(feature = "memory")]
#[tokio::test]
async fn addresses_that_cannot_be_used_are_told_apart() {
    for (discovery, messaging, code, words) in [
        (
            "etdc://a",
            "memory:",
            "invalid",
            "unknown scheme \"etdc\" (did you mean etcd?); allowed: memory:, etcd:",
        ),
        (
            "consul://a",
            "memory:",
            "invalid",
            "discovery address \"consul://a\": unknown scheme \"consul\"; allowed",
        ),
        ("nats://a", "memory:", "invalid", "discovery address \"nats://a\": unknown scheme"),
        ("memory:", "etcd://a", "invalid", "messaging address \"etcd://a\": unknown scheme"),
        ("memory:", "nat://a", "invalid", "did you mean nats?"),
        ("memory://there", "memory:", "invalid", "it stands for this process"),
        ("memory:?ttl=10", "memory:", "invalid", "ttl=\"10\" is no duration; allowed"),
        ("memory:?tttl=10s", "memory:", "invalid", "unknown option \"tttl\"; allowed: ttl"),
        ("memory:", "memory:?ttl=10s", "invalid", "unknown option \"ttl\"; allowed: none"),
        ("memory:?ttl=0s", "memory:", "invalid", "\"lease_ttl\": it must be longer than zero"),
    ] {
        let error = refused(discovery, messaging).await;
        let text = error.to_string();
        assert!(error.code() == code && text.contains(words), "{discovery} {messaging}: {text}");
    }
}

/// A backend that was not compiled in is refused with the name of its feature. For the build without any.
#[cfg(not(any(feature = "memory", feature = "etcd", feature = "nats")))]
#[tokio::test]
async fn a_backend_that_is_not_compiled_in_names_its_feature() {
    let refuse = |address: &str, feature: &str, error: Error| {
        let words = format!("this program was built without it; enable slipring's feature \"{feature}\"");
        let text = error.to_string();
        assert!(error.code() == "unsupported" && text.contains(&words) && text.contains(address), "{text}");
        assert!(!text.contains("hunter2"), "{text}");
    };
    refuse("memory:", "memory", refused("memory:", "memory:").await);
    refuse("etcd://a", "etcd", refused("etcd://me:hunter2@a", "memory:").await);
    let backends = Backends::new(std::sync::Arc::new(crate::SystemEnvironment::new()));
    let nats = backends.messaging(&"nats://me:hunter2@a".parse().unwrap(), &Deployment::default());
    refuse("nats://a", "nats", nats.unwrap_err());
}

/// TLS that was not compiled in is refused with the name of its feature. For the build without it.
#[cfg(all(feature = "memory", feature = "etcd", feature = "nats", not(feature = "tls")))]
#[tokio::test]
async fn tls_that_is_not_compiled_in_names_its_feature() {
    for (discovery, messaging) in
        [("etcd://a?tls=true&ca_file=/ca.pem", "memory:"), ("memory:", "nats://a?tls=true&ca_file=/ca.pem")]
    {
        let error = refused(discovery, messaging).await;
        let text = error.to_string();
        assert!(error.code() == "unsupported" && text.contains("feature `tls`"), "{text}");
    }
    let config = Config::default().with_tcp("tcp:?ca_file=/ca.pem".parse().unwrap());
    let error = DistributedRuntime::from_config(config).await.unwrap_err();
    let text = error.to_string();
    assert!(
        error.code() == "unsupported" && text.contains("TCP plane") && text.contains("feature `tls`"),
        "{text}"
    );
}

/// The lease's time to live that the discovery address says overrides the setting, and is what is asked for.
#[cfg(feature = "memory")]
#[tokio::test(start_paused = true)]
async fn the_address_says_the_time_to_live() {
    let settings = Settings { lease_ttl: Duration::from_secs(100), ..Settings::default() };
    for (address, ttl) in [("memory:?ttl=3s", 3), ("memory:", 100)] {
        let config =
            Config::new(address.parse().unwrap(), "memory:".parse().unwrap()).with_settings(settings);
        let runtime = DistributedRuntime::from_config(config).await.unwrap();
        assert_eq!(runtime.platform().settings.lease_ttl, Duration::from_secs(ttl));
    }
}

/// A backend that is handed in comes before the configured one, whose address is then not even looked at.
#[cfg(feature = "memory")]
#[tokio::test]
async fn what_is_handed_in_comes_first() {
    let world = crate::MemoryWorld::new();
    let config = Config::new("etcd://a?nonsense=1".parse().unwrap(), "memory:".parse().unwrap())
        .with_deployment(Deployment::new("staging").unwrap());
    let builder = DistributedRuntime::builder().discovery(world.discovery()).config(config);
    let runtime = builder.build().await.unwrap();
    assert_eq!((world.leases().len(), runtime.platform().deployment.as_str()), (1, "staging"));
}
