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

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test that fails panics, and one that measures says what it measured"
)]

mod agreement;
mod contest;
mod expiry;
mod memory;
mod plain;
mod planted;
mod search;
mod side;
mod step;

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use etcd_client::{Client, CompactionOptions, WatchOptions};
use futures_util::future::join_all;
use slipring_core::{Discovery, Prefix, SystemEnvironment};
use slipring_etcd::{Config, EtcdDiscovery};
use slipring_memory::MemoryWorld;
use slipring_servers::{Etcd, Version};
use tokio::runtime::{Builder, Runtime};

use crate::agreement::{Counts, add, assert_compared};
use crate::contest::{Contest, KINDS};
use crate::expiry::{Fate, Plan, Seen, plans};
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
        assert!(found.reason.starts_with("differ: "), "another fault: {}", found.reason);
        assert!(found.steps.len() <= steps_max, "{flaw:?}: {:?}", found.steps);
    }
}

/// What stands between the comparison and etcd.
#[derive(Debug, Clone, Copy)]
enum Through {
    PlainClient,
    Adapter,
}

/// Compares the simulator with an etcd of this version, and asks that every kind of answer was compared.
fn compare(version: Version, through: Through) {
    let runtime = runtime();
    let etcd = runtime.block_on(Etcd::start(version));
    let client = runtime.block_on(Client::connect([etcd.endpoint()], None)).unwrap();
    // Before the first revision nothing happened, so nothing of it can be lost: let something have happened.
    runtime.block_on(client.kv_client().put("begun", "", None)).unwrap();
    let sequences = Cell::new(0_u32);
    let all = RefCell::new(Counts::new());
    let outcome = search(&runtime, sequences_of_each(), steps(), async |steps: Vec<Step>| {
        sequences.set(sequences.get() + 1);
        let prefix = format!("{}/", sequences.get());
        let store: Arc<dyn Discovery> = match through {
            Through::PlainClient => Arc::new(Plain::new(client.clone(), prefix)),
            Through::Adapter => Arc::new(adapter(&etcd, &prefix)),
        };
        let simulated = memory_side(|world| Arc::new(world.discovery())).await;
        let real = Side::new(store, Arc::new(client.clone())).await;
        let run = Contest::new([simulated, real]).await.run(&steps).await;
        let counts = run.map_err(|divergence| divergence.to_string())?;
        add(&mut all.borrow_mut(), counts);
        Ok(())
    });
    if let Err(found) = outcome {
        panic!("{version:?}, {through:?}: {:?}\n{}", found.steps, found.reason);
    }
    let all = all.into_inner();
    println!("{version:?}, {through:?}: {all:?}");
    assert_compared(&all, &KINDS);
}

/// A twentieth of the sequences is about natural expiry; the others are shared among four tests.
fn sequences_of_each() -> u32 {
    (cases() * 19 / 20).div_ceil(4)
}

fn adapter(etcd: &Etcd, prefix: &str) -> EtcdDiscovery {
    let config = Config::new([etcd.endpoint()]).with_prefix(Prefix::new(prefix).unwrap());
    EtcdDiscovery::new(config, Arc::new(SystemEnvironment::new())).unwrap()
}

/// The simulator answers as etcd 3.4 does to its plain client.
#[test]
fn the_simulator_is_like_etcd_3_4() {
    compare(Version::Debian, Through::PlainClient);
}

/// The simulator answers as etcd 3.5 does to its plain client.
#[test]
fn the_simulator_is_like_etcd_3_5() {
    compare(Version::Newer, Through::PlainClient);
}

/// The simulator answers as the adapter on etcd 3.4 does.
#[test]
fn the_simulator_is_like_the_adapter_on_etcd_3_4() {
    compare(Version::Debian, Through::Adapter);
}

/// The simulator answers as the adapter on etcd 3.5 does.
#[test]
fn the_simulator_is_like_the_adapter_on_etcd_3_5() {
    compare(Version::Newer, Through::Adapter);
}

/// How often a sequence is begun again because the machine was too slow for its leases.
const BEGUN_MAX: usize = 5;

/// Carries out one sequence of plans on both, at the same time; what was seen of etcd.
async fn expire(etcd: &Etcd, sequence: u32, plans: &[Plan]) -> Result<Seen, String> {
    for begun in 0..BEGUN_MAX {
        let (real, world) = (adapter(etcd, &format!("expiry{sequence}.{begun}/")), memory::world());
        let simulated = world.discovery();
        let (real, simulated) = tokio::join!(expiry::run(&real, plans), expiry::run(&simulated, plans));
        let (Some(real), Some(simulated)) = (real?, simulated?) else { continue };
        if real.outcome != simulated.outcome {
            return Err(format!("one:   {:?}\n  other: {:?}", simulated.outcome, real.outcome));
        }
        return Ok(real);
    }
    Err(format!("begun {BEGUN_MAX} times, this machine is too slow for leases of seconds"))
}

