use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use async_nats::Event;
use async_nats::rustls::ClientConfig;
use slipring_core::{Effect, Environment, EnvironmentExt, Error, Result, Subscription};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use crate::backoff::Backoff;
use crate::error::{self, Complaint};
use crate::inbox::Inbox;
use crate::link::Link;
use crate::route::Route;
use crate::tap::Tap;
use crate::{Config, ConnectionState, tls};

/// What the handles share: the connection of the moment, and the subscriptions, which outlive it.
pub(crate) struct Connection {
    pub(crate) config: Config,
    tls: ClientConfig,
    environment: Arc<dyn Environment>,
    shared: Mutex<Shared>,
    changed: Notify,
    /// One stop at a time: the second finds what the first has ended.
    stopping: tokio::sync::Mutex<()>,
}

struct Shared {
    state: ConnectionState,
    link: Option<Arc<Link>>,
    routes: BTreeMap<u64, Entry>,
    handles: usize,
    /// The last id that was given to a handle or a subscription.
    last_id: u64,
}

struct Entry {
    handle: u64,
    route: Arc<Tap<Route>>,
}

impl Connection {
    /// How long a refusal of a subscription may take from the client library's event task to us. The server tells
    /// it before it answers, but the library tells it beside the answer. One that comes later still ends the
    /// stream.
    const REFUSAL_TIME: Duration = Duration::from_millis(5);

    /// # Errors
    /// `Invalid` for a configuration that could never work.
    pub(crate) fn new(config: Config, environment: Arc<dyn Environment>) -> Result<Arc<Self>> {
        config.check()?;
        let tls = tls::client_config(config.tls.as_ref())?;
        let shared = Shared {
            state: ConnectionState::Idle,
            link: None,
            routes: BTreeMap::new(),
            handles: 0,
            last_id: 0,
        };
        Ok(Arc::new(Self {
            config,
            tls,
            environment,
            shared: Mutex::new(shared),
            changed: Notify::new(),
            stopping: tokio::sync::Mutex::default(),
        }))
    }

    /// How it is doing.
    pub(crate) fn state(&self) -> ConnectionState {
        self.lock().state.clone()
    }

    pub(crate) fn waiting_requests(&self) -> usize {
        self.lock().link.as_ref().map_or(0, |link| link.inbox().sink().waiting())
    }

    pub(crate) fn subscriptions(&self) -> usize {
        self.lock().routes.len()
    }

    /// Waits until the state is such, or closed.
    pub(crate) async fn wait_for(
        &self,
        mut is_wanted: impl FnMut(&ConnectionState) -> bool,
    ) -> ConnectionState {
        loop {
            let changed = self.changed.notified();
            let state = self.state();
            if is_wanted(&state) || state == ConnectionState::Closed {
                return state;
            }
            changed.await;
        }
    }

    /// The connection of the moment; the first call makes it. Waits only for the first attempt.
    ///
    /// # Errors
    /// `Unavailable` if there is none, or what a server refused it for. Effect none.
    pub(crate) async fn link(self: &Arc<Self>) -> Result<Arc<Link>> {
        let link = self.lock().link.clone();
        match link {
            Some(link) => Ok(link),
            // Seldom: the room is not kept for every message.
            None => Box::pin(self.first_link()).await,
        }
    }

    async fn first_link(self: &Arc<Self>) -> Result<Arc<Link>> {
        self.start();
        loop {
            let state = self.wait_for(|state| !matches!(state, ConnectionState::Connecting)).await;
            match state {
                ConnectionState::Disconnected { error, .. } => return Err(error),
                ConnectionState::Closed => return Err(error::closed()),
                _ => {
                    if let Some(link) = self.lock().link.clone() {
                        return Ok(link);
                    }
                }
            }
        }
    }

    /// Begins to connect, if that was not done yet.
    pub(crate) fn start(self: &Arc<Self>) {
        let mut shared = self.lock();
        if shared.state == ConnectionState::Idle {
            shared.state = ConnectionState::Connecting;
            drop(shared);
            self.environment.start("nats connection", self.clone().run()).detach();
        }
    }

    async fn run(self: Arc<Self>) {
        // Whoever runs the task may drop it.
        let _shut = Shut(self.clone());
        tokio::select! {
            biased;
            _ = self.wait_for(|_| false) => {}
            () = self.keep_connected() => {}
        }
    }

