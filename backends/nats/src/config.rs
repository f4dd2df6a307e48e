use std::path::PathBuf;
use std::time::Duration;

use async_nats::{ConnectOptions, ServerAddr};
use slipring_core::{Address, Error, Options, Result, Secret, Subject};

/// How to reach a NATS server or cluster.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Config {
    /// The servers, as `host:port`; tried in turn.
    pub servers: Vec<String>,
    /// Who we are.
    pub credentials: Credentials,
    /// TLS, if the connection is to be encrypted. Needs the feature `tls`.
    pub tls: Option<Tls>,
    /// The name of the connection, as the server's monitoring shows it.
    pub name: Option<String>,
    /// What the subjects of inboxes begin with. Publishing and subscribing below it has to be permitted.
    pub inbox_prefix: String,
    /// How long [`capabilities`](slipring_core::Messaging::capabilities) waits for a server.
    pub startup_timeout: Duration,
    /// How long connecting to one server may take.
    pub connection_timeout: Duration,
    /// How long a connection may be silent before it is tested. After three times that without a sign of life it
    /// counts as lost.
    pub ping_interval: Duration,
    /// How long a message may wait for room in the queue of a connection that is stuck.
    pub queue_timeout: Duration,
}

/// Who we are, to a NATS server.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub enum Credentials {
    /// Nobody in particular.
    #[default]
    None,
    /// A user with a password.
    Password {
        /// The user.
        user: String,
        /// The password.
        password: Secret,
    },
    /// Whoever knows this.
    Token(Secret),
    /// Whoever holds this seed of a key pair (`SU..`).
    Nkey(Secret),
    /// The content of a credentials file: a JWT and the seed of its key pair.
    File(Secret),
}

/// Whom to trust, and what to show, when connecting over TLS.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tls {
    /// The PEM file with the certificate authorities to trust; those of the system if there is none.
    pub ca_file: Option<PathBuf>,
    /// The PEM files with our certificate and its key, if the server wants to see one.
    pub identity_files: Option<(PathBuf, PathBuf)>,
}

impl Config {
    /// The port of a NATS server.
    pub const PORT: u16 = 4222;

    /// The longest prefix of inboxes, in bytes: two tokens have to fit behind it.
    const INBOX_PREFIX_BYTES_MAX: usize = Subject::BYTES_MAX - ".0123456789abcdef.18446744073709551615".len();

    /// These servers, each as `host:port`.
    pub fn new(servers: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            servers: servers.into_iter().map(Into::into).collect(),
            credentials: Credentials::None,
            tls: None,
            name: None,
            inbox_prefix: "_INBOX".to_owned(),
            startup_timeout: Duration::from_secs(30),
            connection_timeout: Duration::from_secs(2),
            ping_interval: Duration::from_secs(2),
            queue_timeout: Duration::from_secs(2),
        }
    }

    /// What an address such as `nats://user@host:4222,host2?password_file=/run/secrets/nats&tls=true` says.
    ///
    /// Options: `name`, `inbox_prefix`; `startup_timeout`, `connection_timeout`, `ping_interval`, `queue_timeout`;
    /// `tls`, `ca_file`, `cert_file`, `key_file`; and, each with `_file` or `_env`, `password`, `token`, `nkey`,
    /// `credentials`.
    ///
    /// # Errors
    /// [`Invalid`](slipring_core::Error::Invalid) naming what is wrong, also for an option that does not exist.
    pub fn from_address(address: &Address) -> Result<Self> {
        let options = address.options();
        let mut config = Self::new(address.hosts().iter().map(|host| host.with_default_port(Self::PORT)));
        config.credentials = Credentials::from_address(address, &options)?;
        config.tls = Tls::from_options(address, &options)?;
        config.name = options.text("name").map(str::to_owned);
        if let Some(prefix) = options.text("inbox_prefix") {
            config.inbox_prefix = prefix.to_owned();
        }
        for (name, field) in [
            ("startup_timeout", &mut config.startup_timeout),
            ("connection_timeout", &mut config.connection_timeout),
            ("ping_interval", &mut config.ping_interval),
            ("queue_timeout", &mut config.queue_timeout),
        ] {
            *field = options.duration(name)?.unwrap_or(*field);
        }
        options.finish()?;
        config.check()?;
        Ok(config)
    }

    /// With these credentials.
    #[must_use]
    pub fn with_credentials(mut self, credentials: Credentials) -> Self {
        self.credentials = credentials;
        self
    }

    /// Over TLS.
    #[must_use]
    pub fn with_tls(mut self, tls: Tls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// With a name for the server's monitoring.
    #[must_use]
    pub fn with_name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// With inboxes below this subject: what a deployment's permissions allow.
    #[must_use]
    pub fn with_inbox_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.inbox_prefix = prefix.into();
        self
    }

    /// With this time to wait for a server at first.
    #[must_use]
    pub fn with_startup_timeout(mut self, time: Duration) -> Self {
        self.startup_timeout = time;
        self
    }

    /// With this bound on connecting to one server.
    #[must_use]
    pub fn with_connection_timeout(mut self, time: Duration) -> Self {
        self.connection_timeout = time;
        self
    }

    /// With this interval of pings.
    #[must_use]
    pub fn with_ping_interval(mut self, interval: Duration) -> Self {
        self.ping_interval = interval;
        self
    }

    /// With this bound on waiting for room in the queue of a stuck connection.
    #[must_use]
    pub fn with_queue_timeout(mut self, time: Duration) -> Self {
        self.queue_timeout = time;
        self
    }

    /// # Errors
    /// `Invalid` naming what could never work.
    pub(crate) fn check(&self) -> Result<()> {
        if self.servers.is_empty() {
            return Err(Error::invalid("NATS servers", "", "there is none; allowed: host:port"));
        }
        for server in &self.servers {
            let problem = "allowed: host:port (credentials are given apart)";
            let shown = if server.contains('@') { ".." } else { server };
            if server.contains(['@', '/']) || !address(server).is_ok_and(|parsed| !parsed.host().is_empty()) {
                return Err(Error::invalid("NATS server", shown, problem));
            }
        }
        Subject::new(&self.inbox_prefix)?;
        if self.inbox_prefix.len() > Self::INBOX_PREFIX_BYTES_MAX {
            let problem = format!("it is longer than {} bytes", Self::INBOX_PREFIX_BYTES_MAX);
            return Err(Error::invalid("inbox prefix", &self.inbox_prefix, problem));
        }
        for (what, time) in [
            ("connection_timeout", self.connection_timeout),
            ("ping_interval", self.ping_interval),
            ("queue_timeout", self.queue_timeout),
        ] {
            if time.is_zero() {
                return Err(Error::invalid(what, "0", "it has to be longer than nothing"));
            }
        }
        // Credentials are looked at here and not when the first connection fails.
        self.credentials.apply(ConnectOptions::new()).map(drop)
    }
}

