use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use slipring_core::mutation::Mutation;
use slipring_core::service::{EndpointSpec, EndpointStats};
use slipring_core::{Effect, Error, Fact, LeaseId, Result, Task};
use tokio::sync::OnceCell;

use super::HealthCheck;
use super::serve::{Options, Serve};
use crate::lifecycle::{Lifecycle, Outcome, Phases, StopReport};
use crate::name::{EndpointPath, InstancePath};
use crate::observed::{Observed, Observer};
use crate::plane::Plane;
use crate::plane::server::Server;
use crate::plane::worker::Plan;
use crate::platform::Platform;
use crate::record::{Labels, Record};
use crate::registry::{Claim, Registration, SharedService};

/// A served endpoint. Dropping it withdraws the endpoint at once and cancels its requests; [`stop`](Self::stop)
/// is the orderly way.
#[must_use = "dropping it stops serving"]
pub struct Serving {
    parts: Arc<ServingParts>,
}

/// What a served endpoint consists of; the runtime holds it too, to stop it.
pub(crate) struct ServingParts {
    platform: Arc<Platform>,
    registration: Arc<Registration>,
    path: InstancePath,
    record: Record,
    stage: Mutex<Stage>,
    lifecycle: Observed<Lifecycle>,
    stats: Arc<EndpointStats>,
    server: tokio::sync::Mutex<Server>,
    stopped: OnceCell<StopReport>,
    /// Its place among the endpoints that the runtime serves.
    claim: Claim,
    _service: SharedService,
}

/// What the record has to say, and who may change it. Under one lock, so that nothing is ever said after the
/// withdrawal.
struct Stage {
    withdrawn: bool,
    health: Option<Task>,
}

impl Serving {
    pub(crate) async fn start(serve: Serve) -> Result<Self> {
        let Serve { endpoint, handler, options, lifecycle } = serve;
        let runtime = endpoint.runtime().clone();
        let path = endpoint.path().clone();
        runtime.check_running()?;
        let claim = runtime.registry().claim(&path)?;
        let platform = runtime.platform().clone();
        let instance = path.instance(platform.instance);
        let record = record(&instance, &options, &platform)?;
        let spec = endpoint_spec(&instance, &options);
        let plan = Plan {
            platform: platform.clone(),
            lease: runtime.lease_holder().clone(),
            endpoint: path.clone(),
            handler,
            codec: options.codec,
            limits: options.limits,
        };
        let limit = platform.settings.register_timeout;
        let subscribing = async {
            let service = runtime.registry().service(path.component()).await?;
            let server = Server::start(plan, &service.running, spec).await?;
            Ok((service, server))
        };
        // Given up, it leaves nothing behind: hence effect none.
        let late = || Error::deadline_exceeded(format!("subscribing {instance}"), limit, Effect::None);
        let (service, server) = tokio::time::timeout(limit, subscribing).await.map_err(|_| late())??;
        let parts = Arc::new(ServingParts {
            registration: runtime.registration().clone(),
            path: instance,
            record,
            stage: Mutex::new(Stage { withdrawn: false, health: None }),
            lifecycle,
            stats: server.worker().stats().clone(),
            server: tokio::sync::Mutex::new(server),
            stopped: OnceCell::new(),
            claim,
            _service: service,
            platform,
        });
        parts.tell(Lifecycle::Created);
        // From here on dropping `serving`, and so this future, withdraws everything.
        let serving = Self { parts: parts.clone() };
        runtime.registry().serving(&parts);
        // A stop that began before the line above did not see this endpoint.
        runtime.check_running()?;
        parts.register().await?;
        parts.begin(options.health);
        Ok(serving)
    }

    /// Where it is reached, with its instance id.
    pub fn path(&self) -> &InstancePath {
        &self.parts.path
    }

    /// Where it is in its life; to look at and to wait for every step.
    pub fn lifecycle(&self) -> Observer<Lifecycle> {
        self.parts.lifecycle.observe()
    }

    /// Requests that are being worked on, or wait for their turn; also while it drains.
    pub fn in_flight(&self) -> u64 {
        self.parts.stats.in_flight()
    }

    /// Stops it in order: deregister, let watchers see it, refuse new requests, wait for those in flight,
    /// unsubscribe. Each phase is bounded by the runtime's settings and reported. Nothing brings the endpoint
    /// back afterwards, in particular no healing. Again returns the same report.
    pub async fn stop(&self) -> StopReport {
        self.parts.stop().await
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.parts.withdraw();
    }
}

impl fmt::Debug for Serving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lifecycle = self.parts.lifecycle.get();
        f.debug_struct("Serving")
            .field("path", &self.parts.path.to_string())
            .field("lifecycle", &lifecycle)
            .finish()
    }
}

impl ServingParts {
    pub(crate) fn endpoint(&self) -> &EndpointPath {
        self.path.endpoint()
    }

    /// Puts the record into the desired set and waits until it is in the store.
    ///
    /// # Errors
    /// `DeadlineExceeded`; `Draining` if the runtime's stop withdrew the endpoint first.
    async fn register(&self) -> Result<()> {
        let limit = self.platform.settings.register_timeout;
        let key = self.path.key();
        {
            // A stop may have withdrawn it already: nothing is wanted after that.
            let stage = self.stage();
            if !stage.withdrawn {
                self.registration.set(key.clone(), self.record.clone());
            }
        }
        let mut lifecycle = self.lifecycle.observe();
        tokio::select! {
            biased;
            // The sender lives as long as `self`.
            _ = lifecycle.wait_for(|now| *now >= Lifecycle::Stopping) => {
                Err(Error::draining(self.path.to_string()))
            }
            () = self.registration.confirmed(&key) => Ok(()),
            () = tokio::time::sleep(limit) => {
                let what = format!("registering {} ({})", self.path, self.registration.trouble());
                Err(Error::deadline_exceeded(what, limit, Effect::Unknown))
            }
        }
    }