    async fn keep_connected(self: &Arc<Self>) {
        let mut attempts = 0;
        let mut turn = 0;
        let mut backoff = Backoff::new();
        loop {
            match self.connect(&mut turn).await {
                Ok(link) => {
                    attempts = 0;
                    let since = Instant::now();
                    tracing::info!(server = link.server, version = link.version, "connected to NATS");
                    let error = link.inbox().sink().ended().await;
                    tracing::warn!(server = link.server, %error, "lost the connection to NATS");
                    self.disconnected(0, error);
                    // A server that takes us and drops us at once is not there.
                    if since.elapsed() > Backoff::MAX {
                        backoff = Backoff::new();
                    }
                }
                Err(error) => {
                    attempts += 1;
                    tracing::debug!(attempts, %error, "no connection to NATS");
                    self.disconnected(attempts, error);
                }
            }
            sleep(backoff.next(self.environment.random("nats reconnect"))).await;
        }
    }

    /// One attempt: each server in turn, until one takes us. Whoever subscribed is subscribed again.
    async fn connect(self: &Arc<Self>, turn: &mut usize) -> Result<Arc<Link>> {
        let mut failed = None;
        for _ in &self.config.servers {
            let server = &self.config.servers[*turn % self.config.servers.len()];
            *turn += 1;
            match self.connect_to(server).await {
                Ok(link) => return Ok(link),
                Err(error) => failed = Some(error),
            }
        }
        Err(failed.unwrap_or_else(|| error::unavailable("no server is configured", Effect::None)))
    }

    async fn connect_to(self: &Arc<Self>, server: &str) -> Result<Arc<Link>> {
        let unique = self.environment.random("nats inbox");
        let inbox = Tap::new(Inbox::new(format!("{}.{unique:016x}", self.config.inbox_prefix)));
        let (connection, ours) = (Arc::downgrade(self), inbox.clone());
        let (tls, environment) = (&self.tls, &*self.environment);
        let link = Link::open(&self.config, tls, environment, server, inbox, move |event| {
            told(&connection, ours.sink(), event)
        });
        let link = Arc::new(link.await?);
        let routes: Vec<_> = self.lock().routes.values().map(|entry| entry.route.clone()).collect();
        for route in &routes {
            route.sink().gap();
            link.subscribe(route).await?;
            // Whoever stopped it, before or meanwhile, found nothing to unsubscribe.
            if route.sink().is_stopped() {
                drop(route.close());
            }
        }
        if !routes.is_empty() {
            link.round_trip().await?;
        }
        let mut shared = self.lock();
        if shared.state != ConnectionState::Closed {
            let (server, version) = (link.server.clone(), link.version.clone());
            shared.state = ConnectionState::Connected { server, version };
            shared.link = Some(link.clone());
        }
        drop(shared);
        self.changed.notify_waiters();
        Ok(link)
    }

    fn disconnected(&self, attempts: u32, error: Error) {
        let mut shared = self.lock();
        if shared.state != ConnectionState::Closed {
            shared.state = ConnectionState::Disconnected { attempts, error };
        }
        let link = shared.link.take();
        drop(shared);
        drop(link);
        self.changed.notify_waiters();
    }

    /// One handle more: its id.
    pub(crate) fn add_handle(&self) -> u64 {
        let mut shared = self.lock();
        shared.handles += 1;
        shared.fresh_id()
    }

    /// One handle less: what is left of its subscriptions ends now. The last one closes the connection.
    pub(crate) fn remove_handle(&self, handle: u64) {
        let (ended, link, is_last) = {
            let mut shared = self.lock();
            shared.handles -= 1;
            let all = std::mem::take(&mut shared.routes).into_iter();
            let (ended, others): (BTreeMap<_, _>, _) = all.partition(|(_, entry)| entry.handle == handle);
            shared.routes = others;
            (ended, shared.link.clone(), shared.handles == 0)
        };
        ended.values().for_each(|entry| end(&entry.route, None));
        if let Some(link) = link {
            link.inbox().sink().forget(handle);
        }
        if is_last {
            self.shut();
        }
    }

    /// There is no connection and never will be.
    fn shut(&self) {
        let (routes, link) = {
            let mut shared = self.lock();
            shared.state = ConnectionState::Closed;
            (std::mem::take(&mut shared.routes), shared.link.take())
        };
        routes.values().for_each(|entry| end(&entry.route, Some(error::closed())));
        drop(link);
        self.changed.notify_waiters();
    }

    /// Subscribes, and proves it.
    ///
    /// # Errors
    /// `Unavailable`, `Unauthorized`; nothing is left then.
    pub(crate) async fn subscribe(
        self: &Arc<Self>,
        handle: u64,
        subscription: Subscription,
    ) -> Result<Subscribed> {
        let link = self.link().await?;
        let route = Tap::new(Route::new(subscription));
        let id = {
            let mut shared = self.lock();
            let id = shared.fresh_id();
            shared.routes.insert(id, Entry { handle, route: route.clone() });
            id
        };
        let subscribed = Subscribed { connection: self.clone(), id, route };
        link.subscribe(&subscribed.route).await?;
        link.round_trip().await?;
        if link.asks_who_we_are {
            sleep(Self::REFUSAL_TIME).await;
        }
        match subscribed.route.sink().refusal() {
            Some(error) => Err(error),
            None => Ok(subscribed),
        }
    }

