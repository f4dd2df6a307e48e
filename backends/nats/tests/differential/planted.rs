//! A bus with a planted difference: the test of the test.

use std::time::Duration;

use slipring_core::{
    Headers, Message, Messaging, MessagingCapabilities, Result, Subscriber, Subscription, async_trait,
};

/// What a [`Planted`] bus does wrong.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Flaw {
    /// Of several values under a name only the first arrives.
    OneValue,
    /// Nobody is told that nobody was there.
    SilentAboutNobody,
    /// A queue group counts for nothing: each member gets everything.
    NoGroups,
    /// A subject that only looks like a wildcard is lost.
    LosesStars,
}

/// A handle to a bus, with one flaw.
#[derive(Debug)]
pub(crate) struct Planted<M> {
    pub bus: M,
    pub flaw: Flaw,
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<M: Messaging> Messaging for Planted<M> {
    async fn capabilities(&self) -> Result<MessagingCapabilities> {
        self.bus.capabilities().await
    }

    async fn publish(&self, mut message: Message) -> Result<()> {
        match self.flaw {
            Flaw::OneValue => {
                let mut headers = Headers::new();
                for (name, value) in message.headers.iter() {
                    if headers.first(name).is_none() {
                        headers.append(name.to_owned(), value)?;
                    }
                }
                message.headers = headers;
            }
            Flaw::SilentAboutNobody => message.reply = None,
            Flaw::LosesStars if message.subject.as_str().contains('*') => return Ok(()),
            _ => {}
        }
        self.bus.publish(message).await
    }

    async fn subscribe(&self, mut subscription: Subscription) -> Result<Subscriber> {
        if matches!(self.flaw, Flaw::NoGroups) {
            subscription.queue = None;
        }
        self.bus.subscribe(subscription).await
    }

    async fn request(&self, message: Message, timeout: Duration) -> Result<Message> {
        self.bus.request(message, timeout).await
    }

    async fn flush(&self) -> Result<()> {
        self.bus.flush().await
    }

    async fn close(&self, grace: Duration) -> Result<()> {
        self.bus.close(grace).await
    }
}
