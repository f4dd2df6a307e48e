use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{self, Deserializer};
use slipring_core::{Address, Error, Result, Secret};

use super::link::LinkLimits;
use super::tls::{TcpTls, with_tls};

/// How a runtime takes part in the planes over TCP.
///
/// A runtime always dials: to instances whose record lists an address. Everything else is off until it is asked
/// for:
///
/// - [`listen`](Self::listen): its endpoints can be called over TCP ([`Plane::Tcp`](crate::Plane::Tcp)), and the
///   endpoints that it calls may answer over TCP ([`Plane::NatsTcp`](crate::Plane::NatsTcp)).
/// - [`call_home`](Self::call_home): its endpoints answer over TCP to callers that listen.
///
/// As text it is `tcp://HOST:PORT?option=value`, without the port for any free one, or `tcp:` if it does not listen:
///
/// | option | is | default |
/// |---|---|---|
/// | `advertise` | what others dial: `host:port`, or `host` alone for the port that is listened on | the address that is listened on |
/// | `call_home` | `true` or `false` | `false` |
/// | `secret_file`, `secret_env` | where the [secret](Self::secret) is | none |
/// | `tls` | `true` or `false`: over [TLS](Self::tls) | `true` if one of the next four is given |
/// | `ca_file` | whose certificates are [accepted](TcpTls::ca_file); if it listens, whoever dials has to show one | none |
/// | `cert_file`, `key_file` | the [certificate](TcpTls::identity_files) that it shows, and its key; needed to listen | none |
/// | `server_name` | the [name](TcpTls::server_name) in the certificate of whoever is dialled | the host that is dialled |
/// | `message_bytes_max` | the largest request or item, in bytes | 64 MiB |
/// | `dial_timeout` | how long dialling may take | `2s` |
///
/// ```
/// let plane: slipring::TcpPlane = "tcp://0.0.0.0?advertise=worker-7&call_home=true".parse()?;
/// assert_eq!(plane.advertise.as_deref(), Some("worker-7"));
/// # Ok::<_, slipring::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TcpPlane {
    /// The address to listen on, such as `0.0.0.0:7000`; port 0 is any free one. Default: none.
    pub listen: Option<String>,
    /// What others dial. Required where `listen` names no host that can be dialled, such as `0.0.0.0`.
    pub advertise: Option<String>,
    /// Do the endpoints of this runtime answer over TCP to callers that listen? Default: no.
    pub call_home: bool,
    /// What both ends of a connection must know. It is never sent. Default: none.
    pub secret: Option<Secret>,
    /// Connections are encrypted, and who is at the other end is verified. Needs the feature `tls`. Default: none.
    pub tls: Option<TcpTls>,
    /// The largest request or item that is sent or taken, in bytes. Default 64 MiB.
    pub message_bytes_max: usize,
    /// How long dialling may take, the handshake included, before another way is taken. Default 2 s.
    pub dial_timeout: Duration,
}

impl TcpPlane {
    /// One that only dials.
    pub fn new() -> Self {
        Self {
            listen: None,
            advertise: None,
            call_home: false,
            secret: None,
            tls: None,
            message_bytes_max: LinkLimits::default().message_bytes_max,
            dial_timeout: Duration::from_secs(2),
        }
    }

    /// Listens on this address.
    #[must_use]
    pub fn with_listen(mut self, address: impl Into<String>) -> Self {
        self.listen = Some(address.into());
        self
    }

    /// Is dialled at this address.
    #[must_use]
    pub fn with_advertise(mut self, address: impl Into<String>) -> Self {
        self.advertise = Some(address.into());
        self
    }

    /// Answers over TCP to callers that listen, or not.
    #[must_use]
    pub fn with_call_home(mut self, call_home: bool) -> Self {
        self.call_home = call_home;
        self
    }

    /// Both ends must know this.
    #[must_use]
    pub fn with_secret(mut self, secret: Secret) -> Self {
        self.secret = Some(secret);
        self
    }

