//! The simulated store against real etcd: the same generated sequences of operations on both, compared answer
//! by answer and event by event.
//!
//! 2,000 sequences in all, or as many as is asked for:
//!
//! ```console
//! $ SLIPRING_DIFFERENTIAL_CASES=20000 cargo nextest run -p slipring-etcd --test differential --no-capture
//! ```
//!
//! A sequence that shows a difference is made as small as it gets; the seed that is printed draws it again.

#![allow(clippy::unwrap_used, reason = "a test that fails panics")]

mod contest;
mod memory;
mod plain;
mod planted;
mod search;
mod side;
mod step;

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use slipring_core::Discovery;
use slipring_memory::MemoryWorld;
use slipring_servers::{Etcd, Version};
use tokio::runtime::{Builder, Runtime};

use crate::contest::{Contest, Counts};
use crate::plain::Plain;
use crate::planted::{Flaw, Planted};
use crate::search::{cases, search};
use crate::side::Side;
use crate::step::{Step, steps};

fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

async fn memory_side(flawed: impl FnOnce(&MemoryWorld) -> Arc<dyn Discovery>) -> Side {
    let world = memory::world();
    Side::new(flawed(&world), Arc::new(world.clone())).await
}

/// A flawed store is found to differ from one that is not, and the sequence that shows it is short.
#[test]
fn a_planted_difference_is_found_and_made_small() {
    // What a flaw hides is waited for; here the clock waits for nothing.
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    for (flaw, steps_max) in
        [(Flaw::NeverDetaches, 4), (Flaw::EqualPutIsNone, 2), (Flaw::SortsEvents, 2), (Flaw::SkipsOne, 2)]
    {
        let found = search(&runtime, 2000, steps(), async |steps: Vec<Step>| {
            let one = memory_side(|world| Arc::new(world.discovery())).await;
            let other = memory_side(|world| Arc::new(Planted { store: world.discovery(), flaw })).await;
            let run = Contest::new([one, other]).await.run(&steps).await;
            run.map(|_| ()).map_err(|divergence| divergence.to_string())
        });
        let found = found.expect_err("a flaw was not found");
        println!("{flaw:?}: {:?}\n{}", found.steps, found.reason);
        assert!(found.reason.starts_with("asked: "), "another fault: {}", found.reason);
        assert!(found.steps.len() <= steps_max, "{flaw:?}: {:?}", found.steps);
    }
}

/// Compares the simulator with an etcd through its plain client.
fn plain(version: Version, cases: u32) {
    let runtime = runtime();
    let etcd = runtime.block_on(Etcd::start(version));
    let client = runtime.block_on(etcd_client::Client::connect([etcd.endpoint()], None)).unwrap();
    let sequences = Cell::new(0_u32);
    let all = RefCell::new(Counts::new());
    let outcome = search(&runtime, cases, steps(), async |steps: Vec<Step>| {
        sequences.set(sequences.get() + 1);
        let one = memory_side(|world| Arc::new(world.discovery())).await;
        let store = Plain::new(client.clone(), format!("{}/", sequences.get()));
        let other = Side::new(Arc::new(store), Arc::new(client.clone())).await;
        let counts = Contest::new([one, other]).await.run(&steps).await.map_err(|found| found.to_string())?;
        counts.into_iter().for_each(|(kind, count)| *all.borrow_mut().entry(kind).or_default() += count);
        Ok(())
    });
    println!("{all:?}");
    if let Err(found) = outcome {
        panic!("{version:?}: {:?}\n{}", found.steps, found.reason);
    }
}

/// x
#[test]
fn plain_debian() {
    plain(Version::Debian, cases() / 2);
}
