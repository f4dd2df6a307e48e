//! An environment whose connections are pipes in memory.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use slipring::{Effect, Environment, Error, Result, SystemEnvironment};
use slipring_core::{BoxFuture, ByteStream, Listener, Task, async_trait};
use tokio::sync::mpsc;

/// Bytes that a pipe holds in each direction.
const PIPE_BYTES: usize = 64 * 1024;

/// A network of pipes; clones are the same network.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pipes {
    doors: Arc<Mutex<BTreeMap<String, Knocks>>>,
}

type Knocks = mpsc::Sender<Box<dyn ByteStream>>;

#[derive(Debug)]
struct Door {
    address: String,
    arrivals: mpsc::Receiver<Box<dyn ByteStream>>,
}

#[async_trait]
impl Listener for Door {
    fn local_address(&self) -> String {
        self.address.clone()
    }

    async fn accept(&mut self) -> Result<(Box<dyn ByteStream>, String)> {
        let arrived = self.arrivals.recv().await;
        let stream = arrived.ok_or_else(|| Error::unavailable("pipes", "they are gone", Effect::None))?;
        Ok((stream, "pipe".to_owned()))
    }
}

#[async_trait]
impl Environment for Pipes {
    fn wall_time(&self) -> SystemTime {
        SystemEnvironment.wall_time()
    }

    fn random(&self, purpose: &'static str) -> u64 {
        SystemEnvironment.random(purpose)
    }

    async fn listen(&self, _: &str) -> Result<Box<dyn Listener>> {
        let (sender, arrivals) = mpsc::channel(16);
        let mut doors = self.doors.lock().unwrap();
        let address = format!("pipe:{}", doors.len() + 1);
        doors.insert(address.clone(), sender);
        Ok(Box::new(Door { address, arrivals }))
    }

    async fn connect(&self, address: &str) -> Result<Box<dyn ByteStream>> {
        let door = self.doors.lock().unwrap().get(address).cloned();
        let refused = || Error::unavailable(address, "nobody listens", Effect::None);
        let (near, far) = tokio::io::duplex(PIPE_BYTES);
        door.ok_or_else(refused)?.send(Box::new(far)).await.map_err(|_| refused())?;
        Ok(Box::new(near))
    }

    fn spawn(&self, name: &'static str, task: BoxFuture<'static, ()>) -> Task {
        SystemEnvironment.spawn(name, task)
    }

    fn spawn_vital(
        &self,
        name: &'static str,
        start: Box<dyn FnOnce() -> BoxFuture<'static, ()> + Send>,
    ) -> Task {
        SystemEnvironment.spawn_vital(name, start)
    }
}
