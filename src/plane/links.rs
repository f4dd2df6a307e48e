//! The connections of a runtime: one per pair of processes, dialled when they are needed.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use futures_util::future::join_all;
use slipring_core::{ByteStream, Effect, Environment, EnvironmentExt, Error, Listener, Result, Task};
use tokio::sync::{OwnedMutexGuard, Semaphore, oneshot};
use tokio::time::Instant;

use super::handshake::Handshake;
use super::link::{CloseReason, Host, Link, LinkLimits, Local, Peer, PlaneCounters};
use super::report::{ConnectionReport, PlanesReport};
use super::tcp::TcpPlane;
use crate::backoff::Backoff;

/// Connections that may be in their handshake at the same time; further ones wait in the listener's queue.
const HANDSHAKES_MAX: usize = 256;
/// How long to wait after accepting failed, such as when there are no file handles left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The connections of one runtime. Dropping it closes them.
pub(crate) struct Links {
    shared: Arc<Shared>,
    advertised: Option<String>,
    plane: TcpPlane,
    _listening: Option<Task>,
}

struct Shared {
    handshake: Handshake,
    /// To each peer that is, or was, called.
    lines: Mutex<BTreeMap<u64, Line>>,
    /// From each peer that dialled. A peer may have dialled again before its old connection was noticed to be
    /// dead.
    accepted: Mutex<Vec<Connection>>,
}

/// A link, and where its other end is.
#[derive(Clone)]
struct Connection {
    link: Link,
    address: Arc<str>,
}

impl Connection {
    fn report(&self, is_encrypted: bool) -> ConnectionReport {
        ConnectionReport { address: self.address.to_string(), is_encrypted, ..self.link.snapshot() }
    }
}

/// The way to one peer.
struct Line {
    connection: Option<Connection>,
    /// One dials at a time; the others wait for what comes of it.
    dialling: Arc<tokio::sync::Mutex<Dialling>>,
}

struct Dialling {
    backoff: Backoff,
    /// After a failure: when it is dialled again, and why not before.
    failed: Option<(Instant, String)>,
}

impl Links {
    /// Listens, if that is asked for.
    ///
    /// # Errors
    /// `Invalid` for what cannot work; `Unavailable` if the address cannot be listened on.
    pub(crate) async fn start(
        plane: TcpPlane,
        environment: Arc<dyn Environment>,
        instance: u64,
        epoch: Arc<AtomicU64>,
        host: Arc<dyn Host>,
    ) -> Result<Self> {
        plane.check()?;
        let limits = LinkLimits { message_bytes_max: plane.message_bytes_max, ..LinkLimits::default() };
        let (secret, counters) = (plane.secret.clone(), Arc::new(PlaneCounters::default()));
        let local =
            Local { environment: environment.clone(), instance, epoch, limits, secret, host, counters };
        let handshake = Handshake::new(Arc::new(local), &plane)?;
        let shared = Arc::new(Shared { handshake, lines: Mutex::default(), accepted: Mutex::default() });
        let (mut advertised, mut listening) = (None, None);
        if let Some(address) = &plane.listen {
            let listener = environment.listen(address).await?;
            advertised = Some(plane.advertised(&listener.local_address()));
            listening = Some(environment.start("listener", listen(Arc::downgrade(&shared), listener)));
        }
        Ok(Self { shared, advertised, plane, _listening: listening })
    }

    /// What others dial, if this runtime listens.
    pub(crate) fn advertised(&self) -> Option<&str> {
        self.advertised.as_deref()
    }

    /// Do the endpoints of this runtime answer over TCP to callers that listen?
    pub(crate) fn calls_home(&self) -> bool {
        self.plane.call_home
    }

    /// The connection to a peer, if there is one; it may have gone away in the meantime, and then refuses.
    pub(crate) fn ready(&self, peer: u64) -> Option<Link> {
        Some(lock(&self.shared.lines).get(&peer)?.connection.as_ref()?.link.clone())
    }

    /// The connection to a peer; dialled if there is none.
    ///
    /// # Errors
    /// `Unavailable`, `Unauthorized`, `DeadlineExceeded`: it cannot be reached now. All with effect none. After
    /// a failure it is not dialled again for a while, and the same is said at once.
    pub(crate) async fn to(&self, peer: Peer, address: &str) -> Result<Link> {
        let dialling = self.shared.dialling(peer.instance).lock_owned().await;
        if let Some(link) = self.ready(peer.instance).filter(Link::is_usable) {
            return Ok(link);
        }
        if let Some((until, cause)) = &dialling.failed
            && Instant::now() < *until
        {
            return Err(Error::unavailable(
                address,
                format!("it is dialled again soon: {cause}"),
                Effect::None,
            ));
        }
        // Whoever wants it first may have less time than it takes: it is dialled to the end all the same, for those
        // who come after, and so that no row of short deadlines dials without a pause.
        let (tell, told) = oneshot::channel();
        let attempt = Attempt { peer, address: address.to_owned(), within: self.plane.dial_timeout };
        let (shared, environment) = (self.shared.clone(), self.shared.local().environment.clone());
        let dial = async move {
            let dialled = attempt.make(&shared, dialling).await;
            // Those who gave up need not be told.
            let _ = tell.send(dialled);
        };
        environment.start("dial", dial).detach();
        told.await.unwrap_or_else(|_| Err(Error::unavailable(address, "dialling was stopped", Effect::None)))
    }