/// Compares natural ends, several sequences at a time: most of it is waiting.
fn compare_expiry(version: Version) {
    const AT_ONCE: usize = 10;
    let runtime = runtime();
    let etcd = runtime.block_on(Etcd::start(version));
    let (sequences, all) = (Cell::new(0_u32), RefCell::new(Vec::new()));
    let groups = (cases() / 20 / 2).div_ceil(u32::try_from(AT_ONCE).unwrap());
    let strategy = proptest::collection::vec(plans(), AT_ONCE);
    let outcome = search(&runtime, groups, strategy, async |group: Vec<Vec<Plan>>| {
        let runs = group.iter().map(|plans| {
            sequences.set(sequences.get() + 1);
            expire(&etcd, sequences.get(), plans)
        });
        for seen in join_all(runs).await {
            all.borrow_mut().push(seen?);
        }
        Ok(())
    });
    if let Err(found) = outcome {
        panic!("{version:?}: {:?}\n{}", found.steps, found.reason);
    }
    report(version, all.into_inner());
}

fn report(version: Version, seen: Vec<Seen>) {
    let mut late: Vec<_> = seen.iter().flat_map(|seen| &seen.delays).collect();
    late.sort();
    let (min, median, max) = (late.first(), late.get(late.len() / 2), late.last());
    let slack = seen.iter().map(|seen| seen.slack).max();
    println!(
        "{version:?}: {} sequences, {} leases ended late by min {min:?}, median {median:?}, max {max:?}; \
         the slack of the machine was up to {slack:?}",
        seen.len(),
        late.len()
    );
}

/// Leases of etcd 3.4 that nobody keeps end as those of the simulator do, never early.
#[test]
fn leases_end_alike_on_etcd_3_4() {
    compare_expiry(Version::Debian);
}

/// Leases of etcd 3.5 that nobody keeps end as those of the simulator do, never early.
#[test]
fn leases_end_alike_on_etcd_3_5() {
    compare_expiry(Version::Newer);
}

/// More leases than one look for ended ones removes end all, each as a whole.
#[test]
fn many_leases_end_at_once() {
    const LEASES: usize = 700;
    let runtime = runtime();
    let etcd = runtime.block_on(Etcd::start(Version::Newer));
    let plans = vec![Plan { seconds: 12, keys: 1, fate: Fate::Expires }; LEASES];
    let seen = runtime.block_on(expire(&etcd, 1, &plans)).unwrap();
    assert_eq!(seen.delays.len(), LEASES);
    report(Version::Newer, vec![seen]);
}

/// The simulator declares what the adapter declares, but for how long a watch is silent, which is configured.
#[test]
fn the_simulator_declares_what_the_adapter_does() {
    let runtime = runtime();
    let etcd = runtime.block_on(Etcd::start(Version::Newer));
    let declared = runtime.block_on(adapter(&etcd, "declared/").capabilities()).unwrap();
    let simulated = memory::profile().discovery;
    assert_eq!(declared.with_watch_silence_max(simulated.watch_silence_max), simulated);
}

/// Why the simulator refuses to start a watch at the compacted revision: etcd accepts it, and has lost the
/// deletion that happened there.
#[test]
fn etcd_loses_the_deletion_at_the_compacted_revision() {
    let runtime = runtime();
    for version in Version::ALL {
        let etcd = runtime.block_on(Etcd::start(version));
        runtime.block_on(async {
            let mut client = Client::connect([etcd.endpoint()], None).await.unwrap();
            client.put("gone", "", None).await.unwrap();
            let deleted = client.delete("gone", None).await.unwrap().header().unwrap().revision();
            // Until the history is really gone, the deletion may still be shown.
            client.compact(deleted, Some(CompactionOptions::new().with_physical())).await.unwrap();
            let options = WatchOptions::new().with_all_keys().with_start_revision(deleted);
            let mut events = client.watch("", Some(options)).await.unwrap();
            client.put("after", "", None).await.unwrap();
            let mut seen = Vec::new();
            while seen.last().is_none_or(|key| key != "after") {
                let message = events.message().await.unwrap().unwrap();
                assert!(!message.canceled(), "{version:?} refuses it");
                seen.extend(
                    message.events().iter().map(|event| event.kv().unwrap().key_str().unwrap().to_owned()),
                );
            }
            assert_eq!(seen, ["after"], "{version:?}");
        });
    }
}
