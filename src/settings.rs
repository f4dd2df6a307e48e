use std::time::Duration;

use serde::de::{self, Deserialize, Deserializer};
use slipring_core::mutation::Mutated;
use slipring_core::{Error, Result, parse_duration};

/// What a runtime does when its lease is lost. In a file: `keep_serving` or `fence`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum LeasePolicy {
    /// Goes on serving, and says so: for work that anybody may do.
    #[default]
    KeepServing,
    /// Refuses new requests with `lease lost` (effect none) until there is a lease again: for exclusive
    /// owners. Checked when a request is accepted.
    Fence,
}

/// The bounds and intervals of a runtime. Every one has a default that suits a service on a local network, and
/// may be left out of a file, in which durations are texts such as `"500ms"` or `"10s"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Settings {
    /// Time to live asked for the runtime's lease. Default 10 s.
    #[serde(deserialize_with = "duration")]
    pub lease_ttl: Duration,
    /// What happens without a lease. Default: serving goes on.
    pub lease_policy: LeasePolicy,
    /// How long one call to a backend may take. Default 5 s.
    #[serde(deserialize_with = "duration")]
    pub backend_timeout: Duration,
    /// How long `serve` waits until the endpoint is subscribed, and then until its record is in the store.
    /// Default 10 s.
    #[serde(deserialize_with = "duration")]
    pub register_timeout: Duration,
    /// How long a stop waits until the records are confirmed to be gone. Default 5 s.
    #[serde(deserialize_with = "duration")]
    pub deregister_timeout: Duration,
    /// How long a stopping endpoint still takes requests after its record is gone, so that every watcher has
    /// seen it go. Default 250 ms.
    #[serde(deserialize_with = "duration")]
    pub watcher_grace: Duration,
    /// How long a stop waits for the requests in flight. Default 30 s.
    #[serde(deserialize_with = "duration")]
    pub drain_timeout: Duration,
    /// How long a stop waits for the broker, each time: to unsubscribe, to tell the callers of what was
    /// cancelled, to revoke its lease and to close its messaging handle. Default 2 s.
    #[serde(deserialize_with = "duration")]
    pub close_timeout: Duration,
    /// The deadline of a call that sets none. Default 10 s.
    #[serde(deserialize_with = "duration")]
    pub call_deadline: Duration,
    /// How long a response may be silent between two items before the call is given up. Default 30 s.
    #[serde(deserialize_with = "duration")]
    pub inactivity_max: Duration,
    /// How long a call may be silent before the caller asks whether it is alive. Default 2 s.
    #[serde(deserialize_with = "duration")]
    pub probe_after: Duration,
    /// The same once the instance's record is gone. Default 500 ms.
    #[serde(deserialize_with = "duration")]
    pub probe_after_gone: Duration,
    /// How long a worker goes on for a caller that says nothing. Default 15 s.
    #[serde(deserialize_with = "duration")]
    pub caller_silence_max: Duration,
    /// How many items of one response may wait at the caller. Default 256.
    pub stream_items_max: u64,
    /// How often a shared watcher compares itself with a fresh snapshot. Default 60 s.
    #[serde(deserialize_with = "duration")]
    pub reconcile_interval: Duration,
    #[doc(hidden)]
    #[serde(skip)]
    pub mutation: Mutated,
}

impl Default for Settings {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            lease_ttl: seconds(10),
            lease_policy: LeasePolicy::default(),
            backend_timeout: seconds(5),
            register_timeout: seconds(10),
            deregister_timeout: seconds(5),
            watcher_grace: Duration::from_millis(250),
            drain_timeout: seconds(30),
            close_timeout: seconds(2),
            call_deadline: seconds(10),
            inactivity_max: seconds(30),
            probe_after: seconds(2),
            probe_after_gone: Duration::from_millis(500),
            caller_silence_max: seconds(15),
            stream_items_max: 256,
            reconcile_interval: seconds(60),
            mutation: Mutated::default(),
        }
    }
}

impl Settings {
    /// Refuses what cannot work, naming the field.
    pub(crate) fn check(&self) -> Result<()> {
        let durations = [
            ("lease_ttl", self.lease_ttl),
            ("backend_timeout", self.backend_timeout),
            ("register_timeout", self.register_timeout),
            ("call_deadline", self.call_deadline),
            ("inactivity_max", self.inactivity_max),
            ("probe_after", self.probe_after),
            ("probe_after_gone", self.probe_after_gone),
            ("reconcile_interval", self.reconcile_interval),
        ];
        if let Some((name, _)) = durations.iter().find(|(_, duration)| duration.is_zero()) {
            return Err(Error::invalid("setting", *name, "it must be longer than zero"));
        }
        if self.caller_silence_max <= self.probe_after * 2 {
            let problem = format!("it must be more than twice probe_after ({:?})", self.probe_after);
            return Err(Error::invalid("setting", "caller_silence_max", problem));
        }
        if self.stream_items_max == 0 {
            return Err(Error::invalid("setting", "stream_items_max", "it must be at least 1"));
        }
        Ok(())
    }
}

/// A duration as people write it.
fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    parse_duration(&String::deserialize(deserializer)?).map_err(de::Error::custom)
}