    /// Over TLS, and in no other way.
    #[must_use]
    pub fn with_tls(mut self, tls: TcpTls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// With requests and items of at most so many bytes.
    #[must_use]
    pub fn with_message_bytes_max(mut self, bytes: usize) -> Self {
        self.message_bytes_max = bytes;
        self
    }

    /// With so much time for dialling.
    #[must_use]
    pub fn with_dial_timeout(mut self, timeout: Duration) -> Self {
        self.dial_timeout = timeout;
        self
    }

    /// What an address says.
    ///
    /// # Errors
    /// `Invalid` naming what is wrong with it.
    pub fn from_address(address: &Address) -> Result<Self> {
        let wrong = |problem: &str| Err(Error::invalid("TCP address", address.to_string(), problem));
        if address.scheme() != "tcp" {
            return wrong("allowed: tcp://HOST:PORT, or tcp: to dial only");
        }
        if address.user().is_some() || address.hosts().len() > 1 {
            return wrong("it has one host and port to listen on, and no user");
        }
        let listen = match address.hosts() {
            [] => None,
            [host, ..] => Some(host.with_default_port(0)),
        };
        let options = address.options();
        let defaults = Self::new();
        let plane = Self {
            listen,
            advertise: options.text("advertise").map(str::to_owned),
            call_home: options.flag("call_home")?.unwrap_or_default(),
            secret: options.secret("secret")?,
            tls: TcpTls::from_options(address, &options)?,
            message_bytes_max: match options.number("message_bytes_max")? {
                Some(bytes) => usize::try_from(bytes).unwrap_or(usize::MAX),
                None => defaults.message_bytes_max,
            },
            dial_timeout: options.duration("dial_timeout")?.unwrap_or(defaults.dial_timeout),
        };
        options.finish()?;
        Ok(plane)
    }

    /// Refuses what cannot work.
    pub(crate) fn check(&self) -> Result<()> {
        let wrong = |field, problem: String| Err(Error::invalid("TCP plane", field, problem));
        if self.dial_timeout.is_zero() {
            return wrong("dial_timeout", "it must be longer than zero".to_owned());
        }
        let most = LinkLimits::MESSAGE_BYTES_MOST;
        if self.message_bytes_max == 0 || self.message_bytes_max > most {
            return wrong("message_bytes_max", format!("allowed: 1 to {most}"));
        }
        if let Some(tls) = &self.tls {
            tls.check(self.listen.is_some(), self.listen.is_none() || self.call_home)?;
        }
        if let Some(advertise) = self.advertise.as_ref().filter(|advertise| advertise.contains('/')) {
            let problem =
                format!("allowed: host or host:port, not {advertise}; tls says whether TLS is spoken");
            return wrong("advertise", problem);
        }
        let Some(listen) = &self.listen else {
            let problem = "it needs an address to listen on as well".to_owned();
            return if self.advertise.is_some() { wrong("advertise", problem) } else { Ok(()) };
        };
        let host = listen.rsplit_once(':').map_or(listen.as_str(), |(host, _)| host);
        if self.advertise.is_none() && matches!(host, "0.0.0.0" | "[::]" | "::" | "") {
            let problem = format!("nobody can dial {listen}: say with advertise which address leads there");
            return wrong("advertise", problem);
        }
        Ok(())
    }

    /// What others dial, of a runtime that listens on this very address: `host:port`, or `tls://host:port`.
    pub(crate) fn advertised(&self, bound: &str) -> String {
        let port = bound.rsplit_once(':').map_or("", |(_, port)| port);
        let host = match &self.advertise {
            None => bound.to_owned(),
            Some(address) if has_port(address) => address.clone(),
            Some(host) => format!("{host}:{port}"),
        };
        if self.tls.is_some() { with_tls(&host) } else { host }
    }
}

/// `[::1]:80` and `host:80` have one; `host` and `[::1]` have none.
fn has_port(address: &str) -> bool {
    let digits = |port: &str| !port.is_empty() && port.bytes().all(|digit| digit.is_ascii_digit());
    match address.rsplit_once(':') {
        Some((host, port)) => digits(port) && (!host.contains(':') || host.ends_with(']')),
        None => false,
    }
}

impl Default for TcpPlane {
    fn default() -> Self {
        Self::new()
    }
}

impl FromStr for TcpPlane {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::from_address(&text.parse()?)
    }
}

impl<'de> Deserialize<'de> for TcpPlane {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plane::tls::Destination;

