//! Calls, and the stops and deaths of those who are called.

use std::time::Duration;

use slipring_sim::{Engine, Fault, Scenario, Shape, World};
use tokio::time::sleep;

use crate::fleet::{Fleet, TTL, setup, stored, terms};

const LENGTH: Duration = Duration::from_secs(30);

const WORKERS: [&str; 3] = ["one", "two", "three"];
const CALLERS: [&str; 3] = ["left", "middle", "right"];

pub(crate) fn all() -> Vec<Scenario> {
    let nodes = || WORKERS.into_iter().chain(CALLERS);
    vec![
        Scenario::new(
            "rolling_restart",
            "Workers that are stopped and started one after the other under load fail no request",
            Shape::new(nodes(), TTL, LENGTH).with_faults(|fault| matches!(fault, Fault::WallClock { .. })),
            rolling_restart,
        )
        .with_setup(setup())
        .with_engine(Engine::Turmoil),
        Scenario::new(
            "u13088_no_call_hangs",
            "Whatever happens to those who are called, a call ends by its deadline",
            Shape::new(nodes(), TTL, LENGTH).with_operations(["leave", "join"], 8),
            churn,
        )
        .with_setup(setup())
        .with_terms(terms()),
    ]
}

fn start(world: &World) -> Fleet {
    let fleet = Fleet::new(world).with_pause_max(Duration::from_millis(200));
    WORKERS.iter().for_each(|name| fleet.worker(world, name));
    CALLERS.iter().for_each(|name| fleet.caller(world, name));
    fleet
}

async fn rolling_restart(world: World) {
    let fleet = start(&world);
    for round in 0..3 {
        for name in WORKERS {
            // One goes when all are there, or those who call would have to wait.
            while stored(&world).len() < WORKERS.len() {
                sleep(Duration::from_millis(100)).await;
            }
            sleep(Duration::from_millis(500)).await;
            let old = fleet.worker_runtime(name).expect("it is registered");
            let report = old.stop().await;
            assert!(report.is_clean() && report.abandoned == 0, "round {round}, {name}: {report}");
            world.node(name).crash();
            world.node(name);
        }
    }
    fleet.agrees(&world).await;
    let tally = fleet.tally();
    assert!(tally.failed.is_empty() && tally.answered > 100, "{tally:?}");
}

async fn churn(world: World) {
    let fleet = start(&world);
    fleet.agrees(&world).await;
}
