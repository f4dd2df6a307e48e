use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use slipring_core::service::ServiceReport;
use slipring_core::{
    Address, Discovery, DiscoveryCapabilities, Environment, Error, Messaging, MessagingCapabilities,
    MessagingExt, Result, Subject, SystemEnvironment,
};
use tokio::sync::OnceCell;

use crate::alarm::Alarms;
use crate::client::SharedBudget;
use crate::component::{Component, Endpoint, Namespace};
use crate::config::{Backends, Config, lease_ttl};
use crate::event::Publishers;
use crate::lifecycle::{LeaseHolder, LeaseState, Outcome, Phases, StopReport};
use crate::name::{Deployment, Reference};
use crate::observed::{Observed, Observer};
use crate::plane::caller::Caller;
use crate::plane::links::Links;
use crate::plane::local::LocalPlane;
use crate::plane::report::PlanesReport;
use crate::plane::traffic::Traffic;
use crate::plane::{Desk, Homes, TcpPlane};
use crate::platform::{Platform, within};
use crate::registry::{Registration, Registry};
use crate::settings::Settings;

/// One process's part in the distributed system: a lease, connections to the backends, and everything that is
/// served and called over them.
///
/// Cheap to clone; clones are the same runtime. Any number of runtimes live in one process and disturb each
/// other in nothing. Dropping the last clone (with all endpoints, clients and servings made from it) ends its
/// tasks and lets its lease run out; [`stop`](Self::stop) is the orderly way.
#[derive(Clone)]
pub struct DistributedRuntime {
    inner: Arc<Inner>,
}

struct Inner {
    platform: Arc<Platform>,
    lease: Arc<LeaseHolder>,
    registration: Arc<Registration>,
    registry: Registry,
    caller: Caller,
    budget: SharedBudget,
    publishers: Publishers,
    stopping: Observed<bool>,
    /// Every request has been drained: nothing more is sent.
    drained: AtomicBool,
    stopped: OnceCell<StopReport>,
}

impl DistributedRuntime {
    /// A runtime on an in-memory world of its own: no server, nothing shared. Runtimes that are to meet share
    /// a [`MemoryWorld`](crate::MemoryWorld) through [`builder`](Self::builder).
    ///
    /// # Errors
    /// None in practice; the type is that of every way to make a runtime.
    #[cfg(feature = "memory")]
    pub async fn memory() -> Result<Self> {
        Self::builder().memory(&slipring_memory::MemoryWorld::new()).build().await
    }

    /// A runtime as the environment variables say: `SLIPRING_DISCOVERY` and `SLIPRING_MESSAGING` (both
    /// `memory:` by default), `SLIPRING_DEPLOYMENT` (empty by default).
    ///
    /// # Errors
    /// Those of [`Config::from_env`] and of [`from_config`](Self::from_config).
    pub async fn from_env() -> Result<Self> {
        Self::from_config(Config::from_env()?).await
    }

    /// A runtime on the backends that a configuration names.
    ///
    /// # Errors
    /// `Invalid` naming what is wrong, `Unsupported` for a backend that this build does not have, and those of
    /// [`RuntimeBuilder::build`].
    pub async fn from_config(config: Config) -> Result<Self> {
        Self::builder().config(config).build().await
    }

    /// A runtime to be put together.
    pub fn builder() -> RuntimeBuilder {
        RuntimeBuilder::default()
    }

    /// A namespace.
    ///
    /// # Errors
    /// [`Invalid`](Error::Invalid) with the position of what is wrong.
    pub fn namespace(&self, name: &str) -> Result<Namespace> {
        Ok(Namespace::new(self.clone(), self.platform().deployment.namespace(name.parse()?)))
    }

    /// The endpoint of a reference, such as `dynamo/Processor/chat/completions` or
    /// `dynamo.Processor.chat/completions`.
    ///
    /// # Errors
    /// [`Invalid`](Error::Invalid) with the position of what is wrong.
    pub fn endpoint(&self, reference: &str) -> Result<Endpoint> {
        let reference: Reference = reference.parse()?;
        Ok(Endpoint::new(self.clone(), reference.path(&self.platform().deployment)?))
    }

