use std::time::SystemTime;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
// doctor: allow(this is the environment that is no simulation)
use tokio::net::{TcpListener, TcpStream};

use crate::{ByteStream, Effect, Environment, Error, Listener, Result, Task};

/// The production [`Environment`]: tokio tasks and sockets, the system's clock and entropy.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemEnvironment;

impl SystemEnvironment {
    /// The environment; it has no state.
    pub fn new() -> Self {
        Self
    }
}

#[async_trait]
impl Environment for SystemEnvironment {
    #[expect(clippy::disallowed_methods, reason = "this is the seam")]
    fn wall_time(&self) -> SystemTime {
        SystemTime::now()
    }

    #[expect(clippy::disallowed_methods, reason = "this is the seam")]
    fn random(&self, _purpose: &'static str) -> u64 {
        getrandom::u64().expect("the operating system has entropy")
    }

    async fn listen(&self, address: &str) -> Result<Box<dyn Listener>> {
        match TcpListener::bind(address).await {
            Ok(listener) => Ok(Box::new(SystemListener(listener))),
            Err(error) => Err(Error::unavailable(address, error.to_string(), Effect::None)),
        }
    }

    async fn connect(&self, address: &str) -> Result<Box<dyn ByteStream>> {
        let unavailable =
            |error: std::io::Error| Error::unavailable(address, error.to_string(), Effect::None);
        let stream = TcpStream::connect(address).await.map_err(unavailable)?;
        stream.set_nodelay(true).map_err(unavailable)?;
        Ok(Box::new(stream))
    }

    /// Nobody is.
    fn is_observed(&self) -> bool {
        false
    }

    #[expect(clippy::disallowed_methods, reason = "this is the seam")]
    fn spawn(&self, name: &'static str, task: BoxFuture<'static, ()>) -> Task {
        let (task, run) = Task::new(name, task);
        tokio::spawn(run);
        task
    }

    /// A thread of its own with a current-thread runtime. Under a paused clock (in a test) an ordinary task,
    /// because a thread would live in real time.
    #[expect(clippy::disallowed_methods, reason = "this is the seam")]
    fn spawn_vital(
        &self,
        name: &'static str,
        start: Box<dyn FnOnce() -> BoxFuture<'static, ()> + Send>,
    ) -> Task {
        let (task, run) = Task::new(name, Box::pin(async move { start().await }));
        if clock_is_paused() {
            tokio::spawn(run);
            return task;
        }
        let body = move || match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime.block_on(run),
            Err(error) => tracing::error!(task = name, %error, "no runtime for a vital task"),
        };
        if let Err(error) = std::thread::Builder::new().name(name.to_owned()).spawn(body) {
            tracing::error!(task = name, %error, "no thread for a vital task");
        }
        task
    }
}

/// A clock that runs reads a time between two readings of the system's; a paused one stands elsewhere.
#[expect(clippy::disallowed_methods, reason = "this is the seam")]
fn clock_is_paused() -> bool {
    let before = std::time::Instant::now();
    let now = tokio::time::Instant::now().into_std();
    !(before..=std::time::Instant::now()).contains(&now)
}

#[derive(Debug)]
struct SystemListener(TcpListener);

#[async_trait]
impl Listener for SystemListener {
    fn local_address(&self) -> String {
        self.0.local_addr().map(|address| address.to_string()).unwrap_or_default()
    }

    async fn accept(&mut self) -> Result<(Box<dyn ByteStream>, String)> {
        let unavailable =
            |error: std::io::Error| Error::unavailable("listener", error.to_string(), Effect::None);
        let (stream, peer) = self.0.accept().await.map_err(unavailable)?;
        stream.set_nodelay(true).map_err(unavailable)?;
        Ok((Box::new(stream), peer.to_string()))
    }
}
