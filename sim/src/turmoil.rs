//! The same worlds on [turmoil](https://docs.rs/turmoil) (tier T2): each node is a host with a runtime of its own, the
//! broker another one, and between them is a real protocol over turmoil's TCP.
//!
//! [`simulate`] takes what [`simulate`](crate::simulate()) takes, and gives the same report. What differs:
//!
//! - A connection can be lost, is noticed to be lost, and is made again. Which partitions it outlives, because what
//!   was sent is sent again, is up to the seed; after others calls fail, watches end, and subscriptions are
//!   restored and say so.
//! - A node begins when its host is up, and its connections take the time that messages take. A host that crashed
//!   is gone after three milliseconds, and with it what was started there with a bare `tokio::spawn`.
//! - Clocks are in steps of a millisecond, and each step costs about a microsecond a host: explore on one runtime,
//!   confirm here.
//! - The story is told on the broker's host. It may use the handles of the nodes; connections and streams of bytes
//!   belong to the tasks of their nodes.
//! - What becomes of a transaction at the store is told in the name of `broker`. A message counts as published once
//!   it is handed to the node's connection.
//! - A link that is switched by hand is switched in the network, as by a fault.

mod hosts;
pub(crate) mod net;
mod orders;
mod server;
mod wire;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use futures_util::future::LocalBoxFuture;
use turmoil::{Builder, Sim};

use self::hosts::BROKER;
pub(crate) use self::hosts::Hosts;
use self::orders::{Harbour, Orders, TICK};
use crate::environment::wall_time_at_start;
use crate::network::Net;
use crate::pulse::Pulse;
use crate::run::{Failure, compare, tell, unbroken};
use crate::trace::Log;
use crate::world::Ground;
use crate::{Report, Setup, SimEnvironment, World};

/// [`simulate`](crate::simulate()) on turmoil.
///
/// # Panics
/// As that.
pub fn simulate(seed: u64, setup: impl Into<Setup>, scenario: impl AsyncFn(World) + 'static) -> Report {
    let (setup, scenario) = (setup.into(), Rc::new(scenario));
    compare(seed, setup.self_check, || {
        let scenario = scenario.clone();
        let story = |world| Box::pin(async move { scenario(world).await }) as LocalBoxFuture<'static, ()>;
        unbroken(seed, attempt(seed, setup.clone(), Pulse::default(), story))
    })
}

/// One run, and how its scenario failed, if it did.
pub(crate) fn attempt(
    seed: u64,
    setup: Setup,
    pulse: Pulse,
    scenario: impl FnOnce(World) -> LocalBoxFuture<'static, ()> + 'static,
) -> (Report, Option<Failure>) {
    let orders = Orders::default();
    let hosts = Hosts::new(seed, orders.clone());
    let mut harbour = Harbour::new(orders, hosts.clone());
    let mut sim = sim(seed, &setup);
    let (ended, outcome) = (Rc::new(RefCell::new(None)), Rc::new(RefCell::new(None)));
    let ends = ended.clone();
    sim.client(BROKER, async move {
        let world = World::on(Ground::Turmoil(hosts), seed, setup, pulse);
        let failure = tell(&world, scenario(world.clone())).await;
        ends.replace(Some((world.finish().await, failure)));
        Ok(())
    });
    while outcome.borrow().is_none() {
        sim.step().expect("nothing but the tasks of nodes runs on the hosts, and their panics are told");
        harbour.settle(&mut sim);
        outcome.replace(ended.take());
    }
    outcome.take().expect("it was just looked at")
}

/// Longer than anybody waits.
const DURATION_MAX: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// Segments of a connection that are not read yet, and connections that are not accepted yet, before others wait
/// or turmoil gives up.
const SEGMENTS_MAX: usize = 4096;

/// An empty simulation, all of which the seed decides.
fn sim(seed: u64, setup: &Setup) -> Sim<'static> {
    let mut builder = Builder::new();
    builder
        .rng_seed(seed)
        .epoch(wall_time_at_start())
        .tick_duration(TICK)
        .simulation_duration(DURATION_MAX)
        .min_message_latency(Duration::ZERO)
        .max_message_latency(Duration::ZERO)
        .tcp_capacity(SEGMENTS_MAX)
        // A connection that is given up before it was accepted keeps its port.
        .ephemeral_ports(1024..=u16::MAX)
        .fail_rate(f64::from(setup.losses_ppm) / 1e6);
    builder.build()
}

/// The environment of a program on a turmoil host of this name, for simulations that are built by hand. To be
/// made, and used, in the software of that host; tasks run on its runtime, and `listen` and `connect` are
/// turmoil's.
///
/// Whatever host the address names that is listened at, all of this host is meant, and the others reach it
/// under `name`. What turmoil does not let through is tried again until the caller gives up, where turmoil
/// itself would refuse it at once.
pub fn environment(name: &str, seed: u64) -> SimEnvironment {
    SimEnvironment::in_world(name, seed, false, Log::on_turmoil(Pulse::default()), Net::Turmoil)
}

#[cfg(test)]
mod tests;
