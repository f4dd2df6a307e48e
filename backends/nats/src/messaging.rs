use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::Stream;
use slipring_core::{
    Effect, Environment, Error, Message, Messaging, MessagingCapabilities, Result, Subject, Subscriber,
    Subscription, async_trait,
};
use tokio::sync::OnceCell;
use tokio::task::coop;
use tokio::time::timeout;

use crate::connection::{Connection, Subscribed};
use crate::link::Link;
use crate::{Config, ConnectionState, error, wire};

/// A handle to a connection to NATS. Clones are the same handle and are closed together; [`handle`](Self::handle)
/// makes an independent one. The connection closes with its last handle.
#[derive(Clone)]
pub struct NatsMessaging {
    handle: Arc<Handle>,
}

struct Handle {
    id: u64,
    connection: Arc<Connection>,
    closed: AtomicBool,
    capabilities: OnceCell<MessagingCapabilities>,
}

impl NatsMessaging {
    /// A handle on a connection of its own. Nothing is dialled before the first call.
    ///
    /// # Errors
    /// [`Invalid`](Error::Invalid) naming what is wrong with the configuration.
    pub fn new(config: Config, environment: Arc<dyn Environment>) -> Result<Self> {
        Ok(Self { handle: Handle::on(Connection::new(config, environment)?) })
    }

    /// Another handle on the same connection: for another runtime. Closing one leaves the others open.
    #[must_use]
    pub fn handle(&self) -> Self {
        Self { handle: Handle::on(self.handle.connection.clone()) }
    }

    /// How the connection is doing.
    pub fn state(&self) -> ConnectionState {
        self.handle.connection.state()
    }

    /// Requests and round trips on this connection that wait for an answer, of all handles: for leak tests.
    pub fn waiting_requests(&self) -> usize {
        self.handle.connection.waiting_requests()
    }

    /// Subscriptions on this connection, of all handles: for leak tests.
    pub fn subscriptions(&self) -> usize {
        self.handle.connection.subscriptions()
    }

    /// Waits until the connection is in a state that this says yes to, or closed: that state. A state that lasts
    /// only a moment may be missed.
    pub async fn wait_for(&self, is_wanted: impl FnMut(&ConnectionState) -> bool + Send) -> ConnectionState {
        self.handle.connection.wait_for(is_wanted).await
    }
}

impl Handle {
    fn on(connection: Arc<Connection>) -> Arc<Self> {
        let id = connection.add_handle();
        Arc::new(Self { id, connection, closed: AtomicBool::new(false), capabilities: OnceCell::new() })
    }

    /// The connection, if this handle is not closed.
    fn connection(&self) -> Result<&Arc<Connection>> {
        if self.closed.load(Ordering::Acquire) { Err(error::closed()) } else { Ok(&self.connection) }
    }

    async fn link(&self) -> Result<Arc<Link>> {
        self.connection()?.link().await
    }

    /// Waits for a server, within `startup_timeout`.
    async fn wait_for_server(&self) -> Result<MessagingCapabilities> {
        let connection = &self.connection;
        let mut told = false;
        let startup_timeout = connection.config.startup_timeout;
        let waiting = connection.wait_for(|state| match state {
            ConnectionState::Disconnected { error, .. } => {
                if !told {
                    tracing::warn!(servers = ?connection.config.servers, %error, ?startup_timeout, "waiting for NATS");
                    told = true;
                }
                is_final(error)
            }
            ConnectionState::Connected { .. } => true,
            _ => false,
        });
        let state = timeout(startup_timeout, waiting).await.unwrap_or_else(|_| connection.state());
        match state {
            ConnectionState::Connected { .. } => {}
            ConnectionState::Disconnected { error, .. } if is_final(&error) => return Err(error),
            state => {
                let cause = format!("waited {startup_timeout:?} for a server: {state}");
                return Err(error::unavailable(cause, Effect::None));
            }
        }
        let link = self.link().await?;
        Ok(MessagingCapabilities::minimal()
            .with_wildcards(true)
            .with_queue_groups(true)
            .with_no_responders(true)
            .with_payload_bytes_max(link.payload_bytes_max)
            .with_subject_bytes_max(Subject::BYTES_MAX))
    }
}

/// Is it of no use to wait?
fn is_final(error: &Error) -> bool {
    matches!(error, Error::Unauthorized { .. } | Error::Unsupported { .. } | Error::Invalid { .. })
}

#[async_trait]
impl Messaging for NatsMessaging {
    async fn capabilities(&self) -> Result<MessagingCapabilities> {
        self.handle.connection()?.start();
        let capabilities = self.handle.capabilities.get_or_try_init(|| self.handle.wait_for_server());
        capabilities.await.copied()
    }

    async fn publish(&self, message: Message) -> Result<()> {
        let link = self.handle.link().await?;
        link.check(&message)?;
        let reply = message.reply.as_ref().map(|reply| reply.as_str().into());
        link.send(wire::outbound(message, reply)).await
    }

    async fn subscribe(&self, subscription: Subscription) -> Result<Subscriber> {
        let subscribed = self.handle.connection()?.subscribe(self.handle.id, subscription).await?;
        let stop = subscribed.stopper();
        Ok(Subscriber::new(Incoming { _handle: self.handle.clone(), subscribed }, stop))
    }

    async fn request(&self, message: Message, time: Duration) -> Result<Message> {
        let asked = message.subject.clone();
        let mut effect = Effect::None;
        let exchange = async {
            let link = self.handle.link().await?;
            link.check(&message)?;
            let ticket = link.inbox().ask(self.handle.id, Some(asked.clone()))?;
            link.send(wire::outbound(message, Some(ticket.subject()))).await?;
            effect = Effect::Unknown;
            let reply = ticket.answer().await?;
            if wire::says_no_responders(&reply) {
                return Err(Error::no_responders(asked.as_str()));
            }
            wire::inbound(reply).map_err(|error| error.raise(Effect::Applied))
        };
        match timeout(time, exchange).await {
            Ok(reply) => reply,
            Err(_) => Err(Error::deadline_exceeded(format!("request to {asked}"), time, effect)),
        }
    }

    async fn flush(&self) -> Result<()> {
        let connection = self.handle.connection()?;
        let flushed = async { connection.link().await?.round_trip().await };
        flushed.await.map_err(|error: Error| error.raise(Effect::Unknown))
    }

    async fn close(&self, grace: Duration) -> Result<()> {
        let Handle { id, connection, closed, .. } = &*self.handle;
        if closed.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        let stopped = timeout(grace, connection.stop_handle(*id)).await;
        connection.remove_handle(*id);
        stopped.unwrap_or_else(|_| {
            Err(Error::deadline_exceeded("closing a handle to NATS", grace, Effect::Unknown))
        })
    }
}

impl fmt::Debug for NatsMessaging {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NatsMessaging")
            .field("servers", &self.handle.connection.config.servers)
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if !*self.closed.get_mut() {
            self.connection.remove_handle(self.id);
        }
    }
}

/// The messages of one subscription. It keeps its handle, and so the connection.
struct Incoming {
    _handle: Arc<Handle>,
    subscribed: Subscribed,
}

impl Stream for Incoming {
    type Item = Result<Message>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        // A reader in a hot loop lets the other tasks of its thread run.
        let budget = ready!(coop::poll_proceed(cx));
        let next = self.subscribed.route().sink().poll_next(cx);
        if next.is_ready() {
            budget.made_progress();
        }
        next
    }
}
