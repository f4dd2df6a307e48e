//! Records: put, withdrawn, and lost behind their owners' backs.

use std::time::Duration;

use slipring_sim::{Engine, Fault, Scenario, Shape, World};
use tokio::time::sleep;

use crate::fleet::{Fleet, TTL, setup, stored, terms};
use crate::leases::{NODES, fleet};

const LENGTH: Duration = Duration::from_secs(30);

pub(crate) fn all() -> Vec<Scenario> {
    let shape = || Shape::new(NODES, TTL, LENGTH);
    let scenario =
        |name, shows, shape| Scenario::new(name, shows, shape, fleet).with_setup(setup()).with_terms(terms());
    vec![
        scenario(
            "deregistration",
            "Who leaves is gone and stays gone, whatever is lost on the way; who joins again is found again",
            shape().with_operations(["leave", "join"], 12),
        )
        .with_engine(Engine::Turmoil),
        scenario(
            "emptied_store",
            "A store that lost everything is filled again by those who live",
            shape().with_faults_max(4).with_sure(|fault| matches!(fault, Fault::Empty)),
        ),
        scenario(
            "restored_store",
            "A store that is put back to an earlier time comes to show the present again",
            shape()
                .with_faults_max(4)
                .with_sure(|fault| matches!(fault, Fault::Save))
                .with_sure(|fault| matches!(fault, Fault::Restore))
                .with_operations(["leave", "join"], 4),
        ),
        scenario(
            "deleted_record",
            "A record that somebody deletes while its owner lives comes back",
            shape().with_faults_max(4).with_sure(|fault| matches!(fault, Fault::DeleteKey { .. })),
        ),
        Scenario::new(
            "thundering_herd",
            "Thirty workers whose broker restarts come back all, and not all at once",
            Shape::new([""; 0], TTL, LENGTH).with_faults_max(3).with_sure(|fault| {
                matches!(fault, Fault::RestartStore { .. } | Fault::RestartBus { .. } | Fault::Empty)
            }),
            herd,
        )
        .with_setup(setup())
        .with_terms(terms()),
    ]
}

/// How many workers there are in a herd.
const HERD: usize = 30;

async fn herd(world: World) {
    let fleet = Fleet::new(&world);
    (0..HERD).for_each(|number| fleet.worker(&world, &format!("worker{number}")));
    fleet.caller(&world, "caller");
    while stored(&world).len() < HERD {
        sleep(TTL / 6).await;
    }
    fleet.agrees(&world).await;
}
