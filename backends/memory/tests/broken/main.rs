//! The kit finds what it is for: each of these backends is broken in one way, and a case notices, for that
//! reason; the same case passes where nothing is broken.

#![expect(clippy::unwrap_used, reason = "this is test code, its wrappers too")]

use std::sync::Arc;

use slipring_conformance::{Action, CASES, Case, Fixture, Need, Outcome, Suite};
use slipring_core::{Discovery, Environment, Messaging, Result, async_trait};
use slipring_memory::Profile;

/// Makes the list of the faults along with their names.
macro_rules! faults {
    ($(#[$doc:meta])* $name:ident { $($fault:ident),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum $name {
            $($fault),+
        }

        impl $name {
            pub(crate) const ALL: &[Self] = &[$(Self::$fault),+];
        }
    };
}

mod broker;
mod broker_faults;
mod store;
mod store_faults;
#[path = "../world/mod.rs"]
mod world;

use broker::{BrokenBroker, BrokerFault};
use store::{BrokenStore, StoreFault};
use world::WorldFixture;

#[derive(Debug, Clone, Copy)]
enum Fault {
    Store(StoreFault),
    Broker(BrokerFault),
}

/// A world with something broken between it and its users.
#[derive(Debug)]
struct BrokenWorld {
    world: Arc<WorldFixture>,
    fault: Fault,
    /// The one handle of those that should have one each.
    shared: Option<Arc<dyn Messaging>>,
}

#[async_trait]
impl Fixture for BrokenWorld {
    fn environment(&self) -> Arc<dyn Environment> {
        self.world.environment()
    }

    async fn discovery(&self) -> Result<Option<Arc<dyn Discovery>>> {
        let inner = self.world.discovery().await?;
        let Fault::Store(fault) = self.fault else { return Ok(inner) };
        Ok(inner.map(|inner| Arc::new(BrokenStore::new(inner, fault)) as Arc<dyn Discovery>))
    }

    async fn messaging(&self) -> Result<Option<Arc<dyn Messaging>>> {
        let inner = match &self.shared {
            Some(shared) => Some(shared.clone()),
            None => self.world.messaging().await?,
        };
        let Fault::Broker(fault) = self.fault else { return Ok(inner) };
        Ok(inner.map(|inner| Arc::new(BrokenBroker::new(inner, fault)) as Arc<dyn Messaging>))
    }

    fn can(&self, action: Action) -> bool {
        self.world.can(action)
    }

    async fn act(&self, action: Action) -> Result<()> {
        self.world.act(action).await
    }
}

impl BrokenWorld {
    async fn new(fault: Fault) -> Self {
        let world = WorldFixture::of(Profile::exact());
        let shared = match fault {
            Fault::Broker(BrokerFault::CloseClosesAll) => world.messaging().await.unwrap(),
            _ => None,
        };
        Self { world, fault, shared }
    }
}

/// Checks that the case passes on a sound world, and fails on the broken one with this in its reason.
async fn caught(fault: Fault, name: &str, expected: &str) {
    let suite = Suite::new().only(|case| case.name == name);
    let sound = WorldFixture::of(Profile::exact());
    assert_eq!(suite.clone().run(sound).await.passed(), [name], "on a sound world");
    let report = suite.run(Arc::new(BrokenWorld::new(fault).await)).await;
    let Outcome::Failed { reason } = &report.cases[0].outcome else { panic!("not caught: {report}") };
    assert!(reason.contains(expected), "caught for another reason than {expected:?}: {report}");
}

async fn store(fault: StoreFault, name: &str, expected: &str) {
    caught(Fault::Store(fault), name, expected).await;
}

async fn broker(fault: BrokerFault, name: &str, expected: &str) {
    caught(Fault::Broker(fault), name, expected).await;
}

/// A case that panics is a failure with the panic's message, and the others are run.
#[tokio::test(start_paused = true)]
async fn a_panic_is_a_failure() {
    let names = ["snapshot_is_in_key_order", "messages_arrive_whole"];
    let fault = Fault::Store(StoreFault::Panics);
    let world = BrokenWorld { world: WorldFixture::of(Profile::exact()), fault, shared: None };
    let report = Suite::new().only(|case| names.contains(&case.name)).run(Arc::new(world)).await;
    let expected = Outcome::Failed { reason: "a panic: a store that panics".to_owned() };
    assert_eq!(report.cases[0].outcome, expected, "{report}");
    assert_eq!(report.passed(), [names[1]], "{report}");
}

/// A case that hangs is a failure that says how long it was given.
#[tokio::test(start_paused = true)]
async fn a_hang_is_a_failure() {
    store(StoreFault::Hangs, "snapshot_is_in_key_order", "not done after 120s").await;
}

/// A declaration that makes no sense is caught.
#[tokio::test(start_paused = true)]
async fn senseless_declaration() {
    store(StoreFault::DeclaresNothing, "store_declares_what_it_can", "atomic_keys_max is 0").await;
    broker(BrokerFault::DeclaresNothing, "broker_declares_what_it_can", "payloads of 0 bytes").await;
}

/// There is no case that cannot fail: each is failed by a backend that does something, and does it wrong. (Those
/// that take the server away have their own, behind a link of the simulator.)
#[tokio::test(start_paused = true)]
async fn each_case_catches_somebody() {
    let works = |fault: &&StoreFault| !matches!(fault, StoreFault::Panics | StoreFault::Hangs);
    let stores = StoreFault::ALL.iter().filter(works).map(|fault| Fault::Store(*fault)).collect();
    let brokers = BrokerFault::ALL.iter().map(|fault| Fault::Broker(*fault)).collect();
    for (half, faults) in [(Need::Discovery, stores), (Need::Messaging, brokers)] {
        let faults: Vec<_> = faults;
        for case in CASES.iter().filter(|case| case.needs.contains(&half)).filter(is_played_here) {
            let mut caught = false;
            for fault in &faults {
                let suite = Suite::new().only(|other| other.name == case.name);
                caught = !suite.run(Arc::new(BrokenWorld::new(*fault).await)).await.failed().is_empty();
                if caught {
                    break;
                }
            }
            assert!(caught, "failed by nobody: {}", case.name);
        }
    }
}

fn is_played_here(case: &&Case) -> bool {
    case.actions().all(|action| action == Action::Compact)
}
