use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use async_nats::client::traits::Publisher;
use async_nats::connection::State;
use async_nats::message::OutboundMessage;
use async_nats::rustls::ClientConfig;
use async_nats::{Client, ConnectOptions, Event, ReconnectToServer};
use slipring_core::{Effect, Environment, Error, Message, Result};
use tokio::time::timeout;

use crate::Config;
use crate::config::address;
use crate::courtesy::Courtesy;
use crate::error;
use crate::inbox::Inbox;
use crate::route::Route;
use crate::tap::Tap;

/// One TCP connection to a server, from its first byte to its last. It never comes back.
///
/// Reconnecting as the client library does it sends, seconds later, what was published while there was no
/// connection. So each of its clients is used for one connection only.
pub(crate) struct Link {
    client: Client,
    courtesy: Courtesy,
    inbox: Arc<Tap<Inbox>>,
    queue_timeout: Duration,
    /// The server, as `host:port`.
    pub(crate) server: String,
    /// The server's version.
    pub(crate) version: String,
    /// Does the server permit different things to different users? Without that it refuses nothing, except to
    /// the user that it takes for everybody else.
    pub(crate) asks_who_we_are: bool,
    /// The largest message that the server takes.
    pub(crate) payload_bytes_max: usize,
}

impl Link {
    /// The oldest server that works: headers, and answers where nobody is subscribed.
    const VERSION_MIN: (u64, u64) = (2, 9);

    /// Nobody listens there. The client library dials it when the connection is lost, fails, and gives up.
    const NOWHERE: &str = "nats://127.0.0.1:0";

    /// More than ever waits in the client library, since a [`Tap`] takes each message at once.
    const UNREAD_MESSAGES_MAX: usize = 1 << 24;

    /// A number that servers take for none, which means "now"; the client library takes it for what it is, and
    /// goes on to hand out messages, so that those which are on their way arrive. (All its other ways to
    /// unsubscribe drop them.) A server that took it for what it is would unsubscribe a round trip later, when the
    /// subscription is dropped.
    const UNSUBSCRIBE_NOW: u64 = 10_000_000_000;

    /// Connects to a server. `inbox` is empty and ends with the connection; `told` is told what the server
    /// complains of.
    ///
    /// # Errors
    /// `Unavailable`, `Unauthorized`; `Unsupported` if the server is too old. Takes no longer than
    /// `connection_timeout`.
    pub(crate) async fn open(
        config: &Config,
        tls: &ClientConfig,
        environment: &dyn Environment,
        server: &str,
        inbox: Arc<Tap<Inbox>>,
        told: impl Fn(Event) + Send + Sync + 'static,
    ) -> Result<Self> {
        let connecting = async {
            let options = options(config, tls, server, told)?;
            let addresses = [address(server)?, address(Self::NOWHERE)?];
            let client = options
                .connect(&addresses[..])
                .await
                .map_err(|error| error::connect(server, config.tls.is_some(), &error))?;
            let info = client.server_info();
            check_version(&info.version, info.headers)?;
            let link = Self {
                client,
                courtesy: Courtesy::new(environment),
                inbox,
                queue_timeout: config.queue_timeout,
                server: server.to_owned(),
                version: info.version,
                asks_who_we_are: info.auth_required || info.tls_required,
                payload_bytes_max: info.max_payload,
            };
            let source = link.client.subscribe(link.inbox.sink().pattern()).await;
            link.inbox.open(source.map_err(|_| link.lost())?);
            link.round_trip().await?;
            Ok(link)
        };
        let late = || {
            error::unavailable(
                format!("{server}: no answer within {:?}", config.connection_timeout),
                Effect::None,
            )
        };
        timeout(config.connection_timeout, connecting).await.unwrap_or_else(|_| Err(late()))
    }

    /// Where the answers arrive.
    pub(crate) fn inbox(&self) -> &Arc<Tap<Inbox>> {
        &self.inbox
    }

    /// Puts a message into the queue of the connection. Dropped, it is not there.
    ///
    /// # Errors
    /// `Unavailable`, effect none, if the connection is lost, or stuck so long that the queue stays full.
    pub(crate) async fn send(&self, message: OutboundMessage) -> Result<()> {
        if self.client.connection_state() != State::Connected {
            return Err(self.lost());
        }
        let mut sending = pin!(self.client.publish_message(message));
        // There is nearly always room, and then no timer is needed, nor the room for one.
        let sent = match poll_fn(|cx| Poll::Ready(sending.as_mut().poll(cx))).await {
            Poll::Ready(sent) => sent,
            Poll::Pending => match Box::pin(timeout(self.queue_timeout, sending)).await {
                Ok(sent) => sent,
                Err(_) => {
                    let cause = format!("{} has taken nothing for {:?}", self.server, self.queue_timeout);
                    return Err(error::unavailable(cause, Effect::None));
                }
            },
        };
        self.courtesy.after_you();
        sent.map_err(|_| self.lost())
    }

