//! The same worlds on [turmoil](https://docs.rs/turmoil): each node a host with a runtime of its own, and a real
//! protocol between them over turmoil's TCP.

pub(crate) mod net;

use crate::SimEnvironment;
use crate::network::Net;
use crate::trace::Log;

/// The environment of a program on a turmoil host of this name, for simulations that are built by hand. To be
/// made, and used, in the software of that host; tasks run on its runtime, and `listen` and `connect` are
/// turmoil's.
///
/// Whatever host the address names that is listened at, all of this host is meant, and the others reach it
/// under `name`. What turmoil does not let through is tried again until the caller gives up, where turmoil
/// itself would refuse it at once.
pub fn environment(name: &str, seed: u64) -> SimEnvironment {
    SimEnvironment::in_world(name, seed, false, Log::on_turmoil(), Net::Turmoil)
}

#[cfg(test)]
mod tests;
