//! The adapter on the simulated etcd keeps all contracts, as on a real one.

use std::sync::Arc;

use slipring_conformance::{Action, CASES, Need, Suite};
use slipring_sim::World;

use crate::scene::{InProcess, Networked, Scene, setup};

fn suite() -> Suite {
    Suite::new().only(|case| case.needs.contains(&Need::Discovery))
}

/// Without a network it passes; what is skipped is about servers that go away.
#[tokio::test(start_paused = true)]
async fn it_passes_without_a_network() {
    let report = suite().run(Arc::new(InProcess::new(7))).await;
    println!("{report}");
    let outage = |action: Action| action != Action::Compact;
    let outages = CASES.iter().filter(|case| case.needs.contains(&Need::Discovery));
    let outages: Vec<_> = outages.filter(|case| case.actions().any(outage)).map(|case| case.name).collect();
    report.assert_passed(&outages);
}

/// Over a network it passes whole, for each seed: also while the server dies, stands still, and is cut off.
#[tokio::test(start_paused = true)]
async fn it_passes_whole_over_a_network() {
    for seed in 0..2 {
        let report = suite()
            .run_each(async || Arc::new(Networked(Scene::new(World::with(seed, setup())).await)))
            .await;
        println!("seed {seed}: {report}");
        report.assert_passed(&[]);
    }
}