    /// The id under which this runtime's endpoints are registered: that of its first lease. It never changes.
    pub fn instance_id(&self) -> u64 {
        self.platform().instance
    }

    /// What the runtime knows of its lease, to look at and to wait for its loss and return.
    pub fn lease(&self) -> Observer<LeaseState> {
        self.inner.lease.state()
    }

    /// What this runtime shares among its endpoints and clients.
    pub fn registry(&self) -> &Registry {
        &self.inner.registry
    }

    /// What the instances of a component did so far, in every process that answers within `window`.
    ///
    /// # Errors
    /// Those of the messaging backend.
    pub async fn inspect(&self, component: &Component, window: Duration) -> Result<Vec<ServiceReport>> {
        let platform = self.platform();
        let inbox = platform.deployment.inbox(platform.environment.random("inspect inbox"));
        let name = component.path().micro_name();
        let asking = platform.messaging.inspect(inbox, Some(&name), window);
        within(window + platform.settings.backend_timeout, "asking for statistics", asking).await
    }

    /// How many calls of this runtime are under way.
    pub fn calls_in_flight(&self) -> usize {
        self.platform().calls.load(Ordering::Relaxed)
    }

    /// What its connections to other processes, and its endpoints on each plane, do now and did so far.
    pub fn planes(&self) -> PlanesReport {
        let platform = self.platform();
        PlanesReport { endpoints: platform.traffic.report(), ..platform.links.report() }
    }

    /// Is it stopping, or stopped? To look at and to wait for.
    pub fn stopping(&self) -> Observer<bool> {
        self.inner.stopping.observe()
    }

    /// Stops everything in order: all endpoints at once ([`Serving::stop`](crate::Serving::stop)), then the
    /// lease is revoked, then the messaging handle is closed. Every phase is bounded by the [`Settings`] and
    /// reported. From the start nothing new is served; what is called goes on until the last request in flight
    /// is done, because its handler may have to call others. Again returns the same report; dropped half-way,
    /// the next call goes on.
    pub async fn stop(&self) -> StopReport {
        self.inner.stopped.get_or_init(|| self.stop_in_order()).await.clone()
    }

    async fn stop_in_order(&self) -> StopReport {
        self.inner.stopping.set(true);
        let platform = self.platform();
        let limit = platform.settings.close_timeout;
        let mut phases = Phases::default();
        let servings = self.inner.registry.servings();
        let reports = join_all(servings.iter().map(|serving| serving.stop())).await;
        for (serving, report) in servings.iter().zip(&reports) {
            phases.report.absorb(&serving.endpoint().to_string(), report);
        }
        self.inner.drained.store(true, Ordering::Release);
        self.inner.registration.end().await;
        phases
            .run("revoke", async {
                let released = self.inner.lease.release(&*platform.discovery);
                unconfirmed(tokio::time::timeout(limit, released).await, limit)
            })
            .await;
        phases
            .run("close", async {
                let busy = platform.links.close(limit).await;
                let closed = platform.messaging.close(limit);
                match unconfirmed(tokio::time::timeout(limit * 2, closed).await, limit) {
                    Outcome::Done if busy > 0 => {
                        Outcome::Unconfirmed(format!("{busy} connections had streams under way"))
                    }
                    outcome => outcome,
                }
            })
            .await;
        phases.report
    }

    pub(crate) fn platform(&self) -> &Arc<Platform> {
        &self.inner.platform
    }

    pub(crate) fn lease_holder(&self) -> &Arc<LeaseHolder> {
        &self.inner.lease
    }

    pub(crate) fn registration(&self) -> &Arc<Registration> {
        &self.inner.registration
    }

    pub(crate) fn caller(&self) -> &Caller {
        &self.inner.caller
    }

