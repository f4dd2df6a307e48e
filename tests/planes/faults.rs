//! What the planes over TCP promise when something goes wrong: between nodes, with processes and machines, and with
//! the broker. In the simulator, each case on each of the planes and on several seeds, which decide how long
//! messages take and in which order tasks run.

mod broker;
mod cuts;
mod home;
mod load;
mod processes;
mod rolling;
mod scene;

use std::time::Duration;

use slipring::Plane;
use slipring_memory::Profile;
use slipring_sim::{Latency, Setup, simulate};

use self::scene::Scene;

const SECOND: Duration = Duration::from_secs(1);

/// On so many seeds each.
const SEEDS: u64 = 6;

/// A peer that is silent is noticed within this: it is pinged after 2 s, and has 2 s more; a message's way is added.
const NOTICED_WITHIN: Duration = Duration::from_millis(4_100);

/// A message takes no longer, in one direction.
const LATENCY_MAX: Duration = Duration::from_millis(5);

/// Runs a case on both planes.
fn on_both(case: impl AsyncFn(&Scene)) {
    on(Plane::Tcp, &case);
    on(Plane::NatsTcp, &case);
}

/// Runs a case on a plane.
fn on(plane: Plane, case: impl AsyncFn(&Scene)) {
    on_seeds(SEEDS, plane, case);
}

/// Runs a case on so many seeds. When it is over everybody stops, and nothing is left.
fn on_seeds(seeds: u64, plane: Plane, case: impl AsyncFn(&Scene)) {
    for seed in 0..seeds {
        let setup = Setup::from(Profile::etcd()).with_shuffling(true).with_self_check(false);
        let setup = setup.with_latency(Latency::between(Duration::ZERO, LATENCY_MAX));
        let report = simulate(seed, setup, async |world| {
            let scene = Scene::new(world, plane);
            case(&scene).await;
            scene.end().await;
        });
        assert_eq!(report.stray_tasks, 0, "{plane:?}, seed {seed}");
    }
}
