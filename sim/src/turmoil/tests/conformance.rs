//! The kit judges the wire: a store and a bus in memory, reached over byte streams.

use std::sync::Arc;
use std::time::Duration;

use slipring_conformance::{Action, CASES, Fixture, Suite};
use slipring_core::{Discovery, Environment, Messaging, Result, async_trait};
use slipring_memory::{MemoryWorld, Profile};
use tokio::time::sleep;

use crate::network::Network;
use crate::trace::Log;
use crate::turmoil::server::Server;
use crate::turmoil::wire::{Broker, Client, WireDiscovery, WireMessaging};
use crate::{SimEnvironment, link};

const ADDRESS: &str = "broker:4222";

/// A server that serves both, and clients that connect in memory.
#[derive(Debug)]
struct Wired {
    memory: MemoryWorld,
    server: Server,
    client: Arc<dyn Environment>,
    _machine: Arc<SimEnvironment>,
}

impl Wired {
    fn new() -> Self {
        let (log, network) = (Log::new(), Network::default());
        let environment = move |name| SimEnvironment::in_world(name, 7, false, log.clone(), network.clone());
        let (client, machine) = (Arc::new(environment("client")), Arc::new(environment("machine")));
        let memory = MemoryWorld::with(Profile::etcd(), client.clone());
        let bus = memory.clone();
        let broker = Broker {
            discovery: Arc::new(memory.discovery()),
            messaging: Arc::new(move || Arc::new(bus.messaging())),
            told: Arc::new(|_, _| {}),
        };
        let server = Server::start(ADDRESS, broker, machine.clone(), move || environment("server"));
        Self { memory, server, client, _machine: machine }
    }

    fn client(&self) -> Client {
        Client::start(&self.client, ADDRESS)
    }
}

#[async_trait]
impl Fixture for Wired {
    fn environment(&self) -> Arc<dyn Environment> {
        self.client.clone()
    }

    async fn discovery(&self) -> Result<Option<Arc<dyn Discovery>>> {
        Ok(Some(Arc::new(WireDiscovery::new(self.client(), self.memory.profile().discovery))))
    }

    async fn messaging(&self) -> Result<Option<Arc<dyn Messaging>>> {
        Ok(Some(Arc::new(WireMessaging::new(self.client(), self.memory.profile().messaging))))
    }

    fn can(&self, _: Action) -> bool {
        true
    }

    async fn act(&self, action: Action) -> Result<()> {
        match action {
            Action::Compact => self.memory.compact(),
            Action::Stop => self.server.set(link::Server::Down),
            Action::Pause => self.server.set(link::Server::Stopped),
            Action::Start | Action::Resume => self.server.set(link::Server::Running),
            Action::Cut => {
                self.server.set(link::Server::Down);
                self.server.set(link::Server::Running);
            }
            other => unreachable!("the kit knows no {other:?}"),
        }
        if matches!(action, Action::Start | Action::Cut) {
            while self.client.connect(ADDRESS).await.is_err() {
                sleep(Duration::from_millis(1)).await;
            }
        }
        Ok(())
    }
}

/// The whole kit passes over the wire, with a server that stops, stands still and cuts its connections. Nothing
/// is skipped.
#[tokio::test(start_paused = true)]
async fn the_wire_keeps_all_contracts() {
    let report = Suite::new().run(Arc::new(Wired::new())).await;
    report.assert_passed(&[]);
    assert_eq!(report.passed().len(), CASES.len());
}