    /// Ends the subscriptions of a handle after what they have accepted; all that was published is with the
    /// server then.
    ///
    /// # Errors
    /// `Unavailable` if the connection was lost meanwhile.
    pub(crate) async fn stop_handle(&self, handle: u64) -> Result<()> {
        let (routes, link) = {
            let shared = self.lock();
            let routes = shared.routes.values().filter(|entry| entry.handle == handle);
            (routes.map(|entry| entry.route.clone()).collect(), shared.link.clone())
        };
        match link {
            Some(link) => self.stop(&link, routes).await,
            // Nothing is on its way in either direction.
            None => Ok(()),
        }
    }

    async fn stop(&self, link: &Link, routes: Vec<Arc<Tap<Route>>>) -> Result<()> {
        let _alone = self.stopping.lock().await;
        for route in &routes {
            route.sink().stop();
            link.unsubscribe(route).await;
        }
        let proved = link.round_trip().await;
        for route in &routes {
            if proved.is_err() {
                route.sink().gap();
            }
            end(route, None);
        }
        proved
    }

    /// A subscription was refused.
    fn refused(&self, pattern: &str, queue: Option<&str>, error: &Error) {
        let shared = self.lock();
        let is_refused = |entry: &&Entry| {
            let Subscription { pattern: ours, queue: our_queue, .. } = &entry.route.sink().subscription;
            ours.as_str() == pattern
                && (queue.is_none() || our_queue.as_ref().map(|queue| queue.as_str()) == queue)
        };
        let routes: Vec<_> =
            shared.routes.values().filter(is_refused).map(|entry| entry.route.clone()).collect();
        drop(shared);
        routes.iter().for_each(|route| end(route, Some(error.clone())));
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Shared {
    fn fresh_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }
}

fn end(route: &Arc<Tap<Route>>, error: Option<Error>) {
    route.sink().stop();
    drop(route.close());
    route.sink().end(error);
}

/// What the client library tells of a connection.
fn told(connection: &Weak<Connection>, inbox: &Inbox, event: Event) {
    match event {
        Event::Disconnected | Event::Closed => inbox.end("the connection was lost"),
        Event::ServerError(complaint) => match error::complaint(&complaint) {
            Complaint::Subscription { pattern, queue, error } => {
                tracing::warn!(%error, "NATS refused a subscription");
                inbox.refuse(&pattern, &error);
                if let Some(connection) = connection.upgrade() {
                    connection.refused(&pattern, queue.as_deref(), &error);
                }
            }
            Complaint::Publish { subject, error } => {
                tracing::warn!(%error, "NATS refused a message");
                inbox.refuse(&subject, &error);
            }
            Complaint::Other(text) => {
                tracing::warn!(text, "NATS complains");
                inbox.complaint(text);
            }
        },
        _ => {}
    }
}

/// Shuts the connection when it is dropped.
struct Shut(Arc<Connection>);

impl Drop for Shut {
    fn drop(&mut self) {
        self.0.shut();
    }
}

/// A subscription that stands. Dropped, it leaves nothing.
pub(crate) struct Subscribed {
    connection: Arc<Connection>,
    id: u64,
    route: Arc<Tap<Route>>,
}

impl Subscribed {
    pub(crate) fn route(&self) -> &Arc<Tap<Route>> {
        &self.route
    }

    /// What asks the server for no more, and ends the stream after what was on its way.
    pub(crate) fn stopper(&self) -> impl FnOnce() + Send + 'static {
        let (connection, route) = (self.connection.clone(), self.route.clone());
        move || {
            if !route.sink().stop() {
                return;
            }
            let Some(link) = connection.lock().link.clone() else {
                // What was on its way when the connection was lost is lost.
                route.sink().gap();
                return end(&route, None);
            };
            let environment = connection.environment.clone();
            let stopping = async move {
                // The stream tells a loss itself.
                let _ = connection.stop(&link, vec![route]).await;
            };
            environment.start("nats unsubscribe", stopping).detach();
        }
    }
}

impl Drop for Subscribed {
    fn drop(&mut self) {
        let removed = self.connection.lock().routes.remove(&self.id);
        drop(removed);
        end(&self.route, None);
    }
}
