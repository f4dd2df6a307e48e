//! A server, handles to it, and what other clients see of it.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use slipring_conformance::{Action, Fixture};
use slipring_core::{
    Batch, Discovery, DiscoveryExt, Environment, Error, Key, Prefix, Range, Result, Revision,
    SystemEnvironment, Watch, async_trait,
};
use slipring_etcd::{Config, EtcdDiscovery};
use slipring_servers::{Etcd, Proxied, Version};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

/// How long a test waits for what has to come.
pub(crate) const WAIT_MAX: Duration = Duration::from_secs(60);

/// One etcd, for the conformance kit.
#[derive(Debug)]
pub(crate) struct EtcdFixture {
    server: Proxied<Etcd>,
    environment: Arc<dyn Environment>,
}

impl EtcdFixture {
    pub(crate) async fn start(version: Version) -> Arc<Self> {
        let server = Proxied::new(Etcd::start(version).await).await;
        Arc::new(Self { server, environment: system() })
    }
}

#[async_trait]
impl Fixture for EtcdFixture {
    fn environment(&self) -> Arc<dyn Environment> {
        self.environment.clone()
    }

    async fn discovery(&self) -> Result<Option<Arc<dyn Discovery>>> {
        let config = Config::new([self.server.endpoint()]);
        Ok(Some(Arc::new(EtcdDiscovery::new(config, self.environment.clone())?)))
    }

    fn can(&self, _: Action) -> bool {
        true
    }

    async fn act(&self, action: Action) -> Result<()> {
        match action {
            Action::Compact => self.server.server().await.compact().await,
            Action::Stop => self.server.stop().await,
            Action::Start => self.server.start().await,
            Action::Pause => self.server.pause().await,
            Action::Resume => self.server.resume().await,
            Action::Cut => self.server.cut().await,
            other => return Err(Error::unsupported(format!("{other:?}"), "not here")),
        }
        Ok(())
    }
}

pub(crate) fn system() -> Arc<dyn Environment> {
    Arc::new(SystemEnvironment::new())
}

/// A handle, and a server to it that is ready.
pub(crate) async fn handle(config: Config) -> EtcdDiscovery {
    let store = EtcdDiscovery::new(config, system()).unwrap();
    store.capabilities().await.unwrap();
    store
}

pub(crate) fn key(text: impl AsRef<str>) -> Key {
    Key::new(text).unwrap()
}

pub(crate) async fn put(store: &EtcdDiscovery, name: impl AsRef<str>, value: impl Into<Vec<u8>>) -> Revision {
    store.put(key(name), value.into().into(), None).await.unwrap()
}

pub(crate) fn range(prefix: &str) -> Range {
    Prefix::new(prefix).unwrap().into()
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

/// How the watch ends, and how long that took. What it shows before is of no interest.
pub(crate) async fn end(watch: &mut Watch) -> (Error, Duration) {
    let began = Instant::now();
    loop {
        if let Err(error) = next(watch).await {
            assert!(watch.events.next().await.is_none(), "the error is the last item");
            return (error, began.elapsed());
        }
    }
}

/// A figure that etcd tells about itself.
pub(crate) async fn metric(server: &Etcd, name: &str) -> u64 {
    let mut connection = TcpStream::connect(server.endpoint()).await.unwrap();
    connection.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").await.unwrap();
    let mut page = String::new();
    connection.read_to_string(&mut page).await.unwrap();
    let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no metric {name}")).parse::<f64>().unwrap() as u64
}

/// Waits until a figure of etcd's is this.
pub(crate) async fn metric_is(server: &Etcd, name: &str, value: u64) {
    let mut last = 0;
    let reached = timeout(WAIT_MAX, async {
        loop {
            last = metric(server, name).await;
            if last == value {
                return;
            }
            sleep(Duration::from_millis(20)).await;
        }
    });
    let reached = reached.await;
    assert!(reached.is_ok(), "{name} is {last}, not {value}");
}