    /// Says to every peer that no further requests are taken, waits until those under way are done, at most
    /// `grace`, and closes. Returns how many connections had streams under way then.
    pub(crate) async fn close(&self, grace: Duration) -> usize {
        let links: Vec<_> = self.shared.all().into_iter().map(|connection| connection.link).collect();
        links.iter().for_each(Link::go_away);
        let until = Instant::now() + grace;
        let drained = join_all(links.iter().map(Link::drained));
        let late = tokio::time::timeout_at(until, drained).await.is_err();
        let busy =
            if late { links.iter().filter(|link| link.snapshot().streams_open > 0).count() } else { 0 };
        links.iter().for_each(|link| link.close(CloseReason::Requested));
        // Each says goodbye first, as far as there is time.
        let _ = tokio::time::timeout_at(until, join_all(links.iter().map(Link::closed))).await;
        busy
    }

    /// What the connections do now, and did.
    pub(crate) fn report(&self) -> PlanesReport {
        let mut all = self.shared.all();
        all.retain(|connection| !connection.link.is_closed());
        all.sort_by_key(|connection| connection.link.number());
        let connections = all.iter().map(|connection| connection.report(self.plane.tls.is_some()));
        PlanesReport {
            advertised: self.advertised.clone(),
            connections: connections.collect(),
            ..self.shared.local().counters.snapshot()
        }
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        self.shared.all().iter().for_each(|connection| connection.link.close(CloseReason::Requested));
    }
}

impl Shared {
    fn local(&self) -> &Arc<Local> {
        self.handshake.local()
    }

    /// The right to dial a peer.
    fn dialling(&self, peer: u64) -> Arc<tokio::sync::Mutex<Dialling>> {
        self.line(peer, |line| line.dialling.clone())
    }

    /// The way to a peer; a new one, if there is none yet.
    fn line<T>(&self, peer: u64, with: impl FnOnce(&mut Line) -> T) -> T {
        let mut lines = lock(&self.lines);
        if !lines.contains_key(&peer) {
            // Peers come and go; what is left of those that went is cleared away when somebody comes.
            lines.retain(|_, line| line.is_of_use());
        }
        let line = lines.entry(peer).or_insert_with(|| {
            let backoff = Backoff::new(self.local().environment.random("dial backoff"));
            let dialling = Dialling { backoff, failed: None };
            Line { connection: None, dialling: Arc::new(tokio::sync::Mutex::new(dialling)) }
        });
        with(line)
    }

    fn all(&self) -> Vec<Connection> {
        let mut all: Vec<_> = lock(&self.lines).values().filter_map(|line| line.connection.clone()).collect();
        all.extend(lock(&self.accepted).iter().cloned());
        all
    }

    /// A peer dialled.
    async fn welcome(&self, stream: Box<dyn ByteStream>, from: String) {
        // Whoever is refused is counted and told of there.
        let Ok(link) = self.handshake.accept(stream, &from).await else { return };
        let mut accepted = lock(&self.accepted);
        accepted.retain(|connection| !connection.link.is_closed());
        accepted.push(Connection { link, address: from.into() });
    }
}

/// One time that a peer is dialled.
struct Attempt {
    peer: Peer,
    address: String,
    within: Duration,
}

impl Attempt {
    /// Dials, and leaves what comes of it for those who want it later.
    async fn make(&self, shared: &Shared, mut dialling: OwnedMutexGuard<Dialling>) -> Result<Link> {
        let dialled = self.dial(shared).await;
        match &dialled {
            Ok(link) => {
                dialling.failed = None;
                dialling.backoff.reset();
                let connection = Connection { link: link.clone(), address: self.address.as_str().into() };
                shared.line(self.peer.instance, |line| line.connection = Some(connection));
            }
            Err(error) => {
                dialling.failed = Some((Instant::now() + dialling.backoff.fail(), error.to_string()));
            }
        }
        dialled
    }

    async fn dial(&self, shared: &Shared) -> Result<Link> {
        let Self { peer, address, within } = self;
        let counters = &shared.local().counters;
        counters.dialling();
        let dialled = match tokio::time::timeout(*within, shared.handshake.dial(*peer, address)).await {
            Ok(link) => link,
            Err(_) => Err(Error::deadline_exceeded(format!("dialling {address}"), *within, Effect::None)),
        };
        if let Err(error) = &dialled {
            counters.dialling_failed(error.code());
            // Calls go on to another plane, if there is one, and say nothing.
            tracing::warn!(peer = format_args!("{:x}", peer.instance), address, %error, "dialling failed");
        }
        dialled
    }
}

impl Line {
    /// Is there a connection, or a failure that is not to be forgotten yet, or does somebody dial?
    fn is_of_use(&self) -> bool {
        if self.connection.as_ref().is_some_and(|connection| !connection.link.is_closed()) {
            return true;
        }
        match self.dialling.try_lock() {
            Ok(dialling) => dialling.failed.as_ref().is_some_and(|(until, _)| Instant::now() < *until),
            Err(_) => true,
        }
    }
}

/// Accepts connections for as long as there is somebody to accept them for.
async fn listen(shared: Weak<Shared>, mut listener: Box<dyn Listener>) {
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    loop {
        let Ok(permit) = handshakes.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, from)) => {
                let Some(shared) = shared.upgrade() else { return };
                let environment = shared.local().environment.clone();
                let welcome = async move {
                    let _permit = permit;
                    shared.welcome(stream, from).await;
                };
                environment.start("handshake", welcome).detach();
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

impl fmt::Debug for Links {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Links").field("advertised", &self.advertised).field("plane", &self.plane).finish()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Single inserts and removals: whole whatever panics elsewhere.
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
