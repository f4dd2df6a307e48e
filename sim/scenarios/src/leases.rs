//! Leases, and what becomes of those who hold them.

use std::time::Duration;

use slipring::LeasePolicy;
use slipring_core::Fact;
use slipring_sim::check::Violation;
use slipring_sim::history::Event;
use slipring_sim::{Engine, Fault, Report, Scenario, Shape, World};

use crate::fleet::{Fleet, TTL, setup, terms};

/// How long faults strike.
const LENGTH: Duration = Duration::from_secs(30);

pub(crate) const NODES: [&str; 5] = ["one", "two", "three", "four", "caller"];

pub(crate) fn all() -> Vec<Scenario> {
    let shape = || Shape::new(NODES, TTL, LENGTH);
    let scenario =
        |name, shows, shape| Scenario::new(name, shows, shape, fleet).with_setup(setup()).with_terms(terms());
    vec![
        scenario(
            "lease_expiry",
            "Whatever happens to workers and broker, leases end on time, and who lives is registered again",
            shape(),
        )
        .with_engine(Engine::Turmoil),
        Scenario::new(
            "slow_store",
            "A lease that comes after its own end is not held, and a late answer is not believed in",
            shape().with_faults(|fault| {
                use Fault::{Delay, Latency, PauseStore};
                matches!(fault, Delay { .. } | Latency { .. } | PauseStore { .. })
            }),
            patient_fleet,
        )
        .with_setup(setup())
        .with_terms(terms()),
        Scenario::new(
            "exclusive_owner",
            "A worker that may serve only under its lease serves nobody without it",
            shape(),
            fenced_fleet,
        )
        .with_setup(setup())
        .with_terms(terms())
        .with_judge(nobody_serves_unleased),
        scenario(
            "failover_storm",
            "Elections, restarts and pauses of the store, one after the other, cost nobody more than a while",
            shape().with_faults(|fault| {
                use Fault::{LeaderChange, PauseStore, RestartStore};
                matches!(fault, LeaderChange { .. } | RestartStore { .. } | PauseStore { .. })
            }),
        ),
        scenario(
            "suspended_machine",
            "A machine that was asleep beats before it believes in its lease, and is back soon",
            shape()
                .with_faults_max(4)
                .with_sure(|fault| matches!(fault, Fault::Pause { suspended: true, .. })),
        ),
    ]
}

/// Four workers and a caller.
pub(crate) async fn fleet(world: World) {
    let fleet = Fleet::new(&world);
    start(&fleet, &world);
    fleet.agrees(&world).await;
}

/// The same, with runtimes that wait longer for an answer of the store than a lease lives.
async fn patient_fleet(world: World) {
    let fleet = Fleet::with(&world, |settings| settings.backend_timeout = 3 * TTL);
    start(&fleet, &world);
    fleet.agrees(&world).await;
}

/// The same, with workers that own what they serve.
async fn fenced_fleet(world: World) {
    let fleet = Fleet::with(&world, |settings| settings.lease_policy = LeasePolicy::Fence);
    start(&fleet, &world);
    fleet.agrees(&world).await;
}

/// No request is accepted by an instance that does not hold its lease.
fn nobody_serves_unleased(report: &Report) -> Vec<Violation> {
    let unleased = report
        .history
        .moments()
        .iter()
        .filter(|moment| matches!(moment.event, Event::Fact(Fact::RequestAccepted { epoch: None, .. })));
    unleased
        .map(|moment| Violation::new("L10", moment.at, format!("{} serves without a lease", moment.node)))
        .collect()
}

pub(crate) fn start(fleet: &Fleet, world: &World) {
    let [workers @ .., caller] = NODES;
    workers.iter().for_each(|name| fleet.worker(world, name));
    fleet.caller(world, caller);
}
