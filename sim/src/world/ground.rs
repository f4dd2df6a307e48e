use std::sync::Arc;

use slipring_core::{Discovery, Messaging};
use slipring_memory::MemoryWorld;
use tokio::runtime::Handle;

use super::Node;
use crate::environment::SimEnvironment;
use crate::link::Cable;
use crate::network::{Net, Network};
use crate::pulse::Pulse;
use crate::setup::Setup;
use crate::trace::Log;
#[cfg(feature = "turmoil")]
use crate::turmoil::Hosts;

/// What a world stands on: where its nodes run, and how they reach the broker.
pub(crate) enum Ground {
    /// One runtime for all, in whose memory the broker is.
    Memory,
    /// A host of turmoil for each, and a network between them.
    #[cfg(feature = "turmoil")]
    Turmoil(Arc<Hosts>),
}

/// How a node reaches the store and the bus, and what is in between.
pub(super) struct Way {
    pub(super) discovery: Arc<dyn Discovery>,
    pub(super) messaging: Arc<dyn Messaging>,
    pub(super) cable: Option<Arc<dyn Cable>>,
}

impl Ground {
    /// The log of a world that begins now, and the network of its nodes.
    pub(super) fn begin(&self, seed: u64, setup: &Setup, pulse: Pulse) -> (Log, Net) {
        match self {
            Self::Memory => (Log::of(pulse), Network::new(seed, setup.latency).into()),
            #[cfg(feature = "turmoil")]
            Self::Turmoil(_) => (Log::on_turmoil(pulse), Net::Turmoil),
        }
    }

    /// The environment of the broker, which is where the world is made.
    pub(super) fn place(&self, broker: SimEnvironment) -> Arc<SimEnvironment> {
        match self {
            Self::Memory => Arc::new(broker),
            #[cfg(feature = "turmoil")]
            Self::Turmoil(_) => {
                let broker = broker.on_a_host();
                broker.arrive();
                Arc::new(broker)
            }
        }
    }

    /// Starts what the nodes connect to.
    #[cfg_attr(not(feature = "turmoil"), expect(unused_variables, reason = "in memory nobody connects"))]
    pub(super) fn serve(
        &self,
        memory: &MemoryWorld,
        broker: &Arc<SimEnvironment>,
        told: (u64, &Log),
        setup: &Setup,
    ) {
        match self {
            Self::Memory => {}
            #[cfg(feature = "turmoil")]
            Self::Turmoil(hosts) => hosts.serve(memory, broker, told, setup),
        }
    }

    /// Gives a new life of a node its place, and its way to the broker.
    #[cfg_attr(not(feature = "turmoil"), expect(unused_variables, reason = "in memory all is in one place"))]
    pub(super) fn settle(
        &self,
        name: &str,
        environment: SimEnvironment,
        memory: &MemoryWorld,
    ) -> (Arc<SimEnvironment>, Way) {
        match self {
            Self::Memory => {
                let discovery = Arc::new(memory.discovery());
                let way = Way { discovery, messaging: Arc::new(memory.messaging()), cable: None };
                (Arc::new(environment), way)
            }
            #[cfg(feature = "turmoil")]
            Self::Turmoil(hosts) => {
                let environment = Arc::new(environment.on_a_host());
                let (discovery, messaging, cable) = hosts.settle(name, &environment, memory.profile());
                (environment, Way { discovery, messaging, cable: Some(cable) })
            }
        }
    }

    /// Ends what the nodes are connected to.
    pub(super) fn end(&self) {
        match self {
            Self::Memory => {}
            #[cfg(feature = "turmoil")]
            Self::Turmoil(hosts) => hosts.end(),
        }
    }

    /// How many tasks are alive that neither the broker nor a node owns.
    pub(super) async fn stray_tasks(&self, broker: &SimEnvironment, nodes: &[Node]) -> usize {
        match self {
            Self::Memory => {
                let owned: usize = nodes.iter().map(Node::tasks).sum();
                let alive = Handle::current().metrics().num_alive_tasks();
                alive.saturating_sub(owned + broker.tasks())
            }
            #[cfg(feature = "turmoil")]
            Self::Turmoil(hosts) => hosts.stray_tasks(broker).await,
        }
    }
}