    pub(crate) fn budget(&self) -> &SharedBudget {
        &self.inner.budget
    }

    pub(crate) fn publishers(&self) -> &Publishers {
        &self.inner.publishers
    }

    /// Refuses to serve once a stop has begun.
    pub(crate) fn check_running(&self) -> Result<()> {
        self.refuse_if(self.inner.stopping.get())
    }

    /// Refuses to call once a stop has drained the requests in flight.
    pub(crate) fn check_open(&self) -> Result<()> {
        self.refuse_if(self.inner.drained.load(Ordering::Acquire))
    }

    fn refuse_if(&self, stopping: bool) -> Result<()> {
        if stopping {
            return Err(Error::draining(format!("runtime {:x}", self.instance_id())));
        }
        Ok(())
    }
}

impl fmt::Debug for DistributedRuntime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DistributedRuntime")
            .field("instance", &format_args!("{:x}", self.instance_id()))
            .field("lease", &self.inner.lease.state().get())
            .finish_non_exhaustive()
    }
}

fn unconfirmed(result: Result<Result<()>, tokio::time::error::Elapsed>, limit: Duration) -> Outcome {
    match result {
        Ok(Ok(())) => Outcome::Done,
        Ok(Err(error)) => Outcome::Unconfirmed(error.to_string()),
        Err(_) => Outcome::Unconfirmed(format!("no answer within {limit:?}")),
    }
}

/// What a runtime is put together from: two backends at least.
#[derive(Debug, Default)]
#[must_use = "nothing is built until build is called"]
pub struct RuntimeBuilder {
    discovery: Option<Arc<dyn Discovery>>,
    messaging: Option<Arc<dyn Messaging>>,
    environment: Option<Arc<dyn Environment>>,
    /// Where the backends are that were not handed in.
    addresses: Option<(Address, Address)>,
    deployment: Deployment,
    local: LocalPlane,
    tcp: TcpPlane,
    settings: Settings,
}

impl RuntimeBuilder {
    /// The deployment and settings of a configuration, and its backends unless others are handed in.
    pub fn config(mut self, config: Config) -> Self {
        let Config { discovery, messaging, tcp, deployment, settings } = config;
        self.addresses = Some((discovery, messaging));
        self.tcp(tcp).deployment(deployment).settings(settings)
    }

    /// The backend of keys, leases and watches.
    pub fn discovery(mut self, discovery: impl Discovery) -> Self {
        self.discovery = Some(Arc::new(discovery));
        self
    }

    /// The backend of messages. The runtime closes this handle when it stops: give each runtime its own.
    pub fn messaging(mut self, messaging: impl Messaging) -> Self {
        self.messaging = Some(Arc::new(messaging));
        self
    }

    /// Both backends in memory, from a world that other runtimes may share.
    #[cfg(feature = "memory")]
    pub fn memory(self, world: &slipring_memory::MemoryWorld) -> Self {
        self.discovery(world.discovery()).messaging(world.messaging())
    }

    /// Calls the endpoints of other runtimes in this process directly, if they were given the same plane.
    pub fn local(mut self, plane: &LocalPlane) -> Self {
        self.local = plane.clone();
        self
    }

    /// How the runtime takes part in the planes over TCP; by default it only dials.
    pub fn tcp(mut self, plane: TcpPlane) -> Self {
        self.tcp = plane;
        self
    }

    /// What stands for the machine; by default the real one ([`SystemEnvironment`]).
    pub fn environment(mut self, environment: impl Environment) -> Self {
        self.environment = Some(Arc::new(environment));
        self
    }

    /// Keeps this deployment's keys and subjects apart from others' on the same servers.
    pub fn deployment(mut self, deployment: Deployment) -> Self {
        self.deployment = deployment;
        self
    }

    /// The bounds and intervals.
    pub fn settings(mut self, settings: Settings) -> Self {
        self.settings = settings;
        self
    }

