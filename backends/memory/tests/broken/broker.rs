use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::{StreamExt, future, stream};
use slipring_core::{
    BoxStream, Effect, Error, Headers, Message, Messaging, MessagingCapabilities, Pattern, Result,
    Subscriber, Subscription, async_trait,
};

faults! {
    /// How a broker is broken.
    BrokerFault {
        QueueToAll,
        TakesUndeclared,
        SwallowsNoResponders,
        LimitUnchecked,
        HeadersUncounted,
        DropsHeaders,
        StopLoses,
        SubscribesLate,
        HidesLoss,
        Reorders,
        Duplicates,
        GreedyWildcard,
        CrossesReplies,
        GivesUpEarly,
        DeadlineWithoutEffect,
        CloseClosesAll,
        CloseIdle,
        DeclaresNothing,
        FlushWaits,
        PublishNeedsReaders,
    }
}

use BrokerFault::*;

/// The limit that is declared by those who do not check it.
const PAYLOAD_BYTES_MAX: usize = 2000;

/// A broker with one fault in front of it.
#[derive(Debug)]
pub(crate) struct BrokenBroker {
    inner: Arc<dyn Messaging>,
    fault: BrokerFault,
    /// A reply that waits for the request after its own.
    crossed: Mutex<Option<Message>>,
}

impl BrokenBroker {
    pub(crate) fn new(inner: Arc<dyn Messaging>, fault: BrokerFault) -> Self {
        Self { inner, fault, crossed: Mutex::default() }
    }

    fn cross(&self, reply: Message) -> Message {
        self.crossed.lock().unwrap().replace(reply.clone()).unwrap_or(reply)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Messaging for BrokenBroker {
    async fn capabilities(&self) -> Result<MessagingCapabilities> {
        let can = self.inner.capabilities().await?;
        Ok(match self.fault {
            TakesUndeclared => can.with_wildcards(false).with_queue_groups(false),
            DeclaresNothing => can.with_payload_bytes_max(0),
            LimitUnchecked | HeadersUncounted => can.with_payload_bytes_max(PAYLOAD_BYTES_MAX),
            _ => can,
        })
    }

    async fn publish(&self, mut message: Message) -> Result<()> {
        match self.fault {
            DropsHeaders => message.headers = Headers::new(),
            HeadersUncounted if message.payload.len() > PAYLOAD_BYTES_MAX => {
                return Err(Error::payload_too_large(PAYLOAD_BYTES_MAX, message.payload.len()));
            }
            Duplicates => self.inner.publish(message.clone()).await?,
            PublishNeedsReaders => return Err(Error::no_responders(message.subject.as_str())),
            _ => {}
        }
        self.inner.publish(message).await
    }

    async fn subscribe(&self, mut subscription: Subscription) -> Result<Subscriber> {
        match self.fault {
            QueueToAll => subscription.queue = None,
            GreedyWildcard => {
                let text = subscription.pattern.as_str();
                let greedy = text.strip_suffix('*').map(|start| Pattern::new(format!("{start}>")));
                subscription.pattern = greedy.unwrap_or(Ok(subscription.pattern))?;
            }
            SubscribesLate => {
                let inner = self.inner.clone();
                let late = async move {
                    match inner.subscribe(subscription).await {
                        Ok(messages) => messages.boxed(),
                        Err(error) => stream::iter([Err(error)]).boxed(),
                    }
                };
                return Ok(Subscriber::new(stream::once(late).flatten(), || {}));
            }
            _ => {}
        }
        let inner = Arc::new(Mutex::new(self.inner.subscribe(subscription).await?));
        let stopped = Arc::new(AtomicBool::new(false));
        let stop = {
            let (inner, stopped) = (inner.clone(), stopped.clone());
            move || {
                inner.lock().unwrap().stop();
                stopped.store(true, Ordering::Release);
            }
        };
        let messages = stream::poll_fn(move |cx| inner.lock().unwrap().poll_next_unpin(cx));
        let messages: BoxStream<'static, _> = match self.fault {
            StopLoses => {
                messages.take_while(move |_| future::ready(!stopped.load(Ordering::Acquire))).boxed()
            }
            HidesLoss => messages.filter(|message| future::ready(message.is_ok())).boxed(),
            SwallowsNoResponders => {
                let told = |message: &Result<Message>| message.as_ref().is_ok_and(|m| m.no_responders);
                messages.filter(move |message| future::ready(!told(message))).boxed()
            }
            Reorders => {
                let pairs = messages.ready_chunks(2);
                pairs.flat_map(|pair| stream::iter(pair.into_iter().rev())).boxed()
            }
            _ => messages.boxed(),
        };
        Ok(Subscriber::new(messages, stop))
    }

    async fn request(&self, message: Message, timeout: Duration) -> Result<Message> {
        let given = if self.fault == GivesUpEarly { timeout / 2 } else { timeout };
        match (self.fault, self.inner.request(message, given).await) {
            (SwallowsNoResponders, Err(Error::NoResponders { .. })) => {
                tokio::time::sleep(timeout).await;
                Err(Error::deadline_exceeded("the request", timeout, Effect::Unknown))
            }
            (DeadlineWithoutEffect, Err(Error::DeadlineExceeded { what, after, .. })) => {
                Err(Error::deadline_exceeded(what, after, Effect::None))
            }
            (CrossesReplies, Ok(reply)) => Ok(self.cross(reply)),
            (_, answer) => answer,
        }
    }

    async fn flush(&self) -> Result<()> {
        if self.fault == FlushWaits {
            return future::pending().await;
        }
        self.inner.flush().await
    }

    async fn close(&self, grace: Duration) -> Result<()> {
        if self.fault == CloseIdle {
            return Ok(());
        }
        self.inner.close(grace).await
    }
}