    /// Both ready: subscribed and registered.
    fn begin(self: &Arc<Self>, health: Option<HealthCheck>) {
        self.advance(Lifecycle::Registered);
        self.advance(Lifecycle::Running);
        let Some(check) = health else { return self.advance(Lifecycle::Healthy) };
        let mut stage = self.stage();
        if !stage.withdrawn {
            let watched = Arc::downgrade(self);
            let task = self.platform.spawn("health check", async move {
                loop {
                    let well = check.ask().await;
                    let Some(parts) = watched.upgrade() else { return };
                    parts.handle_health(well.map_err(|fault| fault.to_string()));
                    drop(parts);
                    tokio::time::sleep(check.interval).await;
                }
            });
            stage.health = Some(task);
        }
    }

    fn handle_health(&self, well: Result<(), String>) {
        let stage = self.stage();
        if stage.withdrawn {
            return;
        }
        let before = self.lifecycle.get();
        let after = if well.is_ok() { Lifecycle::Healthy } else { Lifecycle::Running };
        if let Err(cause) = &well {
            tracing::warn!(endpoint = %self.path, cause, "the health check failed");
        }
        if before != after {
            self.registration.set(self.path.key(), Record { ready: well.is_ok(), ..self.record.clone() });
            self.lifecycle.set(after);
            self.tell(after);
        }
    }

    /// Takes the record out of the desired set, before any I/O: from here on nothing registers it again.
    fn withdraw(&self) {
        let mut stage = self.stage();
        stage.withdrawn = true;
        stage.health = None;
        self.registration.remove(&self.path.key());
        drop(stage);
        self.advance(Lifecycle::Stopping);
    }

    pub(crate) async fn stop(&self) -> StopReport {
        self.stopped.get_or_init(|| self.stop_in_order()).await.clone()
    }

    async fn stop_in_order(&self) -> StopReport {
        let settings = &self.platform.settings;
        let mut phases = Phases::default();
        self.withdraw();
        phases
            .run("deregister", async {
                let key = self.path.key();
                let gone = self.registration.withdrawn(&key);
                match tokio::time::timeout(settings.deregister_timeout, gone).await {
                    Ok(()) => Outcome::Done,
                    Err(_) => Outcome::Unconfirmed(self.registration.trouble()),
                }
            })
            .await;
        phases
            .run("watcher grace", async {
                tokio::time::sleep(settings.watcher_grace).await;
                Outcome::Done
            })
            .await;
        let mut server = self.server.lock().await;
        server.worker().refuse();
        let skipped = self.platform.mutated(Mutation::DrainIsSkipped);
        let patience = if skipped { Duration::ZERO } else { settings.drain_timeout };
        phases
            .run("drain", async {
                match server.worker().drain(patience, settings.close_timeout).await {
                    0 => Outcome::Done,
                    left => Outcome::Abandoned(left),
                }
            })
            .await;
        phases
            .run("unsubscribe", async {
                match server.finish(settings.close_timeout).await {
                    Ok(()) => Outcome::Done,
                    Err(error) => Outcome::Unconfirmed(error.to_string()),
                }
            })
            .await;
        phases.report.requests = self.stats.requests();
        phases.report.errors = self.stats.errors();
        self.advance(Lifecycle::Deregistered);
        // Only now: until it is unsubscribed, a second serving would get the same requests.
        self.claim.release();
        phases.report
    }

    fn advance(&self, to: Lifecycle) {
        // Only ever forward here; health moves between Running and Healthy under the stage's lock.
        let mut forward = false;
        self.lifecycle.update(|now| {
            forward = *now < to;
            if forward {
                *now = to;
            }
            forward
        });
        if forward {
            self.tell(to);
        }
    }

    fn tell(&self, step: Lifecycle) {
        let (endpoint, instance) = (self.endpoint().to_string().into(), self.path.id());
        let fact = Fact::LifecycleChanged { endpoint, instance, step: step.name() };
        self.platform.environment.observe(&fact);
    }

    fn stage(&self) -> MutexGuard<'_, Stage> {
        // Two plain fields, set together.
        self.stage.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

fn record(path: &InstancePath, options: &Options, platform: &Platform) -> Result<Record> {
    // Lease and epoch are filled in with every write.
    let mut labels = Labels::new();
    for (name, value) in &options.labels {
        labels = labels.with(name, value)?;
    }
    let subject = path.subject();
    let mut record = Record::new(path.clone(), LeaseId(path.id()))
        .with_ready(options.health.is_none())
        .with_codec(options.codec)
        .with_transport(Record::BROKER, subject.as_str())
        .with_labels(labels);
    let offers = |plane| options.planes.contains(&plane);
    if offers(Plane::NatsTcp) && platform.links.calls_home() {
        record = record.with_transport(Record::NATS_TCP, subject.as_str());
    }
    if let Some(address) = platform.links.advertised().filter(|_| offers(Plane::Tcp)) {
        record = record.with_transport(Record::TCP, address);
    }
    Ok(record)
}

fn endpoint_spec(path: &InstancePath, options: &Options) -> EndpointSpec {
    let spec = EndpointSpec::new(path.endpoint().name().as_str(), path.subject())
        .with_metadata("codec", options.codec.name());
    match &options.stats {
        None => spec,
        Some(stats) => spec.with_stats(stats.clone()),
    }
}
