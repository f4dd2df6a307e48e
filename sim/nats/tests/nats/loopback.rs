//! A simulated server on the loopback address, which can be stopped and started.

use std::sync::Arc;

use slipring_core::{Environment, EnvironmentExt, SystemEnvironment, Task, TaskEnd};
use slipring_servers::Port;
use slipring_sim_nats::{Nats, Options};
use tokio::sync::Mutex;

#[derive(Debug)]
pub(crate) struct Loopback {
    pub(crate) nats: Nats,
    environment: Arc<dyn Environment>,
    port: Port,
    serving: Mutex<Option<Task>>,
}

impl Loopback {
    pub(crate) async fn start(options: Options) -> Self {
        let environment = Arc::new(SystemEnvironment::new());
        let nats = Nats::new(options, environment.clone());
        let [port] = Port::claim();
        let server = Self { nats, environment, port, serving: Mutex::default() };
        server.begin().await;
        server
    }

    /// Where it is reached, as `127.0.0.1:port`.
    pub(crate) fn endpoint(&self) -> String {
        self.port.address()
    }

    /// It is back. No-op if it is there.
    pub(crate) async fn begin(&self) {
        let mut serving = self.serving.lock().await;
        if serving.is_none() {
            let listener = self.environment.listen(&self.endpoint()).await.unwrap();
            *serving = Some(self.environment.start("nats server", self.nats.clone().serve(listener)));
        }
    }

    /// It is gone, and so are its connections. No-op if it is not there.
    pub(crate) async fn end(&self) {
        if let Some(mut serving) = self.serving.lock().await.take() {
            serving.abort();
            assert_eq!(serving.end().await, TaskEnd::Aborted);
            self.nats.cut().await;
            assert!(self.nats.is_empty(), "something is kept of those who were connected");
        }
    }
}
