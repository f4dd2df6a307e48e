//! The generated sequences that compare the bus with real servers, here with the simulated server behind the real
//! adapter and the real client: compared answer by answer and message by message.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    dead_code,
    reason = "shared with tests that use all of it"
)]

#[path = "../../../backends/etcd/tests/differential/agreement.rs"]
mod agreement;
#[path = "../../../backends/nats/tests/differential/contest.rs"]
mod contest;
#[path = "nats/loopback.rs"]
mod loopback;
#[path = "../../../backends/etcd/tests/differential/search.rs"]
mod search;
#[path = "../../../backends/nats/tests/differential/side.rs"]
mod side;
#[path = "../../../backends/nats/tests/differential/step.rs"]
mod step;

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use slipring_core::{Messaging, SystemEnvironment};
use slipring_memory::{MemoryWorld, Profile};
use slipring_nats::{Config, NatsMessaging};
use slipring_sim_nats::{Options, Version};
use tokio::runtime::Builder;

use crate::agreement::{Counts, add, assert_compared};
use crate::contest::{Contest, KINDS};
use crate::loopback::Loopback;
use crate::search::{cases, search};
use crate::side::Side;
use crate::step::{HANDLES, Step, steps};

/// Compares the bus with a simulated server of this version, and asks that every kind of answer was compared.
fn compare(version: Version) {
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let server = runtime.block_on(Loopback::start(Options::new(version)));
    let _inside = runtime.enter();
    let connect =
        || NatsMessaging::new(Config::new([server.endpoint()]), Arc::new(SystemEnvironment::new())).unwrap();
    let connections = [connect(), connect()];
    let declared = runtime.block_on(connections[0].capabilities()).unwrap();
    runtime.block_on(connections[1].capabilities()).unwrap();

    let sequences = Cell::new(0_u32);
    let all = RefCell::new(Counts::new());
    let outcome = search(&runtime, cases().div_ceil(4), steps(), async |steps: Vec<Step>| {
        sequences.set(sequences.get() + 1);
        let below = format!("s{}.", sequences.get());
        let world = MemoryWorld::with(Profile::nats(), Arc::new(SystemEnvironment::new()));
        let handle = |_| Arc::new(world.messaging()) as Arc<dyn Messaging>;
        let bus = Side::new((0..HANDLES).map(handle).collect(), below.clone());
        let handle = |at: usize| Arc::new(connections[at % 2].handle()) as Arc<dyn Messaging>;
        let served = Side::new((0..HANDLES).map(handle).collect(), below);
        let run = Contest::new([bus, served], declared.payload_bytes_max).run(&steps).await;
        let counts = run.map_err(|divergence| divergence.to_string())?;
        add(&mut all.borrow_mut(), counts);
        Ok(())
    });
    if let Err(found) = outcome {
        panic!("{version:?}: {:?}\n{}", found.steps, found.reason);
    }
    let all = all.into_inner();
    println!("{version:?}: {all:?}");
    assert_compared(&all, &KINDS);
    drop(connections);
    runtime.block_on(server.end());
}

/// A simulated nats-server 2.9 does what the bus does, and so what a real one does.
#[test]
fn the_simulated_server_2_9_is_like_the_bus() {
    compare(Version::V2_9);
}

/// A simulated nats-server 2.15 does what the bus does, and so what a real one does.
#[test]
fn the_simulated_server_2_15_is_like_the_bus() {
    compare(Version::V2_15);
}
