use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use slipring_core::mutation::Mutation;
use slipring_core::{
    BoxFuture, Discovery, DiscoveryCapabilities, Effect, Environment, EnvironmentExt, Error, Fact, Message,
    Messaging, MessagingCapabilities, Result, Task,
};

use crate::Settings;
use crate::alarm::Alarms;
use crate::name::Deployment;
use crate::plane::Homes;
use crate::plane::links::Links;
use crate::plane::local::LocalPlane;
use crate::plane::traffic::Traffic;

/// What every part of a runtime stands on. Parts hold this, never the runtime, so that dropping the runtime
/// ends them all.
pub(crate) struct Platform {
    pub(crate) discovery: Arc<dyn Discovery>,
    pub(crate) messaging: Arc<dyn Messaging>,
    pub(crate) environment: Arc<dyn Environment>,
    pub(crate) discovery_can: DiscoveryCapabilities,
    pub(crate) messaging_can: MessagingCapabilities,
    pub(crate) settings: Settings,
    pub(crate) deployment: Deployment,
    /// Is anybody told what happens?
    pub(crate) observed: bool,
    /// When calls are given up.
    pub(crate) alarms: Alarms,
    /// How many calls of this runtime are under way.
    pub(crate) calls: AtomicUsize,
    /// The connections to other processes.
    pub(crate) links: Links,
    /// The calls that wait to be answered over one of them.
    pub(crate) homes: Arc<Homes>,
    /// How often the runtime has had a lease.
    pub(crate) epoch: Arc<AtomicU64>,
    /// What its endpoints bring to the planes.
    pub(crate) traffic: Traffic,
    /// The endpoints of this process.
    pub(crate) local: LocalPlane,
    /// The id of the runtime's first lease; never changes.
    pub(crate) instance: u64,
}

impl Platform {
    pub(crate) fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) -> Task {
        self.environment.start(name, task)
    }

    /// Publishes. Through the pointer's own implementation of the trait it would be a box more for each message.
    pub(crate) fn publish(&self, message: Message) -> BoxFuture<'_, Result<()>> {
        (*self.messaging).publish(message)
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// Tells a fact to whoever observes, if anybody does.
    pub(crate) fn tell(&self, fact: impl FnOnce() -> Fact) {
        if self.observed {
            self.environment.observe(&fact());
        }
    }

    /// Is this bug switched on?
    pub(crate) fn mutated(&self, mutation: Mutation) -> bool {
        self.settings.mutation.is(mutation)
    }

    /// One call to a backend, within the time that one may take.
    pub(crate) async fn within<T>(&self, what: &str, call: impl Future<Output = Result<T>>) -> Result<T> {
        within(self.settings.backend_timeout, what, call).await
    }
}

/// Bounds a call whose effect is unknown when time runs out.
pub(crate) async fn within<T>(
    limit: Duration,
    what: &str,
    call: impl Future<Output = Result<T>>,
) -> Result<T> {
    match tokio::time::timeout(limit, call).await {
        Ok(result) => result,
        Err(_) => Err(Error::deadline_exceeded(what, limit, Effect::Unknown)),
    }
}

impl fmt::Debug for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Platform")
            .field("instance", &format_args!("{:x}", self.instance))
            .finish_non_exhaustive()
    }
}
