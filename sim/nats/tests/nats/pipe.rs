//! A simulated server without a network: connections are pipes within the process, so the clock may be a paused one.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use slipring_core::{
    BoxFuture, ByteStream, Effect, Environment, EnvironmentExt, Error, Listener, Result, SystemEnvironment,
    Task, async_trait,
};
use slipring_sim_nats::{Nats, Options};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;

/// How much a pipe holds.
const PIPE_BYTES_MAX: usize = 16 * 1024;
/// How many connections may wait to be accepted.
const WAITING_MAX: usize = 1024;

/// A server at the other end of pipes.
pub(crate) struct Piped {
    pub(crate) nats: Nats,
    connect: mpsc::Sender<DuplexStream>,
    pub(crate) serving: Task,
}

impl Piped {
    pub(crate) fn start(options: Options, seed: u64) -> Self {
        let environment = Arc::new(Seeded(AtomicU64::new(seed)));
        let (connect, incoming) = mpsc::channel(WAITING_MAX);
        let nats = Nats::new(options, environment.clone());
        let serving = environment.start("nats server", nats.clone().serve(Box::new(Pipes(incoming))));
        Self { nats, connect, serving }
    }

    pub(crate) async fn connect(&self) -> Pipe {
        let (ours, its) = tokio::io::duplex(PIPE_BYTES_MAX);
        self.connect.send(its).await.unwrap();
        Pipe(ours)
    }

    /// A client that was greeted.
    pub(crate) async fn client(&self) -> Pipe {
        let mut client = self.connect().await;
        client.heard_until("\r\n").await;
        client
    }
}

/// The client's end.
pub(crate) struct Pipe(DuplexStream);

impl Pipe {
    /// Says this; no-op if the other end is closed.
    pub(crate) async fn say(&mut self, text: impl AsRef<[u8]>) {
        let _ = self.0.write_all(text.as_ref()).await;
    }

    /// All that comes up to this, or to the end.
    pub(crate) async fn heard_until(&mut self, end: &str) -> String {
        let mut heard = Vec::new();
        while !heard.ends_with(end.as_bytes()) {
            match self.0.read_u8().await {
                Ok(byte) => heard.push(byte),
                Err(_) => return format!("{}<closed>", heard.escape_ascii()),
            }
        }
        heard.escape_ascii().to_string()
    }

    /// How many bytes come up to the end.
    pub(crate) async fn count(&mut self) -> usize {
        let mut all = Vec::new();
        let _ = self.0.read_to_end(&mut all).await;
        all.len()
    }
}

/// Accepts the other ends.
struct Pipes(mpsc::Receiver<DuplexStream>);

impl fmt::Debug for Pipes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pipes")
    }
}

#[async_trait]
impl Listener for Pipes {
    fn local_address(&self) -> String {
        "pipe:4222".to_owned()
    }

    async fn accept(&mut self) -> Result<(Box<dyn ByteStream>, String)> {
        match self.0.recv().await {
            Some(stream) => Ok((Box::new(stream), "pipe:1".to_owned())),
            None => std::future::pending().await,
        }
    }
}

/// The system's tasks, and numbers that a seed decides.
#[derive(Debug)]
struct Seeded(AtomicU64);

#[async_trait]
impl Environment for Seeded {
    fn wall_time(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1)
    }

    fn random(&self, _purpose: &'static str) -> u64 {
        // Weyl's sequence, stirred once.
        let next = self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        (next ^ (next >> 31)).wrapping_mul(0xbf58_476d_1ce4_e5b9)
    }

    async fn listen(&self, address: &str) -> Result<Box<dyn Listener>> {
        Err(Error::unavailable(address, "there are pipes alone", Effect::None))
    }

    async fn connect(&self, address: &str) -> Result<Box<dyn ByteStream>> {
        Err(Error::unavailable(address, "there are pipes alone", Effect::None))
    }

    fn spawn(&self, name: &'static str, task: BoxFuture<'static, ()>) -> Task {
        SystemEnvironment::new().spawn(name, task)
    }

    fn spawn_vital(
        &self,
        name: &'static str,
        start: Box<dyn FnOnce() -> BoxFuture<'static, ()> + Send>,
    ) -> Task {
        SystemEnvironment::new().spawn_vital(name, start)
    }
}
