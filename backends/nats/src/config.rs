use slipring_core::{Address, Result};

/// How to reach a NATS server or cluster.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Config {
    /// The servers, as `host:port`.
    pub servers: Vec<String>,
    /// What the subjects of inboxes begin with.
    pub inbox_prefix: String,
}

impl Config {
    /// The port of a NATS server.
    pub const PORT: u16 = 4222;

    /// These servers, each as `host:port`.
    pub fn new(servers: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self { servers: servers.into_iter().map(Into::into).collect(), inbox_prefix: "_INBOX".to_owned() }
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