/// A server's address, as the client library wants it.
pub(crate) fn address(server: &str) -> Result<ServerAddr> {
    let parsed = server.parse();
    parsed.map_err(|problem| Error::invalid("NATS server", server, format!("{problem}; allowed: host:port")))
}

impl Credentials {
    fn from_address(address: &Address, options: &Options<'_>) -> Result<Self> {
        let password = match (address.password(), options.secret("password")?) {
            (Some(_), Some(_)) => return Err(invalid(address, "it has two passwords; allowed: one")),
            (inside, outside) => inside.cloned().or(outside),
        };
        let of_user = match (address.user(), password) {
            (None, None) => None,
            (Some(user), Some(password)) => Some(Self::Password { user: user.to_owned(), password }),
            (Some(_), None) => {
                return Err(invalid(address, "the user has no password; give password_file or password_env"));
            }
            (None, Some(_)) => return Err(invalid(address, "the password has no user; give user@host")),
        };
        let others = [
            options.secret("token")?.map(Self::Token),
            options.secret("nkey")?.map(Self::Nkey),
            options.secret("credentials")?.map(Self::File),
        ];
        let mut given = others.into_iter().chain([of_user]).flatten();
        match (given.next(), given.next()) {
            (Some(_), Some(_)) => Err(invalid(
                address,
                "it has several kinds of credentials; allowed: one of user and password, token, nkey, credentials",
            )),
            (one, _) => Ok(one.unwrap_or_default()),
        }
    }

    /// # Errors
    /// `Invalid` if they are none.
    pub(crate) fn apply(&self, options: ConnectOptions) -> Result<ConnectOptions> {
        Ok(match self {
            Self::None => options,
            Self::Password { user, password } => {
                options.user_and_password(user.clone(), password.expose().to_owned())
            }
            Self::Token(token) => options.token(token.expose().to_owned()),
            Self::Nkey(seed) => options.nkey(seed.expose().to_owned()),
            // The client library finds no seed without a line break after it.
            Self::File(content) => {
                let read = options.credentials(&format!("{}\n", content.expose()));
                read.map_err(|_| {
                    Error::invalid("NATS credentials", "..", "allowed: the content of a .creds file")
                })?
            }
        })
    }
}

impl Tls {
    /// With the certificate authorities that the system trusts.
    pub fn new() -> Self {
        Self::default()
    }

