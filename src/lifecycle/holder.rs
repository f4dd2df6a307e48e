use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use slipring_core::mutation::Mutation;
use slipring_core::{Discovery, Environment, Error, Fact, Lease, LeaseId, Result, Task};
use tokio::time::Instant;

use super::keeper::{Keeper, Step};
use crate::backoff::Backoff;
use crate::observed::{Observed, Observer};
use crate::platform::within;
use crate::settings::Settings;

/// What a runtime knows of its lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum LeaseState {
    /// It holds this lease.
    Held {
        /// The lease.
        lease: LeaseId,
        /// How often the runtime has had a lease, from 1.
        epoch: u64,
    },
    /// The lease of this epoch is lost; a new one is being asked for.
    Lost {
        /// The epoch that ended.
        epoch: u64,
    },
    /// The runtime was stopped and gave its lease back.
    Released,
}

/// Keeps the runtime's lease alive, and takes a new one when it is lost.
pub(crate) struct LeaseHolder {
    shared: Arc<Shared>,
    environment: Arc<dyn Environment>,
    task: Mutex<Option<Task>>,
}

struct Shared {
    keeper: Mutex<Keeper>,
    epoch: Arc<AtomicU64>,
    state: Observed<LeaseState>,
    instance: u64,
    settings: Settings,
}

impl LeaseHolder {
    /// Takes the first lease; the id of the runtime's instances is its id.
    pub(crate) async fn start(
        discovery: Arc<dyn Discovery>,
        environment: Arc<dyn Environment>,
        settings: Settings,
    ) -> Result<Self> {
        let (lease, keeper) = grant(&*discovery, &*environment, &settings).await?;
        environment.observe(&Fact::LeaseHeld { instance: lease.id.0, lease: lease.id, epoch: 1 });
        let state = Observed::new(LeaseState::Held { lease: lease.id, epoch: 1 });
        let keeper = Mutex::new(keeper);
        let epoch = Arc::new(AtomicU64::new(1));
        let shared = Arc::new(Shared { keeper, epoch, state, instance: lease.id.0, settings });
        let kept = shared.clone();
        let vital = environment.clone();
        let start = move || -> slipring_core::BoxFuture<'static, ()> {
            Box::pin(async move { kept.keep(&*discovery, &*vital).await })
        };
        let task = environment.spawn_vital("slipring heartbeat", Box::new(start));
        Ok(Self { shared, environment, task: Mutex::new(Some(task)) })
    }

    /// The id of the runtime's instances: that of the first lease.
    pub(crate) fn instance(&self) -> u64 {
        self.shared.instance
    }

    /// The newest lease, held or not.
    pub(crate) fn id(&self) -> LeaseId {
        self.shared.keeper().lease()
    }

    /// How often there has been a lease; grows with every new one.
    pub(crate) fn epoch(&self) -> &Arc<AtomicU64> {
        &self.shared.epoch
    }

    pub(crate) fn state(&self) -> Observer<LeaseState> {
        self.shared.state.observe()
    }

    /// The epoch of the lease, if it is surely valid now.
    pub(crate) fn tenure(&self, now: Instant, environment: &dyn Environment) -> Option<u64> {
        let LeaseState::Held { epoch, .. } = self.shared.state.get() else { return None };
        let mut keeper = self.shared.keeper();
        keeper.handle_wall(now, environment.wall_time());
        keeper.alive(now).then_some(epoch)
    }

    /// Ends the heartbeats and gives the lease back.
    ///
    /// # Errors
    /// Those of revoking; the lease ends by itself then.
    pub(crate) async fn release(&self, discovery: &dyn Discovery) -> Result<()> {
        if let Some(mut task) = self.take_task() {
            task.abort();
            self.tell_release();
            task.end().await;
        }
        self.shared.state.set(LeaseState::Released);
        // Whatever we believe of it: it may live in the store, also if an earlier release was given up.
        match discovery.revoke(self.id()).await {
            // Gone is gone.
            Err(Error::LeaseLost { .. }) => Ok(()),
            other => other,
        }
    }

    fn take_task(&self) -> Option<Task> {
        self.task.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take()
    }

    fn tell_release(&self) {
        self.environment.observe(&Fact::LeaseReleased { instance: self.instance(), lease: self.id() });
    }
}

