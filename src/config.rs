//! Which backends to use, as text: what an operator changes without changing the program.

mod backends;
#[cfg(test)]
mod tests;

use std::env::VarError;
use std::str::FromStr;

use serde::de::{self, Deserialize, Deserializer};
use slipring_core::{Address, Error, Result};

pub(crate) use self::backends::{Backends, lease_ttl};
use crate::name::Deployment;
use crate::plane::TcpPlane;
use crate::settings::Settings;

/// Which backends a runtime uses, which deployment it belongs to, and how long it waits for what.
///
/// It comes from environment variables ([`from_env`](Self::from_env)), or from a file of any format that
/// serde reads; every field may be left out, and a field that does not exist is refused.
///
/// | field | variable | is | default |
/// |---|---|---|---|
/// | `discovery` | `SLIPRING_DISCOVERY` | `memory:`, or `etcd://host:2379,host2:2379?ttl=10s` | `memory:` |
/// | `messaging` | `SLIPRING_MESSAGING` | `memory:`, or `nats://host:4222,host2:4222` | `memory:` |
/// | `tcp` | `SLIPRING_TCP` | a [`TcpPlane`], such as `tcp://0.0.0.0:7000?advertise=worker-7` | `tcp:` |
/// | `deployment` | `SLIPRING_DEPLOYMENT` | what every key, subject, inbox and service name begins with | empty |
/// | `settings` | | the [`Settings`], each by its name | theirs |
///
/// ```
/// let config: slipring::Config = serde_json::from_str(
///     r#"{
///         "discovery": "memory:?ttl=5s",
///         "deployment": "staging",
///         "settings": { "drain_timeout": "1m", "lease_policy": "fence" }
///     }"#,
/// )?;
/// assert_eq!(config.settings.drain_timeout.as_secs(), 60);
/// # Ok::<_, serde_json::Error>(())
/// ```
///
/// # Addresses
/// `scheme://user:password@host:port,host2:port?option=value&option2=value2`; all but the scheme may be left
/// out, as far as the backend can do without it. `%xx` stands for a byte that could not be written otherwise.
/// On every discovery backend the option `ttl` is the time to live of the runtime's lease and overrides
/// [`Settings::lease_ttl`]; what else there is, the documentation of the adapter's own `Config` lists.
///
/// # Secrets
/// A password in an address can be seen by whoever lists a process's environment or reads the file, so each
/// secret can also be named: `password_file=/run/secrets/etcd`, or `password_env=ETCD_PASSWORD`. Neither
/// `Debug` nor a log line nor an error shows one. (A parser of files may show a whole line that it cannot
/// read: one more reason to name secrets.) This type cannot be serialized for the same reason.
///
/// # Deployments
/// Several deployments may share the servers, each with credentials that reach nothing of the others. The
/// README lists the permissions that the servers have to be given.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Config {
    /// Where keys, leases and watches are.
    #[serde(deserialize_with = "parsed")]
    pub discovery: Address,
    /// Where messages go.
    #[serde(deserialize_with = "parsed")]
    pub messaging: Address,
    /// How it takes part in the planes over TCP.
    pub tcp: TcpPlane,
    /// Keeps apart what shares the servers.
    #[serde(deserialize_with = "parsed")]
    pub deployment: Deployment,
    /// The bounds and intervals.
    pub settings: Settings,
}

impl Config {
    /// These backends, no deployment, and the default settings.
    pub fn new(discovery: Address, messaging: Address) -> Self {
        let (tcp, deployment, settings) = (TcpPlane::default(), Deployment::default(), Settings::default());
        Self { discovery, messaging, tcp, deployment, settings }
    }

    /// Taking part in the planes over TCP like this.
    #[must_use]
    pub fn with_tcp(mut self, tcp: TcpPlane) -> Self {
        self.tcp = tcp;
        self
    }

    /// In this deployment.
    #[must_use]
    pub fn with_deployment(mut self, deployment: Deployment) -> Self {
        self.deployment = deployment;
        self
    }

    /// With these settings.
    #[must_use]
    pub fn with_settings(mut self, settings: Settings) -> Self {
        self.settings = settings;
        self
    }

    /// What the environment variables say.
    ///
    /// # Errors
    /// [`Invalid`](Error::Invalid) naming the variable whose text is none.
    pub fn from_env() -> Result<Self> {
        Self::from_variables(|name| match std::env::var(name) {
            Ok(value) => Ok(Some(value)),
            Err(VarError::NotPresent) => Ok(None),
            Err(VarError::NotUnicode(_)) => Err(Error::invalid(name, "..", "it is not UTF-8")),
        })
    }

    fn from_variables(variable: impl Fn(&'static str) -> Result<Option<String>>) -> Result<Self> {
        let mut config = Self::default();
        if let Some(discovery) = read("SLIPRING_DISCOVERY", &variable)? {
            config.discovery = discovery;
        }
        if let Some(messaging) = read("SLIPRING_MESSAGING", &variable)? {
            config.messaging = messaging;
        }
        if let Some(tcp) = read("SLIPRING_TCP", &variable)? {
            config.tcp = tcp;
        }
        if let Some(deployment) = read("SLIPRING_DEPLOYMENT", &variable)? {
            config.deployment = deployment;
        }
        Ok(config)
    }
}

/// Everything in memory, without a deployment.
impl Default for Config {
    fn default() -> Self {
        let memory = || "memory:".parse().expect("a scheme alone is an address");
        Self::new(memory(), memory())
    }
}

/// The value of a variable, if it is set.
fn read<T: FromStr<Err = Error>>(
    name: &'static str,
    variable: impl Fn(&'static str) -> Result<Option<String>>,
) -> Result<Option<T>> {
    let named = |mut error| {
        if let Error::Invalid { what, .. } = &mut error {
            *what = name;
        }
        error
    };
    variable(name)?.map(|text| text.parse().map_err(named)).transpose()
}

fn parsed<'de, D: Deserializer<'de>, T: FromStr<Err = Error>>(deserializer: D) -> Result<T, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
}
