use std::fmt::{self, Debug};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{Stream, StreamExt};

use crate::service::{Service, ServiceName, ServiceReport, ServiceSpec, inspect};
use crate::{Environment, Message, Pattern, QueueGroup, Result, Subject};

/// What a broker can do. A backend starts from [`MessagingCapabilities::minimal`] and declares more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct MessagingCapabilities {
    /// Can subscriptions share a subject so that one of them gets each message?
    pub queue_groups: bool,
    /// May a subscription's pattern hold `*` and `>`?
    pub wildcards: bool,
    /// Do headers arrive? The component model requires them.
    pub headers: bool,
    /// Is a publish with a reply subject answered at once when nobody is subscribed?
    pub no_responders: bool,
    /// The largest message (headers and payload), in bytes.
    pub payload_bytes_max: usize,
    /// The longest subject, in bytes.
    pub subject_bytes_max: usize,
}

impl MessagingCapabilities {
    /// The least a broker may do: exact subjects, headers, 64 KiB.
    pub fn minimal() -> Self {
        Self {
            queue_groups: false,
            wildcards: false,
            headers: true,
            no_responders: false,
            payload_bytes_max: 64 * 1024,
            subject_bytes_max: 255,
        }
    }

    /// With queue groups, or not.
    #[must_use]
    pub fn with_queue_groups(mut self, queue_groups: bool) -> Self {
        self.queue_groups = queue_groups;
        self
    }

    /// With wildcards, or not.
    #[must_use]
    pub fn with_wildcards(mut self, wildcards: bool) -> Self {
        self.wildcards = wildcards;
        self
    }

    /// With headers, or not.
    #[must_use]
    pub fn with_headers(mut self, headers: bool) -> Self {
        self.headers = headers;
        self
    }

    /// With an answer where nobody is subscribed, or not.
    #[must_use]
    pub fn with_no_responders(mut self, no_responders: bool) -> Self {
        self.no_responders = no_responders;
        self
    }

    /// With messages up to this size, in bytes.
    #[must_use]
    pub fn with_payload_bytes_max(mut self, bytes: usize) -> Self {
        self.payload_bytes_max = bytes;
        self
    }

    /// With subjects up to this length, in bytes.
    #[must_use]
    pub fn with_subject_bytes_max(mut self, bytes: usize) -> Self {
        self.subject_bytes_max = bytes;
        self
    }
}

/// What to subscribe to.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Subscription {
    /// The subjects.
    pub pattern: Pattern,
    /// Share the messages with the other members of this group.
    pub queue: Option<QueueGroup>,
    /// How many messages wait for the reader before the newest are dropped, at least 1.
    pub messages_max: usize,
}

impl Subscription {
    /// How many messages wait by default.
    pub const MESSAGES_MAX: usize = 65_536;

    /// A subscription of its own, with the default bound.
    pub fn new(pattern: impl Into<Pattern>) -> Self {
        Self { pattern: pattern.into(), queue: None, messages_max: Self::MESSAGES_MAX }
    }

    /// As a member of a queue group.
    #[must_use]
    pub fn with_queue(mut self, queue: QueueGroup) -> Self {
        self.queue = Some(queue);
        self
    }

    /// With this bound on waiting messages, at least 1.
    #[must_use]
    pub fn with_messages_max(mut self, messages: usize) -> Self {
        self.messages_max = messages.max(1);
        self
    }
}

/// The messages of a subscription, as a stream.
///
/// # Contract
/// [`Error::Lagged`](crate::Error::Lagged) stands where messages were dropped, with their exact number, and is
/// not the end; any other error is. After [`stop`](Self::stop) the stream yields what the broker had already
/// routed to it and then ends; once ended it stays so, however often it is asked. Dropping it unsubscribes and
/// discards what was not read.
pub struct Subscriber {
    messages: BoxStream<'static, Result<Message>>,
    stop: Option<Box<dyn FnOnce() + Send>>,
}

impl Subscriber {
    /// What a backend returns: the messages, and how to ask the broker for no more.
    pub fn new(
        messages: impl Stream<Item = Result<Message>> + Send + 'static,
        stop: impl FnOnce() + Send + 'static,
    ) -> Self {
        Self { messages: Box::pin(messages.fuse()), stop: Some(Box::new(stop)) }
    }

    /// Unsubscribes: what was already accepted is still yielded, then the stream ends. Again is no-op.
    pub fn stop(&mut self) {
        if let Some(stop) = self.stop.take() {
            stop();
        }
    }
}

impl Stream for Subscriber {
    type Item = Result<Message>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.messages.as_mut().poll_next(cx)
    }
}

impl Debug for Subscriber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscriber").field("stopped", &self.stop.is_none()).finish_non_exhaustive()
    }
}

