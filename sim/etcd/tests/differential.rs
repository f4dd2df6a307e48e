//! The generated sequences that compare the store with a real etcd, here with the simulated one behind the real
//! adapter: compared answer by answer and event by event. With what the comparison of the odd calls shows, the
//! three are alike.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    dead_code,
    reason = "shared with tests that use all of it"
)]

#[path = "../../../backends/etcd/tests/differential/agreement.rs"]
mod agreement;
#[path = "../../../backends/etcd/tests/differential/contest.rs"]
mod contest;
#[path = "../../../backends/etcd/tests/differential/memory.rs"]
mod memory;
#[path = "../../../backends/etcd/tests/differential/search.rs"]
mod search;
#[path = "../../../backends/etcd/tests/differential/side.rs"]
mod side;
#[path = "../../../backends/etcd/tests/differential/step.rs"]
mod step;

use std::cell::RefCell;
use std::sync::Arc;

use etcd_client::Client;
use slipring_core::{Effect, Error, Result, Revision, async_trait};
use slipring_etcd::{Config, EtcdDiscovery};
use slipring_sim::SimEnvironment;
use slipring_sim_etcd::Etcd;
use tokio::runtime::Builder;

use crate::agreement::{Counts, add, assert_compared};
use crate::contest::{Contest, KINDS};
use crate::search::{cases, search};
use crate::side::{Operator, Side};
use crate::step::{Step, steps};

/// Compacts as an operator does: by a call.
struct Compactor(Client);

#[async_trait]
impl Operator for Compactor {
    async fn compact(&self, revision: Revision) -> Result<()> {
        let compacted = self.0.kv_client().compact(revision.0.cast_signed(), None).await;
        let refused = |error: etcd_client::Error| match error.to_string() {
            text if text.contains("compacted") || text.contains("future") => Error::compacted(Revision(0)),
            text => Error::unavailable("etcd", text, Effect::Unknown),
        };
        compacted.map(drop).map_err(refused)
    }
}

/// The simulated etcd, through its services and the adapter, is the store.
#[test]
fn the_simulated_etcd_is_like_the_store() {
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let all = RefCell::new(Counts::new());
    let outcome = search(&runtime, cases() / 4, steps(), async |steps: Vec<Step>| {
        let world = memory::world();
        let simulated = Side::new(Arc::new(world.discovery()), Arc::new(world.clone())).await;
        let environment = Arc::new(SimEnvironment::new(7));
        let etcd = Etcd::new(&memory::profile(), environment.clone());
        let adapter = EtcdDiscovery::with_channel(Config::new(["etcd:2379"]), environment, etcd.channel());
        let client = Client::from_channel(etcd.channel(), None).await.unwrap();
        // Before the first revision nothing happened, so nothing of it can be lost: let something have happened.
        client.kv_client().put("begun", "", None).await.unwrap();
        client.kv_client().delete("begun", None).await.unwrap();
        let served = Side::new(Arc::new(adapter.unwrap()), Arc::new(Compactor(client))).await;
        let run = Contest::new([simulated, served]).await.run(&steps).await;
        let counts = run.map_err(|divergence| divergence.to_string())?;
        add(&mut all.borrow_mut(), counts);
        Ok(())
    });
    if let Err(found) = outcome {
        panic!("{:?}\n{}", found.steps, found.reason);
    }
    let all = all.into_inner();
    println!("{all:?}");
    assert_compared(&all, &KINDS);
}
