//! A seed decides a whole run: in this process and in another one, and what breaks that is found.
#![allow(clippy::unwrap_used, reason = "a test may")]

use std::process::{Command, Stdio};
use std::time::Duration;

use futures_util::StreamExt;
use slipring_core::{Discovery, Environment, Message, Messaging, Pattern, Result, Subject, Subscription};
use slipring_memory::Profile;
use slipring_sim::{Latency, Node, Schedule, Setup, Shape, World, simulate};
use tokio::time::{sleep, timeout};

const TTL: Duration = Duration::from_secs(6);
const NAMES: [&str; 3] = ["a", "b", "c"];
const SEEDS: u64 = 1_000;

/// Leases and messages under everything that a seed can bring.
fn hash(seed: u64) -> u64 {
    let latency = Latency::between(Duration::ZERO, Duration::from_millis(50));
    let setup = Setup::from(Profile::etcd()).with_latency(latency).with_messages(true);
    let setup = setup.with_lasting_requests(true).with_shuffling(true).with_self_check(false);
    let report = simulate(seed, setup, async |world: World| {
        for name in NAMES {
            world.spawn_node(name, async |node: Node| {
                loop {
                    let _lost = timeout(TTL, stay(&node)).await;
                    sleep(TTL / 6).await;
                }
            });
        }
        world.play(Schedule::generate(seed, &Shape::new(NAMES, TTL, 2 * TTL)));
        sleep(2 * TTL).await;
    });
    report.hash()
}

async fn stay(node: &Node) -> Result<()> {
    let (store, bus) = (node.discovery(), node.messaging());
    let lease = store.grant(TTL).await?;
    let mut heard = bus.subscribe(Subscription::new(Pattern::new("news").unwrap())).await?;
    loop {
        let jitter = Duration::from_millis(node.environment().random("jitter") % 200);
        bus.publish(Message::new(Subject::new("news").unwrap(), "alive")).await?;
        store.keep_alive(lease.id).await?;
        let _nobody = timeout(TTL / 6, heard.next()).await;
        sleep(TTL / 6 + jitter).await;
    }
}

/// A thousand seeds give the same thousand hashes in this process and in another one. The last line that it
/// prints is the same in every build too:
/// `cargo test -p slipring-sim --test determinism -- --nocapture`, and the same with `--release`.
#[test]
fn a_thousand_seeds_have_the_same_hashes_in_two_processes() {
    const OUTPUT: &str = "SLIPRING_SIM_HASHES_TO";
    let hashes = || (0..SEEDS).map(|seed| format!("{seed} {:016x}", hash(seed))).collect::<Vec<_>>();
    if let Some(path) = std::env::var_os(OUTPUT) {
        std::fs::write(path, hashes().join("\n")).unwrap();
        return;
    }
    let path = format!("{}/hashes-{}", env!("CARGO_TARGET_TMPDIR"), std::process::id());
    let test = "a_thousand_seeds_have_the_same_hashes_in_two_processes";
    let mut child = Command::new(std::env::current_exe().unwrap());
    let child = child.args([test, "--exact"]).env(OUTPUT, &path).stdout(Stdio::null()).spawn();
    let hashes = hashes();
    assert!(child.unwrap().wait().unwrap().success());
    let theirs = std::fs::read_to_string(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let differ = hashes.iter().zip(theirs.lines()).find(|(ours, theirs)| ours != theirs);
    assert_eq!(differ, None);
    assert_eq!(theirs.lines().count(), hashes.len());
    let distinct: std::collections::BTreeSet<&str> =
        hashes.iter().filter_map(|h| h.split(' ').nth(1)).collect();
    assert_eq!(distinct.len(), hashes.len(), "other seeds are other runs");
    let all = hashes.iter().fold(0, |all: u64, hash| {
        u64::from_str_radix(&hash[hash.len() - 16..], 16).unwrap() ^ all.rotate_left(1)
    });
    println!("the hash of {SEEDS} seeds: {all:016x}");
}

/// The order of a `HashMap` that finds its way into a run is found out, and the first event that it moved is
/// named.
#[test]
#[should_panic(expected = "seed 7 does not decide the run: it was run twice, and they differ at event 3")]
#[expect(clippy::disallowed_types, reason = "it is the mistake that is to be found")]
fn the_order_of_a_map_is_found_out() {
    simulate(7, Setup::new(), async |world: World| {
        world.note("the same");
        world.note("always");
        let map: std::collections::HashMap<u64, ()> = (0..64).map(|number| (number, ())).collect();
        world.note(format_args!("{:?}", map.keys().collect::<Vec<_>>()));
    });
}

/// An address in memory that finds its way into a run is found out.
#[test]
#[should_panic(expected = "differ at event 1")]
fn an_address_is_found_out() {
    simulate(7, Setup::new(), async |world: World| {
        let kept = Box::leak(Box::new(7_u64));
        world.note(format_args!("{kept:p}"));
    });
}

/// State that outlives a run and finds its way into the next one is found out; without the self-check the run
/// happens once.
#[test]
fn what_one_run_leaves_to_the_next_is_found_out() {
    let runs = std::cell::Cell::new(0);
    let scenario = async |world: World| {
        runs.set(runs.get() + 1);
        world.note(format_args!("run {}", runs.get()));
    };
    simulate(7, Setup::new().with_self_check(false), scenario);
    assert_eq!(runs.get(), 1);
    let checked = std::panic::AssertUnwindSafe(|| simulate(7, Setup::new(), scenario));
    assert!(std::panic::catch_unwind(checked).is_err());
    assert_eq!(runs.get(), 3);
}

/// A history that is taken piece by piece during the run has the hash of the whole, and is forgotten.
#[test]
fn a_taken_history_has_the_hash_of_the_whole() {
    let run = |pieces: bool| {
        simulate(7, Setup::new(), async |world: World| {
            for hour in 0..10 {
                world.note(hour);
                sleep(TTL).await;
                if pieces {
                    assert_eq!(world.take_history().moments().len(), 1);
                }
            }
        })
    };
    let (whole, pieces) = (run(false), run(true));
    // The last one counts what is left.
    assert_eq!((whole.history.moments().len(), pieces.history.moments().len()), (11, 1));
    assert_eq!(whole.hash(), pieces.hash());
}