/// Publish and subscribe on subjects. A value is a handle: closing it never closes a connection that other
/// handles share.
///
/// # Contract
/// *Delivery* is at most once. Messages that one handle publishes reach one subscription in the order of
/// their publishes; between publishers there is no order. Every plain subscription that matches gets its own
/// copy (also of what its own handle publishes); of each queue group exactly one member does. Members of one
/// group may have different patterns.
///
/// *Size*: a message over `payload_bytes_max` ([`Message::wire_bytes`]) is refused with `PayloadTooLarge`
/// before anything is sent; a subject over `subject_bytes_max` with `Invalid`.
///
/// *Disconnected*: publishing fails with `Unavailable`, effect none; nothing is kept to be sent later.
/// Subscriptions are restored by the backend, and what was lost meanwhile is reported as `Lagged`, with 0 if
/// the number cannot be known.
///
/// *Silence*: a broker that stands still is noticed. Where there is a network, every call ends within a bound
/// that the backend documents, as `DeadlineExceeded` or `Unavailable`.
///
/// *Cancellation*: a dropped publish has effect unknown; a dropped subscribe leaves nothing; a dropped
/// request may have been executed, and its late reply is discarded.
///
/// # Wrappers
/// Forward every method, and set `#[deny(clippy::missing_trait_methods)]` on the impl.
#[async_trait]
pub trait Messaging: Debug + Send + Sync + 'static {
    /// Reaches the broker and says what it can do. Waits, within a bound that the backend documents, until it
    /// is usable. The answer never changes for one handle.
    ///
    /// # Errors
    /// `Unavailable` when the bound has passed, or once the handle is closed; `Unauthorized`; `Unsupported` for a
    /// server too old.
    async fn capabilities(&self) -> Result<MessagingCapabilities>;

    /// Hands a message to the broker. `Ok` does not mean that anybody got it. With a reply subject and nobody
    /// subscribed, a message with `no_responders` set arrives at a plain subscription of this handle to the
    /// reply subject (at one of them, and at nobody else's), where that capability is declared.
    ///
    /// # Errors
    /// `PayloadTooLarge`, `Unavailable`: effect none.
    async fn publish(&self, message: Message) -> Result<()>;

    /// Subscribes. When it resolves, the broker routes to it: whatever anybody publishes afterwards arrives.
    ///
    /// # Errors
    /// `Unsupported` for a wildcard or a queue group that the backend does not declare. `Unavailable`.
    async fn subscribe(&self, subscription: Subscription) -> Result<Subscriber>;

    /// Sends a message and waits for the first reply; later ones are discarded. The message's own `reply` is
    /// replaced.
    ///
    /// # Errors
    /// `NoResponders` at once if nobody is subscribed (effect none); `DeadlineExceeded` after `timeout`
    /// (effect unknown); `PayloadTooLarge`, `Unavailable`.
    async fn request(&self, message: Message, timeout: Duration) -> Result<Message>;

    /// Waits until the broker has all that this handle published before.
    ///
    /// # Errors
    /// `Unavailable`, effect unknown for what was published before.
    async fn flush(&self) -> Result<()>;

    /// Closes this handle: what was published is with the broker, its subscriptions end after what they had
    /// accepted, and every later call fails with `Unavailable`. Again is no-op.
    ///
    /// # Errors
    /// `DeadlineExceeded` if it took longer than `grace`; `Unavailable` if there is no connection and what was
    /// published may be lost. It is closed all the same.
    async fn close(&self, grace: Duration) -> Result<()>;
}

/// What is handy, written once over publish and subscribe.
#[async_trait]
pub trait MessagingExt: Messaging {
    /// Answers a message at its reply subject. No-op if it asks for no answer.
    async fn respond(&self, request: &Message, payload: Bytes) -> Result<()> {
        match &request.reply {
            None => Ok(()),
            Some(reply) => self.publish(Message::new(reply.clone(), payload)).await,
        }
    }

    /// Starts a service: it answers the NATS micro protocol (`$SRV.PING|INFO|STATS`) on every broker.
    /// Endpoints are added to it afterwards.
    ///
    /// # Errors
    /// Those of [`Messaging::subscribe`].
    async fn serve(&self, environment: Arc<dyn Environment>, spec: ServiceSpec) -> Result<Service>
    where
        Self: Sized + Clone,
    {
        Service::start(Arc::new(self.clone()), environment, spec).await
    }

    /// Asks the running services (all, or those of one name) for their statistics, and collects what arrives
    /// within `window`; at once if there are none. `inbox` is where they answer: a subject of its own for each
    /// call. Sorted by name and id.
    ///
    /// # Errors
    /// Those of [`Messaging::subscribe`] and [`Messaging::publish`].
    async fn inspect(
        &self,
        inbox: Subject,
        name: Option<&ServiceName>,
        window: Duration,
    ) -> Result<Vec<ServiceReport>> {
        inspect(self, inbox, name, window).await
    }
}

impl<M: Messaging + ?Sized> MessagingExt for M {}

macro_rules! forward {
    ($pointer:ty, $($generic:tt)*) => {
        #[async_trait]
        #[deny(clippy::missing_trait_methods)]
        impl<$($generic)*> Messaging for $pointer {
            async fn capabilities(&self) -> Result<MessagingCapabilities> {
                (**self).capabilities().await
            }

            async fn publish(&self, message: Message) -> Result<()> {
                (**self).publish(message).await
            }

            async fn subscribe(&self, subscription: Subscription) -> Result<Subscriber> {
                (**self).subscribe(subscription).await
            }

            async fn request(&self, message: Message, timeout: Duration) -> Result<Message> {
                (**self).request(message, timeout).await
            }

            async fn flush(&self) -> Result<()> {
                (**self).flush().await
            }

            async fn close(&self, grace: Duration) -> Result<()> {
                (**self).close(grace).await
            }
        }
    };
}

forward!(Arc<M>, M: Messaging + ?Sized);
forward!(Box<M>, M: Messaging + ?Sized);
