//! A server process on the broker's machine.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use slipring_core::{Environment, EnvironmentExt, Listener, Task};
use tokio::time::sleep;

use super::wire::{Broker, serve};
use crate::SimEnvironment;
use crate::link;

/// A port that the life before has not left yet is asked for again after this.
const LISTEN_AGAIN: Duration = Duration::from_millis(1);

/// A server: it can be stopped, which ends its connections, and stand still, which ends nothing.
pub(crate) struct Server {
    address: String,
    broker: Broker,
    /// The machine: it accepts connections even while the process stands still.
    machine: Arc<dyn Environment>,
    /// Makes the environment of a life of the process.
    process: Box<dyn Fn() -> SimEnvironment + Send + Sync>,
    life: Mutex<Life>,
}

#[derive(Default)]
struct Life {
    does: link::Server,
    process: Option<(Arc<SimEnvironment>, Task)>,
}

impl Server {
    /// A server that runs.
    pub(crate) fn start(
        address: &str,
        broker: Broker,
        machine: Arc<dyn Environment>,
        process: impl Fn() -> SimEnvironment + Send + Sync + 'static,
    ) -> Self {
        let (address, process) = (address.to_owned(), Box::new(process));
        let server = Self { address, broker, machine, process, life: Mutex::default() };
        server.begin(&mut server.life());
        server
    }

    /// What it does from now on. Without a leader it is up to the links what becomes of a call.
    pub(crate) fn set(&self, does: link::Server) {
        let mut life = self.life();
        let before = std::mem::replace(&mut life.does, does);
        if does == link::Server::Down {
            if let Some((process, _accepting)) = life.process.take() {
                process.crash();
            }
            return;
        }
        if life.process.is_none() {
            self.begin(&mut life);
        } else if (before == link::Server::Stopped) != (does == link::Server::Stopped)
            && let Some((process, _)) = &life.process
        {
            if does == link::Server::Stopped { process.pause() } else { process.resume() }
        }
    }

    /// The tasks of the process.
    pub(crate) fn tasks(&self) -> usize {
        self.life().process.as_ref().map_or(0, |(process, _)| process.tasks())
    }

    /// Begins a life of the process.
    fn begin(&self, life: &mut Life) {
        let process = Arc::new((self.process)());
        if life.does == link::Server::Stopped {
            process.pause();
        }
        let accept = accept(process.clone(), self.address.clone(), self.broker.clone());
        life.process = Some((process, self.machine.start("accepting", accept)));
    }

    fn life(&self) -> MutexGuard<'_, Life> {
        self.life.lock().expect("no code panics while it holds the lock")
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("address", &self.address).finish_non_exhaustive()
    }
}

async fn accept(process: Arc<SimEnvironment>, address: String, broker: Broker) {
    let mut listener: Box<dyn Listener> = loop {
        match process.listen(&address).await {
            Ok(listener) => break listener,
            Err(_) => sleep(LISTEN_AGAIN).await,
        }
    };
    while let Ok((stream, _peer)) = listener.accept().await {
        process.start("connection", serve(process.clone(), broker.clone(), stream)).detach();
    }
}
