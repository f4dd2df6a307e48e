//! The simulated bus against real nats-server: the same generated sequences of operations on both, compared
//! answer by answer and message by message. Which member of a queue group gets a message is chance: there the
//! members are compared together.
//!
//! 2,000 sequences in all, or as many as is asked for:
//!
//! ```console
//! $ SLIPRING_DIFFERENTIAL_CASES=20000 cargo nextest run -p slipring-nats --test differential --no-capture
//! ```
//!
//! A sequence that shows a difference is made as small as it gets; the seed that is printed draws it again.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test that fails panics, and one that measures says what it measured"
)]

#[path = "../../../etcd/tests/differential/agreement.rs"]
mod agreement;
mod contest;
mod planted;
#[path = "../../../etcd/tests/differential/search.rs"]
mod search;
mod side;
mod step;

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use slipring_core::{Messaging, SystemEnvironment};
use slipring_memory::{MemoryWorld, Profile};
use slipring_nats::{Config, NatsMessaging};
use slipring_servers::{Nats, Version};
use tokio::runtime::Builder;

use crate::agreement::{Counts, add, assert_compared};
use crate::contest::{Contest, KINDS};
use crate::planted::{Flaw, Planted};
use crate::search::{cases, search};
use crate::side::Side;
use crate::step::{HANDLES, Step, steps};

fn world() -> MemoryWorld {
    MemoryWorld::with(Profile::nats(), Arc::new(SystemEnvironment::new()))
}

fn simulated(below: &str) -> Side {
    let world = world();
    let handle = |_| Arc::new(world.messaging()) as Arc<dyn Messaging>;
    Side::new((0..HANDLES).map(handle).collect(), below.to_owned())
}

/// A flawed bus is found to differ from one that is not, and the sequence that shows it is short.
#[test]
fn a_planted_difference_is_found_and_made_small() {
    // What a flaw hides is waited for; here the clock waits for nothing.
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    for (flaw, steps_max) in
        [(Flaw::OneValue, 2), (Flaw::SilentAboutNobody, 2), (Flaw::NoGroups, 3), (Flaw::LosesStars, 2)]
    {
        let found = search(&runtime, 2000, steps(), async |steps: Vec<Step>| {
            let world = world();
            let handle = |_| Arc::new(Planted { bus: world.messaging(), flaw }) as Arc<dyn Messaging>;
            let flawed = Side::new((0..HANDLES).map(handle).collect(), "s.".to_owned());
            let limit = world.profile().messaging.payload_bytes_max;
            let run = Contest::new([simulated("s."), flawed], limit).run(&steps).await;
            run.map(|_| ()).map_err(|divergence| divergence.to_string())
        });
        let found = found.expect_err("a flaw was not found");
        println!("{flaw:?}: {:?}\n{}", found.steps, found.reason);
        assert!(found.reason.starts_with("differ: "), "another fault: {}", found.reason);
        assert!(found.steps.len() <= steps_max, "{flaw:?}: {:?}", found.steps);
    }
}

/// Compares the simulator with a nats-server of this version, and asks that every kind of answer was compared.
fn compare(version: Version) {
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let nats = runtime.block_on(Nats::start(version));
    let _inside = runtime.enter();
    let connect =
        || NatsMessaging::new(Config::new([nats.endpoint()]), Arc::new(SystemEnvironment::new())).unwrap();
    let connections = [connect(), connect()];
    let declared = runtime.block_on(connections[0].capabilities()).unwrap();
    assert_eq!(declared, Profile::nats().messaging, "the simulator declares what the adapter does");
    runtime.block_on(connections[1].capabilities()).unwrap();

    let sequences = Cell::new(0_u32);
    let all = RefCell::new(Counts::new());
    let outcome = search(&runtime, cases().div_ceil(2), steps(), async |steps: Vec<Step>| {
        sequences.set(sequences.get() + 1);
        let below = format!("s{}.", sequences.get());
        let handle = |at: usize| Arc::new(connections[at % 2].handle()) as Arc<dyn Messaging>;
        let real = Side::new((0..HANDLES).map(handle).collect(), below.clone());
        let run = Contest::new([simulated(&below), real], declared.payload_bytes_max).run(&steps).await;
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
}

/// The simulator does what nats-server 2.9 does.
#[test]
fn the_simulator_is_like_nats_server_2_9() {
    compare(Version::Debian);
}

/// The simulator does what nats-server 2.15 does.
#[test]
fn the_simulator_is_like_nats_server_2_15() {
    compare(Version::Newer);
}
