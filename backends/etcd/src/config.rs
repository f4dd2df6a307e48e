use std::time::Duration;

use slipring_core::{Address, Error, Prefix, Result, Secret};

/// How to reach an etcd cluster, and what to wait for.
///
/// `Debug` shows no secret.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Config {
    /// The servers, as `host:port`. One is used at a time; when it fails, the next.
    pub endpoints: Vec<String>,
    /// Who we are, if the cluster wants to know.
    pub user: Option<String>,
    /// The user's password.
    pub password: Option<Secret>,
    /// TLS to every server (feature `tls`).
    pub tls: Option<TlsConfig>,
    /// Stands before every key in etcd, and is never seen above: it keeps deployments apart.
    pub prefix: Option<Prefix>,
    /// How long a call may take, dialling included; what takes several, such as a long read, may take so long
    /// for each. A heartbeat's caller will want a shorter bound of its own.
    pub call_timeout: Duration,
    /// How long dialling one server may take, TLS included.
    pub connect_timeout: Duration,
    /// How long [`capabilities`](slipring_core::Discovery::capabilities) waits for a server that is not up.
    pub startup_timeout: Duration,
    /// A connection is asked for a sign of life so often, idle or not; 5 s at least, because etcd ends
    /// connections that are pinged more often.
    pub keep_alive_interval: Duration,
    /// A connection that leaves that unanswered for so long is given up, and the next call dials another
    /// server.
    pub keep_alive_timeout: Duration,
    /// A watch yields an item at least this often. A server is asked for a sign of life three times as often,
    /// and a stream of watches on which two of them are missing is ended.
    pub watch_silence_max: Duration,
    /// How many batches wait for the reader of a watch; one more, and it is given `Compacted`.
    pub watch_buffer_batches_max: usize,
    /// How many bytes wait for the reader of a watch.
    pub watch_buffer_bytes_max: usize,
}

/// TLS, with files in PEM format.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TlsConfig {
    /// The certificates that a server's certificate must lead to.
    pub ca_file: String,
    /// Our own certificate and its key, for servers that want to see one.
    pub client_files: Option<(String, String)>,
}

impl TlsConfig {
    /// TLS that trusts the certificates in this file.
    pub fn new(ca_file: impl Into<String>) -> Self {
        Self { ca_file: ca_file.into(), client_files: None }
    }

    /// With a certificate of our own, and its key.
    #[must_use]
    pub fn with_client_files(mut self, cert_file: impl Into<String>, key_file: impl Into<String>) -> Self {
        self.client_files = Some((cert_file.into(), key_file.into()));
        self
    }
}

impl Config {
    /// The port of etcd's clients.
    pub const PORT: u16 = 2379;
    /// etcd counts closer pings as an attack.
    const KEEP_ALIVE_INTERVAL_MIN: Duration = Duration::from_secs(5);

