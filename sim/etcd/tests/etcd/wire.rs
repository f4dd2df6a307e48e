//! The way from a client to its servers: a network that delays, falls silent, and loses what it carried.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use slipring_core::{
    BoxFuture, ByteStream, Environment, EnvironmentExt, Fact, Listener, Result, Task, async_trait,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf, split};
use tokio::sync::Notify;
use tokio::time::sleep;

/// How much is read from one end at a time, and how much is under way, in bytes.
const CHUNK_BYTES: usize = 4 * 1024;
const WINDOW_BYTES: usize = 64 * 1024;

/// A direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Way {
    ToServer,
    ToClient,
}

/// An environment whose connections can be disturbed.
#[derive(Debug, Clone)]
pub(crate) struct Wired {
    inner: Arc<dyn Environment>,
    wire: Arc<Wire>,
}

#[derive(Debug, Default)]
struct Wire {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// What is held back, by the server's address.
    silent: BTreeMap<String, Vec<Way>>,
    /// How long a chunk may take at most.
    latency_max: Duration,
    attempts: usize,
    /// How often connections were made.
    dialled: usize,
    /// Connections up to this one are dead, and nobody is told.
    lost: usize,
    /// Bytes that arrived, in both directions, and a hash of when and where.
    traffic: Traffic,
}

/// What went over a wire: the same for the same seed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Traffic {
    pub(crate) chunks: u64,
    pub(crate) bytes: u64,
    pub(crate) hash: u64,
}

impl Wired {
    pub(crate) fn new(inner: Arc<dyn Environment>) -> Self {
        Self { inner, wire: Arc::default() }
    }

    /// From now on nothing goes this way to or from a server; what is under way arrives when it is over.
    pub(crate) fn silence(&self, server: &str, ways: &[Way]) {
        self.state().silent.insert(server.to_owned(), ways.to_vec());
    }

    pub(crate) fn heal(&self, server: &str) {
        self.state().silent.remove(server);
        self.wire.changed.notify_waiters();
    }

    /// What is under way is lost, and with it every connection there is: nothing passes on them any more, and
    /// neither end is told. New ones can be made.
    pub(crate) fn lose_connections(&self) {
        let mut state = self.state();
        state.lost = state.dialled;
    }

    pub(crate) fn set_latency_max(&self, latency: Duration) {
        self.state().latency_max = latency;
    }

    /// How often a connection was tried.
    pub(crate) fn attempts(&self) -> usize {
        self.state().attempts
    }

    pub(crate) fn traffic(&self) -> Traffic {
        self.state().traffic
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.wire.state.lock().unwrap()
    }

    /// Waits while nothing goes this way; for ever on a connection that is dead.
    async fn pass(&self, server: &str, way: Way, connection: usize) {
        loop {
            let changed = self.wire.changed.notified();
            let held = {
                let state = self.state();
                let silent = state.silent.get(server).is_some_and(|ways| ways.contains(&way));
                silent || connection <= state.lost
            };
            if !held {
                return;
            }
            changed.await;
        }
    }

    async fn carry<S: ByteStream>(
        self,
        (server, connection): (String, usize),
        way: Way,
        mut from: ReadHalf<S>,
        mut to: WriteHalf<impl ByteStream>,
    ) {
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            let read = from.read(&mut chunk).await;
            let latency = self.latency();
            if !latency.is_zero() {
                sleep(latency).await;
            }
            self.pass(&server, way, connection).await;
            let Ok(bytes @ 1..) = read else { break };
            self.count(way, &chunk[..bytes]);
            if to.write_all(&chunk[..bytes]).await.is_err() {
                break;
            }
        }
        // The other direction notices by itself.
        let _ = to.shutdown().await;
    }

    fn latency(&self) -> Duration {
        let max = self.state().latency_max;
        if max.is_zero() { max } else { max.mul_f64(self.inner.random("wire") as f64 / u64::MAX as f64) }
    }

    fn count(&self, way: Way, bytes: &[u8]) {
        let at = self.inner.wall_time().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let traffic = &mut self.state().traffic;
        traffic.chunks += 1;
        traffic.bytes += bytes.len() as u64;
        let words = [at.as_nanos() as u64, way as u64, bytes.len() as u64];
        let words = words.into_iter().chain(bytes.iter().map(|byte| u64::from(*byte)));
        traffic.hash = words.fold(traffic.hash, |hash, word| (hash ^ word).wrapping_mul(0x100_0000_01b3));
    }
}

#[async_trait]
impl Environment for Wired {
    fn wall_time(&self) -> SystemTime {
        self.inner.wall_time()
    }

    fn random(&self, purpose: &'static str) -> u64 {
        self.inner.random(purpose)
    }

    async fn listen(&self, address: &str) -> Result<Box<dyn Listener>> {
        self.inner.listen(address).await
    }

    async fn connect(&self, address: &str) -> Result<Box<dyn ByteStream>> {
        self.state().attempts += 1;
        for way in [Way::ToServer, Way::ToClient] {
            self.pass(address, way, usize::MAX).await;
        }
        let server = self.inner.connect(address).await?;
        let connection = {
            let mut state = self.state();
            state.dialled += 1;
            state.dialled
        };
        let (near, far) = tokio::io::duplex(WINDOW_BYTES);
        let (from_client, to_client) = split(far);
        let (from_server, to_server) = split(server);
        let there =
            self.clone().carry((address.to_owned(), connection), Way::ToServer, from_client, to_server);
        let back =
            self.clone().carry((address.to_owned(), connection), Way::ToClient, from_server, to_client);
        self.inner.start("wire", there).detach();
        self.inner.start("wire", back).detach();
        Ok(Box::new(near))
    }

    fn spawn(&self, name: &'static str, task: BoxFuture<'static, ()>) -> Task {
        self.inner.spawn(name, task)
    }

    fn spawn_vital(
        &self,
        name: &'static str,
        start: Box<dyn FnOnce() -> BoxFuture<'static, ()> + Send>,
    ) -> Task {
        self.inner.spawn_vital(name, start)
    }

    fn observe(&self, fact: &Fact) {
        self.inner.observe(fact);
    }
}
