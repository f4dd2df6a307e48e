//! Where the cases are run: a plane, and what carries its bytes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use slipring::{Client, DistributedRuntime, Endpoint, LocalPlane, MemoryWorld, Plane, Settings, TcpPlane};
use slipring_core::Messaging as _;
use slipring_sim::World;
use tokio::time::Instant;

#[cfg(feature = "tls")]
use crate::certificates::Authority;
use crate::pipes::Pipes;

/// The endpoint that every case serves and calls.
const WORK: &str = "fleet/worker/work";

/// A plane, and what carries its bytes.
pub(crate) struct Ground {
    pub(crate) plane: Plane,
    carrier: Carrier,
    settings: Settings,
    message_bytes_max: usize,
    nodes: AtomicU64,
    /// Who vouches for all runtimes, if they speak TLS.
    #[cfg(feature = "tls")]
    authority: Option<Authority>,
}

enum Carrier {
    /// Nothing but the process.
    Process(MemoryWorld, LocalPlane),
    /// Tokio's TCP.
    Sockets(MemoryWorld),
    /// Pipes in memory.
    Pipes(MemoryWorld, Pipes),
    /// The network of a simulated world.
    Simulator(World),
}

/// The largest message on the planes over TCP.
pub(crate) const MESSAGE_BYTES_MAX: usize = 64 * 1024 * 1024;

impl Ground {
    fn new(plane: Plane) -> Self {
        let carrier = Carrier::Process(MemoryWorld::new(), LocalPlane::new());
        let mut settings = Settings::default();
        settings.watcher_grace = Duration::from_millis(20);
        Self {
            plane,
            carrier,
            settings,
            message_bytes_max: MESSAGE_BYTES_MAX,
            nodes: AtomicU64::new(0),
            #[cfg(feature = "tls")]
            authority: None,
        }
    }

    pub(crate) fn local() -> Self {
        Self::new(Plane::Local)
    }

    pub(crate) fn broker() -> Self {
        Self::new(Plane::Broker)
    }

    pub(crate) fn tcp() -> Self {
        Self::new(Plane::Tcp)
    }

    pub(crate) fn nats_tcp() -> Self {
        Self::new(Plane::NatsTcp)
    }

    pub(crate) fn on_sockets(self) -> Self {
        Self { carrier: Carrier::Sockets(MemoryWorld::new()), ..self }
    }

    pub(crate) fn on_pipes(self) -> Self {
        Self { carrier: Carrier::Pipes(MemoryWorld::new(), Pipes::default()), ..self }
    }

    pub(crate) fn in_the_simulator(self) -> Self {
        Self { carrier: Carrier::Simulator(World::new(7)), ..self }
    }

    /// Over mutual TLS.
    #[cfg(feature = "tls")]
    pub(crate) fn with_tls(self) -> Self {
        let authority = Authority::new("everybody's");
        authority.issue("member", "fleet.test");
        Self { authority: Some(authority), ..self }
    }

    /// The largest message of the bus, headers included.
    pub(crate) async fn bus_bytes_max(&self) -> usize {
        let capabilities = match &self.carrier {
            Carrier::Process(world, _) | Carrier::Sockets(world) | Carrier::Pipes(world, _) => {
                world.messaging().capabilities().await
            }
            Carrier::Simulator(world) => world.memory().messaging().capabilities().await,
        };
        capabilities.unwrap().payload_bytes_max
    }

    /// A runtime that serves on the plane.
    pub(crate) async fn worker(&self) -> DistributedRuntime {
        let tcp = match self.plane {
            Plane::Tcp => self.tcp_plane(true),
            Plane::NatsTcp => self.tcp_plane(false).with_call_home(true),
            _ => TcpPlane::new(),
        };
        self.runtime("worker", tcp).await
    }

    /// A runtime that calls on the plane.
    pub(crate) async fn caller(&self) -> DistributedRuntime {
        self.runtime("caller", self.tcp_plane(self.plane == Plane::NatsTcp)).await
    }

    /// The endpoint, as a runtime sees it.
    pub(crate) fn work(&self, runtime: &DistributedRuntime) -> Endpoint {
        runtime.endpoint(WORK).unwrap()
    }

    /// A client that uses the plane and no other, and sees an instance.
    pub(crate) async fn client<Req, Resp>(&self, caller: &DistributedRuntime) -> Client<Req, Resp>
    where
        Req: Serialize + Sync,
        Resp: DeserializeOwned,
    {
        let client = self.work(caller).client().await.unwrap();
        client.wait_for_instances(1, Duration::from_secs(10)).await.unwrap();
        client.with_planes([self.plane])
    }

    fn tcp_plane(&self, listens: bool) -> TcpPlane {
        let plane = TcpPlane::new().with_message_bytes_max(self.message_bytes_max);
        #[cfg(feature = "tls")]
        let plane = match &self.authority {
            None => plane,
            Some(authority) => {
                let tls = authority.trusted().with_server_name("fleet.test");
                plane.with_tls(authority.shown(tls, "member"))
            }
        };
        if !listens {
            return plane;
        }
        let host = if matches!(self.carrier, Carrier::Simulator(_)) { "node" } else { "127.0.0.1" };
        plane.with_listen(format!("{host}:0"))
    }

    async fn runtime(&self, name: &str, tcp: TcpPlane) -> DistributedRuntime {
        let builder = DistributedRuntime::builder().settings(self.settings).tcp(tcp);
        let builder = match &self.carrier {
            Carrier::Process(world, local) if self.plane == Plane::Local => {
                builder.memory(world).local(local)
            }
            Carrier::Process(world, _) | Carrier::Sockets(world) => builder.memory(world),
            Carrier::Pipes(world, pipes) => builder.memory(world).environment(pipes.clone()),
            Carrier::Simulator(world) => {
                let number = self.nodes.fetch_add(1, Ordering::Relaxed);
                let node = world.node(&format!("{name}-{number}"));
                let builder = builder.discovery(node.discovery()).messaging(node.messaging());
                builder.environment(node.environment())
            }
        };
        builder.build().await.unwrap()
    }
}

/// Waits until a condition holds; fails after a minute.
pub(crate) async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let limit = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < limit, "it never happens: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Counts those who are inside of something.
#[derive(Clone, Default)]
pub(crate) struct Inside(Arc<AtomicU64>);

impl Inside {
    /// In, until what is returned is dropped.
    pub(crate) fn enter(&self) -> impl Drop + Send + Sync + use<> {
        struct Left(Arc<AtomicU64>);
        impl Drop for Left {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::SeqCst);
            }
        }
        self.0.fetch_add(1, Ordering::SeqCst);
        Left(self.0.clone())
    }

    pub(crate) fn count(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}
