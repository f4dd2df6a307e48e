use slipring_core::{Address, Result};

/// How to reach an etcd cluster.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Config {
    /// The servers, as `host:port`.
    pub endpoints: Vec<String>,
}

impl Config {
    /// The port of etcd's clients.
    pub const PORT: u16 = 2379;

    /// These servers, each as `host:port`.
    pub fn new(endpoints: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self { endpoints: endpoints.into_iter().map(Into::into).collect() }
    }

    /// What an address such as `etcd://host:2379,host2:2379` says.
    ///
    /// # Errors
    /// [`Invalid`](slipring_core::Error::Invalid) naming what is wrong.
    pub fn from_address(address: &Address) -> Result<Self> {
        let hosts = address.hosts().iter();
        Ok(Self::new(hosts.map(|host| host.with_default_port(Self::PORT))))
    }
}
