use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::SystemTime;

use slipring_core::{BoxFuture, ByteStream, Environment, Fact, Listener, Result, Task, async_trait};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// An environment with a meter: what a runtime has of it is counted, to see that it leaves nothing behind and does
/// not dial without end.
///
/// ```
/// use slipring_core::{Environment, EnvironmentExt};
/// use slipring_sim::{Meter, Metered, SimEnvironment};
/// # tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(async {
/// let (environment, meter) = (SimEnvironment::new(7), Meter::new());
/// let metered = Metered::new(environment, &meter);
/// let task = metered.start("waiting", std::future::pending());
/// assert_eq!((meter.tasks(), meter.is_zero()), (1, false));
/// drop(task);
/// tokio::task::yield_now().await;
/// assert!(meter.is_zero());
/// # });
/// ```
#[derive(Debug)]
pub struct Metered {
    environment: Arc<dyn Environment>,
    meter: Meter,
}

/// What there is behind [`Metered`] environments. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Meter(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    tasks: AtomicUsize,
    connections: AtomicUsize,
    dials: AtomicUsize,
}

impl Metered {
    /// This environment, counted by this meter, which may count others too.
    pub fn new(environment: impl Environment, meter: &Meter) -> Self {
        Self { environment: Arc::new(environment), meter: meter.clone() }
    }

    fn connection(&self, stream: Box<dyn ByteStream>) -> Box<dyn ByteStream> {
        Box::new(Connection { stream, _alive: self.meter.connection() })
    }
}

impl Meter {
    /// Nothing was counted yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Tasks that are alive.
    pub fn tasks(&self) -> usize {
        self.0.tasks.load(Ordering::Relaxed)
    }

    /// Ends of connections that are open, whichever side dialled.
    pub fn connections(&self) -> usize {
        self.0.connections.load(Ordering::Relaxed)
    }

    /// How often it was tried to connect.
    pub fn dials(&self) -> usize {
        self.0.dials.load(Ordering::Relaxed)
    }

    /// Is no task alive, and no connection open?
    pub fn is_zero(&self) -> bool {
        self.tasks() == 0 && self.connections() == 0
    }

    fn task(&self) -> Alive {
        Alive::of(self, |counts| &counts.tasks)
    }

    fn connection(&self) -> Alive {
        Alive::of(self, |counts| &counts.connections)
    }
}

impl fmt::Display for Meter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (tasks, connections, dials) = (self.tasks(), self.connections(), self.dials());
        write!(f, "{tasks} tasks, {connections} connections, {dials} dials")
    }
}

/// Counted until it is dropped.
struct Alive {
    counts: Arc<Counts>,
    which: fn(&Counts) -> &AtomicUsize,
}

impl Alive {
    fn of(meter: &Meter, which: fn(&Counts) -> &AtomicUsize) -> Self {
        which(&meter.0).fetch_add(1, Ordering::Relaxed);
        Self { counts: meter.0.clone(), which }
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        (self.which)(&self.counts).fetch_sub(1, Ordering::Relaxed);
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Environment for Metered {
    fn wall_time(&self) -> SystemTime {
        self.environment.wall_time()
    }

    fn random(&self, purpose: &'static str) -> u64 {
        self.environment.random(purpose)
    }

    async fn listen(&self, address: &str) -> Result<Box<dyn Listener>> {
        let listener = self.environment.listen(address).await?;
        Ok(Box::new(MeteredListener { listener, meter: self.meter.clone() }))
    }

    async fn connect(&self, address: &str) -> Result<Box<dyn ByteStream>> {
        self.meter.0.dials.fetch_add(1, Ordering::Relaxed);
        Ok(self.connection(self.environment.connect(address).await?))
    }

    fn spawn(&self, name: &'static str, task: BoxFuture<'static, ()>) -> Task {
        let alive = self.meter.task();
        self.environment.spawn(
            name,
            Box::pin(async move {
                let _alive = alive;
                task.await;
            }),
        )
    }

    fn spawn_vital(
        &self,
        name: &'static str,
        start: Box<dyn FnOnce() -> BoxFuture<'static, ()> + Send>,
    ) -> Task {
        let alive = self.meter.task();
        let start = move || -> BoxFuture<'static, ()> {
            let task = start();
            Box::pin(async move {
                let _alive = alive;
                task.await;
            })
        };
        self.environment.spawn_vital(name, Box::new(start))
    }

    fn observe(&self, fact: &Fact) {
        self.environment.observe(fact);
    }

    fn is_observed(&self) -> bool {
        self.environment.is_observed()
    }
}

#[derive(Debug)]
struct MeteredListener {
    listener: Box<dyn Listener>,
    meter: Meter,
}

#[async_trait]
impl Listener for MeteredListener {
    fn local_address(&self) -> String {
        self.listener.local_address()
    }

    async fn accept(&mut self) -> Result<(Box<dyn ByteStream>, String)> {
        let (stream, from) = self.listener.accept().await?;
        Ok((Box::new(Connection { stream, _alive: self.meter.connection() }), from))
    }
}

struct Connection {
    stream: Box<dyn ByteStream>,
    _alive: Alive,
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
