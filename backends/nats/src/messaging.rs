use std::sync::Arc;
use std::time::Duration;

use slipring_core::{
    Environment, Error, Message, Messaging, MessagingCapabilities, Result, Subscriber, Subscription,
    async_trait,
};

use crate::Config;

/// A handle to a connection to NATS. The connection closes with its last handle.
#[derive(Debug)]
pub struct NatsMessaging {
    config: Config,
    environment: Arc<dyn Environment>,
}

impl NatsMessaging {
    /// A handle on a connection of its own. Nothing is dialled before the first call.
    ///
    /// # Errors
    /// [`Invalid`](Error::Invalid) naming what is wrong with the configuration.
    pub fn new(config: Config, environment: Arc<dyn Environment>) -> Result<Self> {
        Ok(Self { config, environment })
    }

    /// Another handle on the same connection: for another runtime. Closing one leaves the others open.
    pub fn handle(&self) -> Self {
        Self { config: self.config.clone(), environment: self.environment.clone() }
    }
}

fn absent<T>() -> Result<T> {
    Err(Error::unsupported("NATS", "under construction"))
}

#[async_trait]
impl Messaging for NatsMessaging {
    async fn capabilities(&self) -> Result<MessagingCapabilities> {
        absent()
    }
    async fn publish(&self, _message: Message) -> Result<()> {
        absent()
    }
    async fn subscribe(&self, _subscription: Subscription) -> Result<Subscriber> {
        absent()
    }
    async fn request(&self, _message: Message, _timeout: Duration) -> Result<Message> {
        absent()
    }
    async fn flush(&self) -> Result<()> {
        absent()
    }
    async fn close(&self, _grace: Duration) -> Result<()> {
        absent()
    }
}
