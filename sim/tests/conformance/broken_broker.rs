//! Brokers that are broken in what they do about outages.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::{StreamExt, future, stream};
use slipring_core::{
    BoxStream, Effect, Environment, EnvironmentExt, Error, Message, Messaging, MessagingCapabilities, Result,
    Subscriber, Subscription, async_trait,
};
use slipring_sim::{Link, LinkMode};
use tokio::time::sleep;

/// How a broker is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BrokerFault {
    /// A subscription falls silent when its connection ends.
    LosesSubscriptions,
    /// A subscription does not tell that something was lost.
    HidesLoss,
    /// A subscription ends where something was lost.
    EndsAtLoss,
    /// A subscription is restored a second time.
    RestoresTwice,
    /// A member of a queue group is restored as a plain subscription.
    LeavesTheGroup,
    /// Keeps what it refused, and sends it later.
    QueuesPublishes,
    /// A request that was under way never ends.
    HangsInFlight,
    /// A request that was under way is said to have had no effect.
    InFlightIsNone,
    /// Closing waits for the broker.
    CloseWaits,
    /// The end of a subscription waits for the broker.
    StopWaits,
}

use BrokerFault::*;

const PAUSE: Duration = Duration::from_millis(10);

/// A broker with one fault in front of it.
#[derive(Debug)]
pub(crate) struct BrokenBroker {
    inner: Arc<dyn Messaging>,
    fault: BrokerFault,
    link: Link,
    environment: Arc<dyn Environment>,
}

impl BrokenBroker {
    pub(crate) fn new(
        inner: Arc<dyn Messaging>,
        fault: BrokerFault,
        link: Link,
        environment: Arc<dyn Environment>,
    ) -> Self {
        Self { inner, fault, link, environment }
    }
}

fn is_loss(item: &Result<Message>) -> bool {
    matches!(item, Err(Error::Lagged { .. }))
}

/// The messages of a subscription, and how to stop it meanwhile.
fn shared(subscriber: Subscriber) -> (BoxStream<'static, Result<Message>>, Box<dyn FnOnce() + Send>) {
    let subscriber = Arc::new(Mutex::new(subscriber));
    let other = subscriber.clone();
    let messages = stream::poll_fn(move |cx| other.lock().unwrap().poll_next_unpin(cx));
    (messages.boxed(), Box::new(move || subscriber.lock().unwrap().stop()))
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Messaging for BrokenBroker {
    async fn capabilities(&self) -> Result<MessagingCapabilities> {
        self.inner.capabilities().await
    }

    async fn publish(&self, message: Message) -> Result<()> {
        let published = self.inner.publish(message.clone()).await;
        if self.fault == QueuesPublishes && published.is_err() {
            let inner = self.inner.clone();
            let late = async move {
                while inner.publish(message.clone()).await.is_err() {
                    sleep(PAUSE).await;
                }
            };
            self.environment.start("a late publish", late).detach();
        }
        published
    }

    async fn subscribe(&self, subscription: Subscription) -> Result<Subscriber> {
        let plain = Subscription::new(subscription.pattern.clone());
        let (messages, stop) = shared(self.inner.subscribe(subscription).await?);
        let until_loss = |item: &Result<Message>| future::ready(!is_loss(item));
        let messages: BoxStream<'static, _> = match self.fault {
            LosesSubscriptions => messages.take_while(until_loss).chain(stream::pending()).boxed(),
            HidesLoss => messages.filter(until_loss).boxed(),
            EndsAtLoss => messages.take_while(until_loss).boxed(),
            RestoresTwice => {
                let twice = messages.scan(1, |times, item| {
                    *times = if is_loss(&item) { 2 } else { *times };
                    future::ready(Some(stream::iter(vec![item; *times])))
                });
                twice.flatten().boxed()
            }
            LeavesTheGroup => {
                // The plain one stands by from the beginning, and is listened to after the loss.
                let (others, stop_others) = shared(self.inner.subscribe(plain).await?);
                let both =
                    stream::select(messages.map(|item| (true, item)), others.map(|item| (false, item)));
                let left = both.scan(false, |left, (member, item)| {
                    *left |= member && is_loss(&item);
                    future::ready(Some((*left != member).then_some(item)))
                });
                let messages = left.filter_map(future::ready);
                return Ok(Subscriber::new(messages, move || {
                    [stop, stop_others].into_iter().for_each(|stop| stop())
                }));
            }
            StopWaits => {
                let link = self.link.clone();
                let opened = async move {
                    while link.mode() != LinkMode::Open {
                        sleep(PAUSE).await;
                    }
                    None
                };
                messages.chain(stream::once(opened).filter_map(future::ready)).boxed()
            }
            _ => messages.boxed(),
        };
        Ok(Subscriber::new(messages, stop))
    }

    async fn request(&self, message: Message, timeout: Duration) -> Result<Message> {
        let subject = message.subject.clone();
        match (self.fault, self.inner.request(message, timeout).await) {
            (HangsInFlight, Err(Error::Unavailable { .. })) => future::pending().await,
            (InFlightIsNone, Err(Error::Unavailable { .. })) => {
                Err(Error::unavailable(subject.as_str(), "broken", Effect::None))
            }
            (_, answer) => answer,
        }
    }

    async fn flush(&self) -> Result<()> {
        self.inner.flush().await
    }

    async fn close(&self, grace: Duration) -> Result<()> {
        while self.fault == CloseWaits && self.link.mode() != LinkMode::Open {
            sleep(PAUSE).await;
        }
        self.inner.close(grace).await
    }
}
