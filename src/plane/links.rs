//! The connections of a runtime: one per pair of processes, dialled when they are needed.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use futures_util::future::join_all;
use slipring_core::{ByteStream, Effect, Environment, EnvironmentExt, Error, Listener, Result, Task};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::link::{CloseReason, Host, Link, LinkLimits, Local, Peer, PlaneCounters};
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
    local: Arc<Local>,
    /// To each peer that is, or was, called.
    lines: Mutex<BTreeMap<u64, Line>>,
    /// From each peer that dialled. A peer may have dialled again before its old connection was noticed to be
    /// dead.
    accepted: Mutex<Vec<Link>>,
}

/// The way to one peer.
struct Line {
    link: Option<Link>,
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
        let shared =
            Arc::new(Shared { local: Arc::new(local), lines: Mutex::default(), accepted: Mutex::default() });
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

    pub(crate) fn counters(&self) -> &Arc<PlaneCounters> {
        &self.shared.local.counters
    }

    /// The connection to a peer, if there is one; it may have gone away in the meantime, and then refuses.
    pub(crate) fn ready(&self, peer: u64) -> Option<Link> {
        lock(&self.shared.lines).get(&peer)?.link.clone()
    }

    /// The connection to a peer; dialled if there is none.
    ///
    /// # Errors
    /// `Unavailable`, `Unauthorized`, `DeadlineExceeded`: it cannot be reached now. All with effect none. After
    /// a failure it is not dialled again for a while, and the same is said at once.
    pub(crate) async fn to(&self, peer: Peer, address: &str) -> Result<Link> {
        let dialling = self.shared.dialling(peer.instance);
        let mut dialling = dialling.lock().await;
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
        match self.dial(peer, address).await {
            Ok(link) => {
                dialling.failed = None;
                dialling.backoff.reset();
                self.shared.line(peer.instance, |line| line.link = Some(link.clone()));
                Ok(link)
            }
            Err(error) => {
                dialling.failed = Some((Instant::now() + dialling.backoff.fail(), error.to_string()));
                Err(error)
            }
        }
    }

    async fn dial(&self, peer: Peer, address: &str) -> Result<Link> {
        let local = &self.shared.local;
        let limit = self.plane.dial_timeout;
        let dialling = async {
            let stream = local.environment.connect(address).await?;
            Link::dial(local.clone(), stream, peer).await
        };
        match tokio::time::timeout(limit, dialling).await {
            Ok(link) => link,
            Err(_) => Err(Error::deadline_exceeded(format!("dialling {address}"), limit, Effect::None)),
        }
    }

    /// Says to every peer that no further requests are taken, waits until those under way are done, at most
    /// `grace`, and closes. Returns how many connections had streams under way then.
    pub(crate) async fn close(&self, grace: Duration) -> usize {
        let links = self.shared.all();
        links.iter().for_each(Link::go_away);
        let drained = join_all(links.iter().map(Link::drained));
        let late = tokio::time::timeout(grace, drained).await.is_err();
        let busy =
            if late { links.iter().filter(|link| link.snapshot().streams_open > 0).count() } else { 0 };
        links.iter().for_each(|link| link.close(CloseReason::Requested));
        busy
    }

    /// All that are open.
    pub(crate) fn open(&self) -> Vec<Link> {
        let mut links = self.shared.all();
        links.retain(|link| !link.is_closed());
        links
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        self.shared.all().iter().for_each(|link| link.close(CloseReason::Requested));
    }
}

impl Shared {
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
            let backoff = Backoff::new(self.local.environment.random("dial backoff"));
            let dialling = Dialling { backoff, failed: None };
            Line { link: None, dialling: Arc::new(tokio::sync::Mutex::new(dialling)) }
        });
        with(line)
    }

    fn all(&self) -> Vec<Link> {
        let mut links: Vec<_> = lock(&self.lines).values().filter_map(|line| line.link.clone()).collect();
        links.extend(lock(&self.accepted).iter().cloned());
        links
    }

    /// A peer dialled.
    async fn welcome(&self, stream: Box<dyn ByteStream>, from: String) {
        match Link::accept(self.local.clone(), stream).await {
            Ok(link) => {
                let mut accepted = lock(&self.accepted);
                accepted.retain(|link| !link.is_closed());
                accepted.push(link);
            }
            Err(error) => tracing::debug!(from, %error, "a connection was not accepted"),
        }
    }
}

impl Line {
    /// Is there a connection, or a failure that is not to be forgotten yet, or does somebody dial?
    fn is_of_use(&self) -> bool {
        if self.link.as_ref().is_some_and(|link| !link.is_closed()) {
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
                let environment = shared.local.environment.clone();
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