    /// Addresses are read as the table says.
    #[test]
    fn addresses_say_how_to_take_part() {
        let plane = |text: &str| text.parse::<TcpPlane>().unwrap();
        assert_eq!(plane("tcp:"), TcpPlane::new());
        assert_eq!(plane("tcp://127.0.0.1"), TcpPlane::new().with_listen("127.0.0.1:0"));
        let all = "tcp://[::]:7000?advertise=a:1&call_home=true&message_bytes_max=9&dial_timeout=1s";
        let expected = TcpPlane::new()
            .with_listen("[::]:7000")
            .with_advertise("a:1")
            .with_call_home(true)
            .with_message_bytes_max(9)
            .with_dial_timeout(Duration::from_secs(1));
        assert_eq!(plane(all), expected);
        let tls = TcpTls::new().with_ca_file("/ca").with_identity_files("/c", "/k").with_server_name("n");
        let listening = TcpPlane::new().with_listen("a:1").with_tls(tls);
        for flag in ["", "&tls=true"] {
            let text = format!("tcp://a:1?ca_file=/ca&cert_file=/c&key_file=/k&server_name=n{flag}");
            assert_eq!(plane(&text), listening);
        }
        assert_eq!(plane("tcp:?tls=false"), TcpPlane::new());
    }

    /// What cannot be used is refused, and the error says what.
    #[test]
    fn wrong_planes_are_refused_by_name() {
        for (text, words) in [
            ("udp://a:1", "tcp://HOST:PORT"),
            ("tcp://a:1,b:1", "one host"),
            ("tcp://me@a:1", "no user"),
            ("tcp://a:1?shiny=1", "shiny"),
            ("tcp://a:1?call_home=maybe", "call_home"),
            ("tcp://a:1?cert_file=/c", "go together"),
            ("tcp://a:1?key_file=/k", "go together"),
            ("tcp://a:1?tls=false&ca_file=/c", "tls=false"),
        ] {
            let error = text.parse::<TcpPlane>().unwrap_err().to_string();
            assert!(error.contains(words), "{text}: {error}");
        }
        let listening = TcpPlane::new().with_listen("0.0.0.0:0");
        let (trusting, shown) =
            (TcpTls::new().with_ca_file("c"), TcpTls::new().with_identity_files("c", "k"));
        for (plane, field) in [
            (TcpPlane::new().with_tls(TcpTls::new()), "to dial it needs ca_file"),
            (TcpPlane::new().with_tls(shown.clone()), "to dial it needs ca_file"),
            (TcpPlane::new().with_listen("a:1").with_tls(trusting), "to listen it needs cert_file"),
            (TcpPlane::new().with_listen("a:1").with_call_home(true).with_tls(shown.clone()), "ca_file"),
            (TcpPlane::new().with_listen("a:1").with_advertise("tls://a:1"), "advertise"),
            (listening.clone(), "advertise"),
            (TcpPlane::new().with_advertise("a:1"), "advertise"),
            (TcpPlane::new().with_message_bytes_max(0), "message_bytes_max"),
            (TcpPlane::new().with_message_bytes_max(usize::MAX), "message_bytes_max"),
            (TcpPlane::new().with_dial_timeout(Duration::ZERO), "dial_timeout"),
        ] {
            let error = plane.check().unwrap_err().to_string();
            assert!(error.contains(field), "{plane:?}: {error}");
        }
        assert!(listening.with_advertise("a").check().is_ok());
        assert!(TcpPlane::new().with_listen("a:1").with_tls(shown).check().is_ok());
    }

    /// What is advertised can be dialled: the port that was chosen stands in where none is said.
    #[test]
    fn the_advertised_address_can_be_dialled() {
        let plane = TcpPlane::new().with_listen("127.0.0.1:0");
        assert_eq!(plane.advertised("127.0.0.1:4711"), "127.0.0.1:4711");
        for (advertise, dialled) in
            [("a", "a:4711"), ("a:1", "a:1"), ("[::1]", "[::1]:4711"), ("[::1]:1", "[::1]:1")]
        {
            let plane = plane.clone().with_advertise(advertise);
            assert_eq!(plane.advertised("127.0.0.1:4711"), dialled);
            let secured = plane.with_tls(TcpTls::new()).advertised("127.0.0.1:4711");
            assert_eq!(secured, format!("tls://{dialled}"));
            assert_eq!(Destination::of(&secured), Destination { host: dialled, tls: true });
        }
    }
}
