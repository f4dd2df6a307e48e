use std::ops::DerefMut;

use tokio::sync::{Mutex, MutexGuard};

use crate::{Process, Proxy};

/// A server with a proxy before it: everything that a test can do to the two.
#[derive(Debug)]
pub struct Proxied<S> {
    server: Mutex<S>,
    proxy: Proxy,
}

impl<S: DerefMut<Target = Process>> Proxied<S> {
    /// A proxy before this server.
    pub async fn new(server: S) -> Self {
        let proxy = Proxy::start(server.endpoint()).await;
        Self { server: Mutex::new(server), proxy }
    }

    /// Where clients reach it, as `127.0.0.1:port`.
    pub fn endpoint(&self) -> String {
        self.proxy.endpoint()
    }

    /// The proxy.
    pub fn proxy(&self) -> &Proxy {
        &self.proxy
    }

    /// The server itself.
    pub async fn server(&self) -> MutexGuard<'_, S> {
        self.server.lock().await
    }

    /// Kills the server: connections end, and new ones are refused. No-op if it does not run.
    pub async fn stop(&self) {
        self.server().await.kill();
        self.proxy.cut();
    }

    /// Starts it again, with its data; resolves when it listens. No-op if it runs.
    ///
    /// # Panics
    /// If it does not start.
    pub async fn start(&self) {
        let mut server = self.server().await;
        if !server.is_running() {
            server.restart().await.unwrap_or_else(|problem| panic!("{problem}"));
            self.proxy.mend();
        }
    }

    /// Lets it stand still.
    ///
    /// # Panics
    /// If it does not run.
    pub async fn pause(&self) {
        self.server().await.pause();
    }

    /// Lets it go on. No-op if it does not run, or is not paused.
    pub async fn resume(&self) {
        let server = self.server().await;
        if server.is_running() {
            server.resume();
        }
    }

    /// Ends all connections once; resolves when they have ended.
    pub async fn cut(&self) {
        self.proxy.reset().await;
    }
}
