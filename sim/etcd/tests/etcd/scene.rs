//! Servers and clients in a world, and the whole kit's fixtures of them.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use slipring_conformance::{Action, Fixture};
use slipring_core::{
    Batch, Discovery, DiscoveryExt, Environment, EnvironmentExt, Error, Key, Prefix, Range, Result, Revision,
    Watch, async_trait,
};
use slipring_etcd::{Config, EtcdDiscovery};
use slipring_memory::Profile;
use slipring_sim::{Setup, SimEnvironment, World};
use slipring_sim_etcd::Etcd;
use tokio::time::{Instant, sleep, timeout};

use crate::wire::Wired;

/// How long a restarted server needs until it answers.
pub(crate) const READY: Duration = Duration::from_millis(300);
/// How long something that has to come may take, in simulated time.
pub(crate) const WAIT_MAX: Duration = Duration::from_secs(120);
pub(crate) const SECOND: Duration = Duration::from_secs(1);

/// A world with an etcd, whose servers are nodes.
#[derive(Debug, Clone)]
pub(crate) struct Scene {
    pub(crate) world: World,
    pub(crate) etcd: Etcd,
}

impl Scene {
    /// One server, at `etcd:2379`.
    pub(crate) async fn new(world: World) -> Self {
        let scene = Self::without_servers(world);
        scene.serve("etcd").await;
        scene
    }

    pub(crate) fn without_servers(world: World) -> Self {
        let told = world.clone();
        let environment = world.node("cluster").environment();
        let observer = move |clock, event| told.tell_store(clock, event);
        Self { etcd: Etcd::observed(&Profile::etcd(), environment, observer), world }
    }

    /// Begins the next life of a server, at `name:2379`.
    pub(crate) async fn serve(&self, name: &str) {
        let environment: Arc<dyn Environment> = self.world.node(name).environment();
        let listener = environment.listen(&format!("{name}:2379")).await.unwrap();
        let serving = self.etcd.clone().serve(environment.clone(), listener, READY);
        environment.start("etcd", serving).detach();
        // It serves when this resolves.
        sleep(Duration::from_millis(1)).await;
    }

    /// A client's way to the servers.
    pub(crate) fn wired(&self, name: &str) -> Wired {
        Wired::new(self.world.node(name).environment())
    }

    /// The real adapter, on a node of its own.
    pub(crate) fn adapter(&self, config: Config, wired: &Wired) -> EtcdDiscovery {
        EtcdDiscovery::new(config, Arc::new(wired.clone())).unwrap()
    }

    /// The real adapter without a network, in the name of a node.
    pub(crate) fn within_process(&self, name: &str) -> EtcdDiscovery {
        let environment = self.world.node(name).environment();
        EtcdDiscovery::with_channel(config(), environment, self.etcd.channel()).unwrap()
    }

    /// The real adapter; what it answers is in the history, for checkers.
    pub(crate) fn recorded(&self, name: &str, config: Config) -> (Arc<dyn Discovery>, Wired) {
        let wired = self.wired(name);
        let adapter = self.adapter(config, &wired);
        (self.world.node(name).link().discovery(Arc::new(adapter)), wired)
    }
}

pub(crate) fn setup() -> Setup {
    Setup::from(Profile::etcd()).with_shuffling(true)
}

pub(crate) fn config() -> Config {
    Config::new(["etcd:2379"])
}

pub(crate) fn key(text: impl AsRef<str>) -> Key {
    Key::new(text).unwrap()
}

pub(crate) fn range(prefix: &str) -> Range {
    Prefix::new(prefix).unwrap().into()
}

pub(crate) async fn put(store: &dyn Discovery, name: impl AsRef<str>) -> Revision {
    store.put(key(name), "v".into(), None).await.unwrap()
}

/// Waits for something that has to come.
pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(WAIT_MAX, future).await.unwrap_or_else(|_| panic!("waited {WAIT_MAX:?} in vain for {what}"))
}

/// Tries until it succeeds, as loops above the adapter do. Returns how long that took, too.
pub(crate) async fn until_ok<T>(what: &str, attempt: impl AsyncFn() -> Result<T>) -> (T, Duration) {
    let began = Instant::now();
    let value = within(what, async {
        loop {
            match attempt().await {
                Ok(value) => return value,
                Err(_) => sleep(Duration::from_millis(20)).await,
            }
        }
    });
    (value.await, began.elapsed())
}

/// The next batch with changes, or the error that ends the watch.
pub(crate) async fn next(watch: &mut Watch) -> Result<Batch> {
    within("an item of the watch", async {
        loop {
            let item = watch.events.next().await.expect("the last item is an error");
            if item.as_ref().map_or(true, |batch| !batch.changes.is_empty()) {
                return item;
            }
        }
    })
    .await
}

/// How the watch ends, and how long that took.
pub(crate) async fn end(watch: &mut Watch) -> (Error, Duration) {
    let began = Instant::now();
    loop {
        if let Err(error) = next(watch).await {
            return (error, began.elapsed());
        }
    }
}

/// An etcd that is reached without a network.
#[derive(Debug)]
pub(crate) struct InProcess {
    pub(crate) etcd: Etcd,
    pub(crate) environment: Arc<SimEnvironment>,
}

impl InProcess {
    pub(crate) fn new(seed: u64) -> Self {
        let environment = Arc::new(SimEnvironment::new(seed));
        Self { etcd: Etcd::new(&Profile::etcd(), environment.clone()), environment }
    }

    pub(crate) fn adapter(&self, config: Config) -> EtcdDiscovery {
        EtcdDiscovery::with_channel(config, self.environment.clone(), self.etcd.channel()).unwrap()
    }
}

#[async_trait]
impl Fixture for InProcess {
    fn environment(&self) -> Arc<dyn Environment> {
        self.environment.clone()
    }

    async fn discovery(&self) -> Result<Option<Arc<dyn Discovery>>> {
        Ok(Some(Arc::new(self.adapter(config()))))
    }

    fn can(&self, action: Action) -> bool {
        action == Action::Compact
    }

    async fn act(&self, _: Action) -> Result<()> {
        self.etcd.compact();
        Ok(())
    }
}

/// An etcd in a world, reached over its network.
#[derive(Debug)]
pub(crate) struct Networked(pub(crate) Scene);

#[async_trait]
impl Fixture for Networked {
    fn environment(&self) -> Arc<dyn Environment> {
        self.0.world.node("client").environment()
    }

    async fn discovery(&self) -> Result<Option<Arc<dyn Discovery>>> {
        let wired = self.0.wired("client");
        wired.set_latency_max(Duration::from_millis(2));
        Ok(Some(Arc::new(self.0.adapter(config(), &wired))))
    }

    fn can(&self, _: Action) -> bool {
        true
    }

    async fn act(&self, action: Action) -> Result<()> {
        let server = self.0.world.living("etcd");
        match (action, server) {
            (Action::Compact, _) => self.0.etcd.compact(),
            (Action::Stop, Some(server)) => server.crash(),
            (Action::Start, None) => self.0.serve("etcd").await,
            (Action::Pause, Some(server)) => server.environment().pause(),
            (Action::Resume, Some(server)) => server.environment().resume(),
            (Action::Cut, _) => self.0.etcd.cut(),
            _ => {}
        }
        Ok(())
    }
}
