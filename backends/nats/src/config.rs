use std::time::Duration;

use async_nats::ConnectOptions;
use slipring_core::{Address, Error, Result, Secret};

/// How to reach a NATS server or cluster.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Config {
    /// The servers, as `host:port`; tried in turn.
    pub servers: Vec<String>,
    /// Who we are.
    pub credentials: Credentials,
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

impl Config {
    /// The port of a NATS server.
    pub const PORT: u16 = 4222;

    /// These servers, each as `host:port`.
    pub fn new(servers: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            servers: servers.into_iter().map(Into::into).collect(),
            credentials: Credentials::None,
            name: None,
            inbox_prefix: "_INBOX".to_owned(),
            startup_timeout: Duration::from_secs(30),
            connection_timeout: Duration::from_secs(2),
            ping_interval: Duration::from_secs(2),
            queue_timeout: Duration::from_secs(2),
        }
    }

    /// What an address such as `nats://host:4222,host2:4222` says.
    ///
    /// # Errors
    /// [`Invalid`](slipring_core::Error::Invalid) naming what is wrong.
    pub fn from_address(address: &Address) -> Result<Self> {
        let hosts = address.hosts().iter();
        Ok(Self::new(hosts.map(|host| host.with_default_port(Self::PORT))))
    }

    /// With inboxes below this subject: what a deployment's permissions allow.
    #[must_use]
    pub fn with_inbox_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.inbox_prefix = prefix.into();
        self
    }
}

impl Credentials {
    pub(crate) fn apply(&self, options: ConnectOptions) -> Result<ConnectOptions> {
        Ok(match self {
            Self::None => options,
            Self::Password { user, password } => {
                options.user_and_password(user.clone(), password.expose().to_owned())
            }
            Self::Token(token) => options.token(token.expose().to_owned()),
            Self::Nkey(seed) => options.nkey(seed.expose().to_owned()),
            // The reader of the client library wants a line break at the end.
            Self::File(content) => options.credentials(&format!("{}\n", content.expose())).map_err(|_| {
                Error::invalid("NATS credentials", "..", "expected the content of a .creds file")
            })?,
        })
    }
}