    /// These servers, each as `host:port`, and the defaults.
    pub fn new(endpoints: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            endpoints: endpoints.into_iter().map(Into::into).collect(),
            user: None,
            password: None,
            tls: None,
            prefix: None,
            call_timeout: Duration::from_secs(5),
            connect_timeout: Duration::from_secs(2),
            startup_timeout: Duration::from_secs(30),
            keep_alive_interval: Duration::from_secs(10),
            keep_alive_timeout: Duration::from_secs(5),
            watch_silence_max: Duration::from_secs(15),
            watch_buffer_batches_max: 16 * 1024,
            watch_buffer_bytes_max: 16 * 1024 * 1024,
        }
    }

    /// What an address such as `etcd://user@host:2379,host2:2379?password_file=/run/secret&tls=true` says.
    ///
    /// Options: `prefix`; `call_timeout`, `connect_timeout`, `startup_timeout`, `keep_alive_interval`,
    /// `keep_alive_timeout`; `password_file` or `password_env`; `tls`, `ca_file`, `cert_file`, `key_file`.
    /// `ttl` is accepted and left to the runtime, whose lease it is about.
    ///
    /// # Errors
    /// [`Invalid`](Error::Invalid) naming what is wrong.
    pub fn from_address(address: &Address) -> Result<Self> {
        let hosts = address.hosts().iter();
        let mut config = Self::new(hosts.map(|host| host.with_default_port(Self::PORT)));
        let options = address.options();
        options.duration("ttl")?;
        config.user = address.user().map(str::to_owned);
        config.password = match (options.secret("password")?, address.password()) {
            (Some(_), Some(_)) => {
                return Err(Error::invalid("address", address.to_string(), "it has two passwords"));
            }
            (elsewhere, here) => elsewhere.or_else(|| here.cloned()),
        };
        config.prefix = options.text("prefix").map(Prefix::new).transpose()?;
        for (name, field) in [
            ("call_timeout", &mut config.call_timeout),
            ("connect_timeout", &mut config.connect_timeout),
            ("startup_timeout", &mut config.startup_timeout),
            ("keep_alive_interval", &mut config.keep_alive_interval),
            ("keep_alive_timeout", &mut config.keep_alive_timeout),
        ] {
            *field = options.duration(name)?.unwrap_or(*field);
        }
        let tls = options.flag("tls")?.unwrap_or(false);
        let files = ["ca_file", "cert_file", "key_file"].map(|name| options.text(name));
        config.tls = match (tls, files) {
            (false, [None, None, None]) => None,
            (true, [Some(ca_file), None, None]) => Some(TlsConfig::new(ca_file)),
            (true, [Some(ca_file), Some(cert), Some(key)]) => {
                Some(TlsConfig::new(ca_file).with_client_files(cert, key))
            }
            _ => {
                let problem = "tls=true needs ca_file, and perhaps cert_file together with key_file; \
                               the files need tls=true";
                return Err(Error::invalid("address", address.to_string(), problem));
            }
        };
        options.finish()?;
        config.check()?;
        Ok(config)
    }

    /// With a user and a password.
    #[must_use]
    pub fn with_user(mut self, user: impl Into<String>, password: Secret) -> Self {
        self.user = Some(user.into());
        self.password = Some(password);
        self
    }

    /// With TLS.
    #[must_use]
    pub fn with_tls(mut self, tls: TlsConfig) -> Self {
        self.tls = Some(tls);
        self
    }

    /// With this before every key in etcd.
    #[must_use]
    pub fn with_prefix(mut self, prefix: Prefix) -> Self {
        self.prefix = Some(prefix);
        self
    }

    /// With this bound on a call.
    #[must_use]
    pub fn with_call_timeout(mut self, timeout: Duration) -> Self {
        self.call_timeout = timeout;
        self
    }

    /// With this bound on dialling one server.
    #[must_use]
    pub fn with_connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// With this bound on waiting for a server that is not up.
    #[must_use]
    pub fn with_startup_timeout(mut self, timeout: Duration) -> Self {
        self.startup_timeout = timeout;
        self
    }

    /// With signs of life at this interval, each within this timeout.
    #[must_use]
    pub fn with_keep_alive(mut self, interval: Duration, timeout: Duration) -> Self {
        self.keep_alive_interval = interval;
        self.keep_alive_timeout = timeout;
        self
    }

    /// With this bound on a watch's silence.
    #[must_use]
    pub fn with_watch_silence_max(mut self, silence: Duration) -> Self {
        self.watch_silence_max = silence;
        self
    }

    /// With these bounds on what waits for the reader of a watch.
    #[must_use]
    pub fn with_watch_buffer(mut self, batches_max: usize, bytes_max: usize) -> Self {
        self.watch_buffer_batches_max = batches_max;
        self.watch_buffer_bytes_max = bytes_max;
        self
    }

    /// What is wrong with it, if anything is.
    pub(crate) fn check(&self) -> Result<()> {
        if self.endpoints.is_empty() {
            return Err(Error::invalid("etcd endpoints", "", "none is given; allowed: host:port"));
        }
        for endpoint in &self.endpoints {
            let authority = endpoint.parse::<http::uri::Authority>().ok();
            let complete = |it: http::uri::Authority| !it.host().is_empty() && it.port_u16().is_some();
            if !authority.is_some_and(complete) || endpoint.contains('@') {
                return Err(Error::invalid("etcd endpoint", endpoint, "allowed: host:port, [ipv6]:port"));
            }
        }
        match (&self.user, &self.password) {
            (Some(user), None) => {
                return Err(Error::invalid("etcd user", user, "the password is missing"));
            }
            (None, Some(_)) => {
                return Err(Error::invalid("etcd user", "", "there is a password, but no user"));
            }
            _ => {}
        }
        for (name, duration) in [
            ("call_timeout", self.call_timeout),
            ("connect_timeout", self.connect_timeout),
            ("keep_alive_timeout", self.keep_alive_timeout),
            ("watch_silence_max", self.watch_silence_max),
        ] {
            if duration.is_zero() {
                return Err(Error::invalid("duration", name, "it is zero, so nothing could ever succeed"));
            }
        }
        if self.keep_alive_interval < Self::KEEP_ALIVE_INTERVAL_MIN {
            let given = format!("keep_alive_interval={:?}", self.keep_alive_interval);
            return Err(Error::invalid("duration", given, "etcd ends connections pinged more often than 5s"));
        }
        if self.watch_buffer_batches_max == 0 || self.watch_buffer_bytes_max == 0 {
            return Err(Error::invalid("watch buffer", "0", "a watch needs room for something"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