    /// Refuses a message that is too large for the server.
    ///
    /// # Errors
    /// `PayloadTooLarge`.
    pub(crate) fn check(&self, message: &Message) -> Result<()> {
        message.check(self.payload_bytes_max)
    }

    /// Waits for an answer to something that is sent now: the server has done all that was asked before, and
    /// all that it sent before has arrived.
    ///
    /// # Errors
    /// `Unavailable` if the connection ends first; `Unauthorized` if the server permits no inbox.
    pub(crate) async fn round_trip(&self) -> Result<()> {
        let ticket = self.inbox.ask(0, None)?;
        let (subject, payload) = (ticket.subject(), Default::default());
        self.send(OutboundMessage { subject, reply: None, headers: None, payload }).await?;
        ticket.answer().await.map(drop)
    }

    /// Asks the server for the messages of a subscription, behind all that was asked before.
    ///
    /// # Errors
    /// `Unavailable`.
    pub(crate) async fn subscribe(&self, route: &Arc<Tap<Route>>) -> Result<()> {
        let wanted = &route.sink().subscription;
        let pattern = wanted.pattern.as_str().to_owned();
        let source = match &wanted.queue {
            None => self.client.subscribe(pattern).await,
            Some(queue) => self.client.queue_subscribe(pattern, queue.as_str().to_owned()).await,
        };
        route.open(source.map_err(|_| self.lost())?);
        Ok(())
    }

    /// Asks the server for no more messages, behind all that was asked before. Those that are on their way still
    /// come.
    pub(crate) async fn unsubscribe(&self, route: &Arc<Tap<Route>>) {
        let Some(mut source) = route.close() else { return };
        // It fails if the connection is lost, which the round trip that follows will tell.
        let _ = source.unsubscribe_after(Self::UNSUBSCRIBE_NOW).await;
        route.open(source);
    }

    fn lost(&self) -> Error {
        error::unavailable(format!("the connection to {} was lost", self.server), Effect::None)
    }
}

impl Drop for Link {
    /// Each subscription of the client library keeps its task running.
    fn drop(&mut self) {
        drop(self.inbox.close());
    }
}

fn options(
    config: &Config,
    tls: &ClientConfig,
    server: &str,
    told: impl Fn(Event) + Send + Sync + 'static,
) -> Result<ConnectOptions> {
    let (server, nowhere) = (address(server)?, address(Link::NOWHERE)?);
    let told = Arc::new(told);
    let mut options = config.credentials.apply(ConnectOptions::new())?;
    if let Some(name) = &config.name {
        options = options.name(name);
    }
    Ok(options
        .require_tls(config.tls.is_some())
        .tls_client_config(tls.clone())
        .connection_timeout(config.connection_timeout)
        .ping_interval(config.ping_interval)
        .subscription_capacity(Link::UNREAD_MESSAGES_MAX)
        // What a subject may hold was checked when it was made.
        .skip_subject_validation(true)
        .ignore_discovered_servers()
        .max_reconnects(1)
        .reconnect_to_server_callback(move |servers, _| {
            let was_there = servers.iter().any(|server| server.did_connect);
            let next = if was_there { nowhere.clone() } else { server.clone() };
            async move { Some(ReconnectToServer { addr: next, delay: Some(Duration::ZERO) }) }
        })
        .event_callback(move |event| {
            told(event);
            async {}
        }))
}

/// # Errors
/// `Unsupported` for what is too old.
fn check_version(version: &str, headers: bool) -> Result<()> {
    let mut numbers = version.split(['.', '-']).map_while(|number| number.parse::<u64>().ok());
    let found = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let (major, minor) = Link::VERSION_MIN;
    if found < (major, minor) {
        let what = format!("nats-server {version:?}");
        return Err(Error::unsupported(what, format!("install version {major}.{minor} or newer")));
    }
    if !headers {
        let what = format!("nats-server {version} without headers");
        return Err(Error::unsupported(what, "remove no_header_support from its configuration"));
    }
    Ok(())
}
