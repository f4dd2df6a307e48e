use std::time::Duration;

use futures_util::StreamExt;
use slipring_core::{
    Effect, Error, Message, Messaging, MessagingCapabilities, Result, Subject, Subscriber, Subscription,
    async_trait,
};
use tokio::task::consume_budget;
use tokio::time::timeout;

use super::client::{Client, Line, at_the_broker};
use super::discovery::unexpected;
use super::{Item, Reply, Request};

/// A bus at the far end of a connection: one handle of it. Its capabilities are known here.
#[derive(Debug)]
pub(crate) struct WireMessaging {
    client: Client,
    capabilities: MessagingCapabilities,
}

impl WireMessaging {
    pub(crate) fn new(client: Client, capabilities: MessagingCapabilities) -> Self {
        Self { client, capabilities }
    }

    /// What the far side would refuse without a word.
    fn check(&self, message: &Message) -> Result<()> {
        message.check(self.capabilities.payload_bytes_max)?;
        self.check_length("subject", &message.subject)?;
        message.reply.as_ref().map_or(Ok(()), |reply| self.check_length("reply subject", reply))
    }

    fn check_length(&self, what: &'static str, subject: &Subject) -> Result<()> {
        let max = self.capabilities.subject_bytes_max;
        if subject.as_str().len() <= max {
            return Ok(());
        }
        Err(Error::invalid(what, subject.as_str(), format!("allowed: at most {max} bytes")))
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Messaging for WireMessaging {
    async fn capabilities(&self) -> Result<MessagingCapabilities> {
        self.client.call(Request::Flush, Effect::None).await?;
        Ok(self.capabilities)
    }

    async fn publish(&self, message: Message) -> Result<()> {
        // A publisher in a hot loop lets its readers run.
        consume_budget().await;
        self.check(&message)?;
        self.client.publish(message).await
    }

    async fn subscribe(&self, subscription: Subscription) -> Result<Subscriber> {
        let request = Request::Subscribe { subscription: at_the_broker(subscription.clone()) };
        let (_, items) = self.client.open(request, Line::subscription(subscription)).await?;
        let stop = items.stopper();
        let messages = items.map(|item| match item? {
            Item::Message { message } => Ok(message),
            Item::Batch { .. } => {
                Err(Error::unavailable("the broker", "a batch in a subscription", Effect::None))
            }
        });
        Ok(Subscriber::new(messages, stop))
    }

    async fn request(&self, message: Message, within: Duration) -> Result<Message> {
        self.check(&message)?;
        let subject = message.subject.clone();
        let ask = Request::Ask { message, timeout: within };
        match timeout(within, self.client.call(ask, Effect::Unknown)).await {
            Ok(Ok(Reply::Message { message })) => Ok(message),
            Ok(Ok(other)) => Err(unexpected(&other)),
            Ok(Err(error)) => Err(error),
            Err(_) => {
                Err(Error::deadline_exceeded(format!("a request to {subject}"), within, Effect::Unknown))
            }
        }
    }

    async fn flush(&self) -> Result<()> {
        self.client.flush().await
    }

    async fn close(&self, grace: Duration) -> Result<()> {
        self.client.close(grace).await
    }
}
