//! From addresses to backends: the one place that knows which there are.

use std::sync::Arc;
use std::time::Duration;

use slipring_core::{Address, Discovery, Environment, Error, Messaging, Result};

use crate::name::{Deployment, near_misses};

/// What there is to choose from for one purpose. Each scheme has the name of the feature that brings it.
struct Purpose {
    /// What its addresses are called in errors.
    address: &'static str,
    schemes: [&'static str; 2],
}

const DISCOVERY: Purpose = Purpose { address: "discovery address", schemes: ["memory", "etcd"] };
const MESSAGING: Purpose = Purpose { address: "messaging address", schemes: ["memory", "nats"] };

/// The time to live of the runtime's lease, if the discovery address says one.
pub(crate) fn lease_ttl(discovery: &Address) -> Result<Option<Duration>> {
    discovery.options().duration("ttl").map_err(|error| DISCOVERY.named(error))
}

/// Opens backends for one runtime. Those in memory share one world; nothing is dialled here.
pub(crate) struct Backends {
    #[cfg(feature = "memory")]
    world: slipring_memory::MemoryWorld,
    #[cfg_attr(not(any(feature = "etcd", feature = "nats")), expect(dead_code, reason = "for dialling"))]
    environment: Arc<dyn Environment>,
}

impl Backends {
    pub(crate) fn new(environment: Arc<dyn Environment>) -> Self {
        Self {
            #[cfg(feature = "memory")]
            world: slipring_memory::MemoryWorld::with(Default::default(), environment.clone()),
            environment,
        }
    }

    /// The discovery backend at an address.
    ///
    /// # Errors
    /// `Invalid` naming what is wrong with the address; `Unsupported` for what this build does not have.
    pub(crate) fn discovery(&self, address: &Address) -> Result<Arc<dyn Discovery>> {
        let opened: Result<Arc<dyn Discovery>> = match address.scheme() {
            #[cfg(feature = "memory")]
            "memory" => check_memory(address, &["ttl"]).map(|()| Arc::new(self.world.discovery()) as _),
            #[cfg(feature = "etcd")]
            "etcd" => slipring_etcd::Config::from_address(address)
                .and_then(|config| slipring_etcd::EtcdDiscovery::new(config, self.environment.clone()))
                .map(|etcd| Arc::new(etcd) as _),
            _ => Err(DISCOVERY.refuse(address)),
        };
        opened.map_err(|error| DISCOVERY.named(error))
    }

    /// The messaging backend at an address, with its inboxes in the deployment.
    ///
    /// # Errors
    /// `Invalid` naming what is wrong with the address; `Unsupported` for what this build does not have.
    pub(crate) fn messaging(
        &self,
        address: &Address,
        #[cfg_attr(not(feature = "nats"), expect(unused_variables, reason = "for the inboxes"))]
        deployment: &Deployment,
    ) -> Result<Arc<dyn Messaging>> {
        let opened: Result<Arc<dyn Messaging>> = match address.scheme() {
            #[cfg(feature = "memory")]
            "memory" => check_memory(address, &[]).map(|()| Arc::new(self.world.messaging()) as _),
            #[cfg(feature = "nats")]
            "nats" => slipring_nats::Config::from_address(address)
                .map(|config| match address.options().text("inbox_prefix") {
                    Some(_) => config,
                    None => config.with_inbox_prefix(deployment.inboxes().as_str()),
                })
                .and_then(|config| slipring_nats::NatsMessaging::new(config, self.environment.clone()))
                .map(|nats| Arc::new(nats) as _),
            _ => Err(MESSAGING.refuse(address)),
        };
        opened.map_err(|error| MESSAGING.named(error))
    }
}

/// Refuses whatever an address in memory may not have.
#[cfg(feature = "memory")]
fn check_memory(address: &Address, allowed: &[&str]) -> Result<()> {
    if !address.hosts().is_empty() || address.user().is_some() {
        let problem = "it stands for this process and has no host; allowed: memory:";
        return Err(Error::invalid("address", address.to_string(), problem));
    }
    let options = address.options();
    for name in allowed {
        options.text(name);
    }
    options.finish()
}

impl Purpose {
    /// The same error; if it is about an address, it says which.
    fn named(&self, mut error: Error) -> Error {
        if let Error::Invalid { what, .. } = &mut error
            && *what == "address"
        {
            *what = self.address;
        }
        error
    }

    /// Why there is no backend for this address, and what to do about it.
    fn refuse(&self, address: &Address) -> Error {
        let scheme = address.scheme();
        if self.schemes.contains(&scheme) {
            let hint = format!("this program was built without it; enable slipring's feature {scheme:?}");
            return Error::unsupported(format!("{} {address}", self.address), hint);
        }
        let allowed = self.schemes.map(|scheme| format!("{scheme}:")).join(", ");
        let near = near_misses(scheme, self.schemes);
        let problem = if near.is_empty() {
            format!("unknown scheme {scheme:?}; allowed: {allowed}")
        } else {
            format!("unknown scheme {scheme:?} (did you mean {}?); allowed: {allowed}", near.join(" or "))
        };
        Error::invalid(self.address, address.to_string(), problem)
    }
}
