//! A long time.

use std::time::Duration;

use slipring_sim::check::Terms;
use slipring_sim::{Scenario, Shape, World};

use crate::fleet::{Fleet, setup};

/// The time to live of the leases: long, as a week is.
const TTL: Duration = Duration::from_secs(60);

const WEEK: Duration = Duration::from_secs(7 * 24 * 60 * 60);

pub(crate) fn all() -> Vec<Scenario> {
    let shape = Shape::new(["one", "two", "three", "caller"], TTL, WEEK).with_faults_max(200);
    let shape = shape.with_operations(["leave", "join", "look", "forget"], 200);
    let shows = "After a week of faults everybody is registered and seen, and nothing was left behind";
    let terms = Terms::new(setup().profile).with_registered_within(3 * TTL);
    vec![Scenario::new("long_soak", shows, shape, week).with_setup(setup()).with_terms(terms)]
}

async fn week(world: World) {
    let fleet = Fleet::with(&world, |settings| {
        settings.lease_ttl = TTL;
        settings.reconcile_interval = 60 * TTL;
    });
    let fleet = fleet.with_pause_max(30 * TTL);
    ["one", "two", "three"].iter().for_each(|name| fleet.worker(&world, name));
    fleet.caller(&world, "caller");
    tokio::time::sleep(WEEK).await;
    fleet.agrees(&world).await;
}