impl Drop for LeaseHolder {
    fn drop(&mut self) {
        if self.take_task().is_some() {
            self.tell_release();
        }
    }
}

impl Shared {
    fn keeper(&self) -> MutexGuard<'_, Keeper> {
        // Plain state; every change of it is whole.
        self.keeper.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    async fn keep(&self, discovery: &dyn Discovery, environment: &dyn Environment) {
        let mut epoch = 1;
        loop {
            self.beat_until_lost(discovery, environment).await;
            let lost = self.keeper().lease();
            tracing::warn!(instance = format_args!("{:x}", self.instance), %lost, epoch, "the lease is lost");
            environment.observe(&Fact::LeaseLost { instance: self.instance, lease: lost });
            self.state.set(LeaseState::Lost { epoch });
            let lease = self.regain(discovery, environment).await;
            epoch += 1;
            tracing::info!(instance = format_args!("{:x}", self.instance), lease = %lease.id, epoch, "a new lease");
            environment.observe(&Fact::LeaseHeld { instance: self.instance, lease: lease.id, epoch });
            self.epoch.store(epoch, Ordering::Release);
            self.state.set(LeaseState::Held { lease: lease.id, epoch });
        }
    }

    async fn beat_until_lost(&self, discovery: &dyn Discovery, environment: &dyn Environment) {
        loop {
            let now = Instant::now();
            let step = {
                let mut keeper = self.keeper();
                keeper.handle_wall(now, environment.wall_time());
                keeper.poll(now)
            };
            match step {
                Step::Lost => return,
                Step::Wait(until) => tokio::time::sleep_until(until).await,
                Step::Beat { timeout } => {
                    let (beat, lease) = {
                        let mut keeper = self.keeper();
                        (keeper.handle_sent(now), keeper.lease())
                    };
                    let answer = within(timeout, "a heartbeat", discovery.keep_alive(lease)).await;
                    let now = Instant::now();
                    let mut keeper = self.keeper();
                    keeper.handle_wall(now, environment.wall_time());
                    match answer {
                        Ok(ttl) => keeper.handle_ack(now, beat, ttl),
                        Err(Error::LeaseLost { .. }) => keeper.handle_lost(),
                        Err(error) => {
                            tracing::debug!(%lease, %error, "a heartbeat failed");
                            keeper.handle_failure(now, beat);
                        }
                    }
                }
            }
        }
    }

    /// Asks for a new lease until there is one.
    async fn regain(&self, discovery: &dyn Discovery, environment: &dyn Environment) -> Lease {
        if self.settings.mutation.is(Mutation::LossIsFinal) {
            return std::future::pending().await;
        }
        let late = self.settings.mutation.is(Mutation::LateGrantIsHeld);
        let mut backoff = Backoff::new(environment.random("lease backoff"));
        loop {
            match grant(discovery, environment, &self.settings).await {
                Ok((lease, keeper)) if late || keeper.alive(Instant::now()) => {
                    *self.keeper() = keeper;
                    return lease;
                }
                // Its time counts from when it was asked for. Nobody was told of it, and it ends by itself.
                Ok((lease, _)) => {
                    tracing::debug!(lease = %lease.id, "the new lease came too late to be held")
                }
                Err(error) => tracing::debug!(%error, "no new lease yet"),
            }
            tokio::time::sleep(backoff.fail()).await;
        }
    }
}

async fn grant(
    discovery: &dyn Discovery,
    environment: &dyn Environment,
    settings: &Settings,
) -> Result<(Lease, Keeper)> {
    let (asked, wall) = (Instant::now(), environment.wall_time());
    let granting = discovery.grant(settings.lease_ttl);
    let lease = within(settings.backend_timeout, "granting a lease", granting).await?;
    Ok((lease, Keeper::new(lease.id, lease.ttl, asked, wall).with_mutation(settings.mutation)))
}