    /// Trusting the authorities in this PEM file, and no others.
    #[must_use]
    pub fn with_ca_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.ca_file = Some(path.into());
        self
    }

    /// Showing the server this certificate, with its key; both are PEM files.
    #[must_use]
    pub fn with_identity_files(mut self, certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        self.identity_files = Some((certificate.into(), key.into()));
        self
    }

    fn from_options(address: &Address, options: &Options<'_>) -> Result<Option<Self>> {
        let wanted = options.flag("tls")?;
        let path = |name| options.text(name).map(PathBuf::from);
        let identity_files = match (path("cert_file"), path("key_file")) {
            (None, None) => None,
            (Some(certificate), Some(key)) => Some((certificate, key)),
            _ => return Err(invalid(address, "cert_file and key_file go together")),
        };
        let tls = Self { ca_file: path("ca_file"), identity_files };
        match wanted {
            Some(true) => Ok(Some(tls)),
            None | Some(false) if tls == Self::default() => Ok(None),
            None | Some(false) => Err(invalid(address, "it names certificates; add tls=true")),
        }
    }
}

fn invalid(address: &Address, problem: &str) -> Error {
    Error::invalid("address", address.to_string(), problem)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Config> {
        Config::from_address(&text.parse().unwrap())
    }

    /// Every option is read, and has a default.
    #[test]
    fn an_address_says_it_all() {
        let text = "nats://me:p%40ss@one,two:7?name=n&inbox_prefix=a.b&startup_timeout=1s&connection_timeout=2s\
                    &ping_interval=3s&queue_timeout=4s&tls=true&ca_file=c&cert_file=d&key_file=e";
        let config = read(text).unwrap();
        assert_eq!(config.servers, ["one:4222", "two:7"]);
        let Credentials::Password { user, password } = &config.credentials else { panic!("{config:?}") };
        assert_eq!((user.as_str(), password.expose()), ("me", "p@ss"));
        assert_eq!((config.name.as_deref(), config.inbox_prefix.as_str()), (Some("n"), "a.b"));
        let times =
            [config.startup_timeout, config.connection_timeout, config.ping_interval, config.queue_timeout];
        assert_eq!(times.map(|time| time.as_secs()), [1, 2, 3, 4]);
        assert_eq!(config.tls, Some(Tls::new().with_ca_file("c").with_identity_files("d", "e")));
        let bare = read("nats://h").unwrap();
        assert!(matches!(bare.credentials, Credentials::None) && bare.tls.is_none());
        assert_eq!(bare.inbox_prefix, "_INBOX");
    }

    /// Each mistake names what is wrong.
    #[test]
    fn mistakes_are_named() {
        for (text, words) in [
            ("nats:", "there is none"),
            ("nats://h?tsl=true", "unknown option \"tsl\""),
            ("nats://h?ping_interval=2", "ping_interval=\"2\""),
            ("nats://h?ping_interval=0s", "ping_interval"),
            ("nats://me@h", "no password"),
            ("nats://:secret@h", "no user"),
            ("nats://me:secret@h?token_env=HOME", "several kinds"),
            ("nats://me:secret@h?password_env=HOME", "two passwords"),
            ("nats://h?credentials_env=HOME", ".creds"),
            ("nats://h?ca_file=x", "tls=true"),
            ("nats://h?tls=false&ca_file=x", "tls=true"),
            ("nats://h?tls=true&cert_file=x", "go together"),
            ("nats://h?inbox_prefix=a..b", "\"a..b\" at byte 2"),
            ("nats://h?inbox_prefix=a.*", "wildcard"),
        ] {
            let error = read(text).unwrap_err();
            assert_eq!(error.code(), "invalid", "{text}");
            let shown = error.to_string();
            assert!(shown.contains(words) && !shown.contains("secret"), "{text}: {shown}");
        }
        assert!(read(&format!("nats://h?inbox_prefix={}", "p".repeat(218))).is_err());
        assert!(read(&format!("nats://h?inbox_prefix={}", "p".repeat(217))).is_ok());
        for server in ["nats://h:1", "me:hunter2@h:1", "h h", ""] {
            let error = Config::new([server]).check().unwrap_err().to_string();
            assert!(error.contains("host:port") && !error.contains("hunter2"), "{error}");
        }
    }

    /// Secrets are not shown.
    #[test]
    fn debug_shows_no_secret() {
        let secret = || Secret::new("hunter2");
        for credentials in [
            Credentials::Password { user: "me".to_owned(), password: secret() },
            Credentials::Token(secret()),
            Credentials::Nkey(secret()),
            Credentials::File(secret()),
        ] {
            let shown = format!("{:?}", Config::new(["h:1"]).with_credentials(credentials));
            assert!(!shown.contains("hunter2"), "{shown}");
        }
    }
}