    /// Reaches the backends, checks that they can do what is needed, takes a lease and opens the inbox.
    /// Dropping the future leaves a lease at most, which runs out.
    ///
    /// # Errors
    /// `Invalid` without a backend or for a setting that cannot work; `Unsupported` for a backend that cannot
    /// do what is needed; those of the backends.
    pub async fn build(mut self) -> Result<DistributedRuntime> {
        let environment = self.environment.take().unwrap_or_else(|| Arc::new(SystemEnvironment::new()));
        self.open(&environment)?;
        let missing =
            |what| Error::invalid("runtime", "", format!("it needs a {what} backend: call .{what}(..)"));
        let discovery = self.discovery.ok_or_else(|| missing("discovery"))?;
        let messaging = self.messaging.ok_or_else(|| missing("messaging"))?;
        let settings = self.settings;
        settings.check()?;
        let (discovery_can, messaging_can) =
            (discovery.capabilities().await?, messaging.capabilities().await?);
        check_capabilities(&discovery_can, &messaging_can)?;
        // Credentials that do not reach the deployment's keys are refused now, not when something is served.
        let reading = discovery.read(self.deployment.store_key().into());
        within(settings.backend_timeout, "reading the deployment's keys", reading).await?;
        let lease = LeaseHolder::start(discovery.clone(), environment.clone(), settings).await?;
        let lease = Arc::new(lease);
        let homes = Arc::new(Homes::default());
        let desk = Desk::new(lease.instance(), self.local.clone(), homes.clone());
        let links = Links::start(
            self.tcp,
            environment.clone(),
            lease.instance(),
            lease.epoch().clone(),
            Arc::new(desk),
        );
        let links = links.await?;
        let platform = Arc::new(Platform {
            discovery,
            messaging,
            discovery_can,
            messaging_can,
            settings,
            deployment: self.deployment,
            observed: environment.is_observed(),
            alarms: Alarms::start(&*environment),
            calls: AtomicUsize::new(0),
            links,
            homes,
            epoch: lease.epoch().clone(),
            traffic: Traffic::default(),
            local: self.local,
            instance: lease.instance(),
            environment,
        });
        let inner = Inner {
            registration: Arc::new(Registration::start(platform.clone(), &lease)),
            registry: Registry::new(platform.clone()),
            caller: Caller::start(platform.clone()).await?,
            budget: SharedBudget::new(tokio::time::Instant::now()),
            publishers: Publishers::new(),
            stopping: Observed::new(false),
            drained: AtomicBool::new(false),
            stopped: OnceCell::new(),
            lease,
            platform,
        };
        Ok(DistributedRuntime { inner: Arc::new(inner) })
    }

    /// Opens the configured backends that were not handed in.
    fn open(&mut self, environment: &Arc<dyn Environment>) -> Result<()> {
        let Some((discovery, messaging)) = self.addresses.take() else { return Ok(()) };
        let backends = Backends::new(environment.clone());
        if self.discovery.is_none() {
            self.settings.lease_ttl = lease_ttl(&discovery)?.unwrap_or(self.settings.lease_ttl);
            self.discovery = Some(backends.discovery(&discovery)?);
        }
        if self.messaging.is_none() {
            self.messaging = Some(backends.messaging(&messaging, &self.deployment)?);
        }
        Ok(())
    }
}

/// What the component model cannot do without. Everything else has a fallback.
fn check_capabilities(_discovery: &DiscoveryCapabilities, messaging: &MessagingCapabilities) -> Result<()> {
    if !messaging.headers {
        let hint = "slipring's control travels in headers; use a broker that has them";
        return Err(Error::unsupported("messaging without headers", hint));
    }
    if messaging.subject_bytes_max < Subject::BYTES_MAX {
        let hint =
            format!("names are checked against {} bytes; use a broker that takes them", Subject::BYTES_MAX);
        return Err(Error::unsupported(format!("subjects of {} bytes", messaging.subject_bytes_max), hint));
    }
    Ok(())
}
