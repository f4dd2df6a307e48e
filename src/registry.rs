//! What a runtime has one of: a service per component, a watcher per endpoint, the records it wants to see in
//! the store.

mod instance;
pub mod mirror;
pub mod registrar;
mod registration;
mod service;
mod view;
mod watcher;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use slipring_core::mutation::Mutation;
use slipring_core::service::ServiceReport;
use slipring_core::{Error, Result};

pub(crate) use self::instance::Busy;
pub use self::instance::Instance;
pub(crate) use self::registration::Registration;
pub(crate) use self::service::SharedService;
pub(crate) use self::view::Members;
pub use self::view::{InstanceChange, Instances, WatchState};
pub(crate) use self::watcher::Watcher;

use self::service::ServiceSlot;
use crate::endpoint::ServingParts;
use crate::name::{ComponentPath, EndpointPath};
use crate::platform::Platform;

/// What the endpoints and clients of one runtime share. Everything is created once under concurrency, without
/// a lock across I/O, and freed with its last user.
pub struct Registry {
    platform: Arc<Platform>,
    shared: Arc<Mutex<Shared>>,
}

#[derive(Default)]
struct Shared {
    services: BTreeMap<ComponentPath, Weak<ServiceSlot>>,
    watchers: BTreeMap<EndpointPath, Weak<Watcher>>,
    /// The endpoints that are served, or about to be.
    claims: BTreeMap<EndpointPath, Weak<ServingParts>>,
}

impl Registry {
    pub(crate) fn new(platform: Arc<Platform>) -> Self {
        Self { platform, shared: Arc::default() }
    }

    /// What the endpoints served by this runtime did so far: a report for each component, with all its
    /// endpoints and their own statistics.
    pub fn stats(&self) -> Vec<ServiceReport> {
        let services: Vec<_> = lock(&self.shared).services.values().filter_map(Weak::upgrade).collect();
        services.iter().filter_map(|slot| slot.report()).collect()
    }

    /// How many services this runtime runs: one for each component that it serves.
    pub fn services(&self) -> usize {
        lock(&self.shared).services.values().filter(|slot| slot.strong_count() > 0).count()
    }

    /// How many watches this runtime holds open: one for each endpoint that it has clients of.
    pub fn watchers(&self) -> usize {
        lock(&self.shared).watchers.values().filter(|watcher| watcher.strong_count() > 0).count()
    }

    /// The shared watcher of an endpoint; started if there is none.
    pub(crate) fn watcher(&self, endpoint: &EndpointPath) -> Arc<Watcher> {
        let mut shared = lock(&self.shared);
        shared.watchers.retain(|_, watcher| watcher.strong_count() > 0);
        if let Some(watcher) = shared.watchers.get(endpoint).and_then(Weak::upgrade)
            && !watcher.is_dead()
            && !self.platform.mutated(Mutation::WatchPerClient)
        {
            return watcher;
        }
        let watcher = Arc::new(Watcher::start(self.platform.clone(), endpoint.clone()));
        shared.watchers.insert(endpoint.clone(), Arc::downgrade(&watcher));
        watcher
    }

    /// The service that all endpoints of a component share; started if there is none.
    pub(crate) async fn service(&self, component: &ComponentPath) -> Result<SharedService> {
        let slot = {
            let mut shared = lock(&self.shared);
            shared.services.retain(|_, slot| slot.strong_count() > 0);
            match shared.services.get(component).and_then(Weak::upgrade) {
                Some(slot) => slot,
                None => {
                    let slot = Arc::new(ServiceSlot::new(self.platform.clone(), component.clone()));
                    shared.services.insert(component.clone(), Arc::downgrade(&slot));
                    slot
                }
            }
        };
        let running = slot.running().await?;
        Ok(SharedService { running, _slot: slot })
    }

    /// Reserves an endpoint for being served.
    ///
    /// # Errors
    /// `AlreadyExists` if this runtime serves it already.
    pub(crate) fn claim(&self, endpoint: &EndpointPath) -> Result<Claim> {
        let mut shared = lock(&self.shared);
        if shared.claims.contains_key(endpoint) {
            return Err(Error::already_exists(format!("a serving of {endpoint} in this runtime")));
        }
        shared.claims.insert(endpoint.clone(), Weak::new());
        Ok(Claim {
            shared: self.shared.clone(),
            endpoint: endpoint.clone(),
            released: AtomicBool::new(false),
        })
    }

    /// Notes who serves an endpoint that was claimed.
    pub(crate) fn serving(&self, parts: &Arc<ServingParts>) {
        if let Some(claim) = lock(&self.shared).claims.get_mut(parts.endpoint()) {
            *claim = Arc::downgrade(parts);
        }
    }

    /// All that is served now.
    pub(crate) fn servings(&self) -> Vec<Arc<ServingParts>> {
        lock(&self.shared).claims.values().filter_map(Weak::upgrade).collect()
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry")
            .field("services", &self.services())
            .field("watchers", &self.watchers())
            .finish_non_exhaustive()
    }
}

/// An endpoint's place among those that a runtime serves.
pub(crate) struct Claim {
    shared: Arc<Mutex<Shared>>,
    endpoint: EndpointPath,
    released: AtomicBool,
}

impl Claim {
    /// Frees the place. Again is no-op, whoever has taken the place since.
    pub(crate) fn release(&self) {
        if !self.released.swap(true, Ordering::AcqRel) {
            lock(&self.shared).claims.remove(&self.endpoint);
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.release();
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    // Maps of weak handles: a panic elsewhere leaves them whole.
    shared.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
