//! The promise of a seed: the same run, byte for byte, in one process and in two.
#![allow(clippy::unwrap_used, reason = "a test may")]

use std::process::Command;
use std::time::Duration;

use futures_util::StreamExt;
use slipring_core::{
    Discovery, DiscoveryExt, Environment, Key, Message, Messaging, Pattern, Result, Subject, Subscription,
};
use slipring_memory::Profile;
use slipring_memory::store::Saved;
use slipring_sim::{Latency, Node, Schedule, Setup, Shape, Trace, World, run, run_with};
use tokio::time::{sleep, timeout};

const TTL: Duration = Duration::from_secs(6);

/// Registers a key under a lease and keeps it alive; each round at a slightly different time.
async fn keep_registered(node: Node) {
    let (store, environment) = (node.discovery(), node.environment());
    let lease = store.grant(TTL).await.unwrap();
    let key = Key::new(format!("service/{}", node.name())).unwrap();
    store.put(key, node.name().to_owned().into(), Some(lease.id)).await.unwrap();
    loop {
        let jitter = Duration::from_millis(environment.random("jitter") % 200);
        sleep(lease.ttl / 3 - jitter).await;
        match timeout(lease.ttl / 6, store.keep_alive(lease.id)).await {
            Ok(beat) => node.note(format_args!("beat: {:?}", beat.map_err(|error| error.code()))),
            Err(_) => node.note("no answer"),
        }
    }
}

/// Three nodes register themselves; one goes silent and loses its lease, one crashes and comes back.
async fn leases_expire(world: World) {
    for name in ["a", "b", "c"] {
        let node = world.node(name);
        node.environment().spawn("registration", Box::pin(keep_registered(node))).detach();
    }
    sleep(TTL).await;
    world.node("a").link().silence();
    world.node("b").crash();
    sleep(2 * TTL).await;
    world.node("a").link().open();
    let node = world.node("b");
    node.environment().spawn("registration", Box::pin(keep_registered(node))).detach();
    sleep(TTL).await;
}

fn trace(seed: u64) -> Trace {
    run_with(seed, Profile::etcd(), leases_expire)
}

/// Time in seconds at the head of a line of a trace.
fn at(line: &str) -> f64 {
    line.split_whitespace().next().unwrap().parse().unwrap()
}

/// Promise 6: one process runs a seed twice and gets the same bytes; another seed is another run.
#[test]
fn the_same_seed_gives_the_same_bytes() {
    for seed in 0..5 {
        assert_eq!(trace(seed), trace(seed));
        assert_eq!(stormy(seed), stormy(seed));
    }
    assert_ne!(trace(1), trace(2));
}

/// Promise 6: two more processes get the same bytes as this one.
#[test]
fn the_same_seed_gives_the_same_bytes_in_another_process() {
    const SEED: u64 = 7;
    const OUTPUT: &str = "SLIPRING_SIM_TRACE_TO";
    if let Some(path) = std::env::var_os(OUTPUT) {
        std::fs::write(path, format!("{}{}", trace(SEED), stormy(SEED))).unwrap();
        return;
    }
    for child in 1..=2 {
        let path = format!("{}/trace-{}-{child}", env!("CARGO_TARGET_TMPDIR"), std::process::id());
        let test = "the_same_seed_gives_the_same_bytes_in_another_process";
        let run = Command::new(std::env::current_exe().unwrap())
            .args([test, "--exact"])
            .env(OUTPUT, &path)
            .output();
        assert!(run.unwrap().status.success());
        let theirs = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(theirs, format!("{}{}", trace(SEED), stormy(SEED)));
    }
}

/// Faults out of a seed, over links with latency, in an order of tasks that the seed decides.
fn stormy(seed: u64) -> Trace {
    let latency = Latency::between(Duration::ZERO, Duration::from_millis(50));
    let setup = Setup::from(Profile::etcd()).with_latency(latency).with_messages(true);
    run_with(seed, setup.with_lasting_requests(true).with_shuffling(true), async |world: World| {
        for name in ["a", "b", "c"] {
            world.spawn_node(name, async |node: Node| {
                loop {
                    let _lost = timeout(TTL, try_keep_registered(&node)).await;
                    sleep(TTL / 6).await;
                }
            });
        }
        world.play(Schedule::generate(seed, &Shape::new(["a", "b", "c"], TTL, 10 * TTL)));
        sleep(10 * TTL).await;
    })
}

async fn try_keep_registered(node: &Node) -> Result<()> {
    let (store, bus) = (node.discovery(), node.messaging());
    let lease = store.grant(TTL).await?;
    let mut heard = bus.subscribe(Subscription::new(Pattern::new("news").unwrap())).await?;
    loop {
        bus.publish(Message::new(Subject::new("news").unwrap(), "alive")).await?;
        store.keep_alive(lease.id).await?;
        let _nobody = timeout(TTL / 6, heard.next()).await;
        sleep(TTL / 6).await;
    }
}

/// The trace shows the scenario: who fell silent and who crashed lose their keys once their leases have run
/// out and no earlier (L1), within etcd's half second (L2); the third keeps its own throughout.
#[test]
fn l1_l2_the_trace_shows_leases_running_out() {
    let trace = trace(7);
    assert_eq!(
        trace.matching("commit   revision").filter(|line| line.contains("put service/")).count(),
        4,
        "{trace}"
    );
    for (name, fault) in [("a", "link     silent"), ("b", "die      crashed")] {
        let beats = format!(" {name} ");
        let fault = at(trace.matching(fault).next().unwrap());
        let renewed = trace.matching("beat: Ok").filter(|line| line.contains(&beats)).map(at);
        let renewed = renewed.take_while(|beat| *beat < fault).last().unwrap();
        let gone = at(trace
            .matching("store            commit")
            .find(|line| line.contains(&format!("delete service/{name}")))
            .unwrap());
        let late = gone - renewed - TTL.as_secs_f64();
        assert!((0.0..=0.5).contains(&late), "{name} went {late} s after its lease\n{trace}");
    }
    assert_eq!(trace.matching("delete service/c").count(), 0, "{trace}");
    assert!(trace.matching("KeepAlive lease_lost").next().is_some(), "{trace}");
}

/// Whatever is committed is in the trace, also what comes last, and also after the store was restored.
#[test]
fn every_commit_is_in_the_trace() {
    let trace = run(7, async |world: World| {
        let store = world.memory().discovery();
        for number in 0..5 {
            store.put(Key::new("k").unwrap(), format!("v{number}").into(), None).await.unwrap();
        }
        world.restore(Saved::empty());
        store.put(Key::new("last").unwrap(), "v".into(), None).await.unwrap();
    });
    assert_eq!(trace.matching("put k").count(), 5, "{trace}");
    assert_eq!(trace.matching("replace  at revision 1 with 0 keys").count(), 1, "{trace}");
    assert_eq!(trace.matching("put last").count(), 1, "{trace}");
}

/// A lease ends on time also after the store was replaced past the world, which leaves all watches silent.
#[test]
fn a_silent_restore_is_noticed() {
    let trace = run(7, async |world: World| {
        let store = world.memory().discovery();
        world.memory().empty();
        let lease = store.grant(TTL).await.unwrap();
        store.put(Key::new("k").unwrap(), "v".into(), Some(lease.id)).await.unwrap();
        sleep(20 * TTL).await;
        world.note("the end");
    });
    assert_eq!(trace.matching("replace  at revision 1 with 0 keys").count(), 1, "{trace}");
    let expired = at(trace.matching("expire").next().unwrap());
    assert!(expired < at(trace.matching("the end").next().unwrap()), "{trace}");
}

/// A task that panics is in the trace, and does not end the run.
#[test]
fn a_panic_in_a_task_is_in_the_trace() {
    let trace = run(7, async |world: World| {
        let environment = world.node("a").environment();
        environment.spawn("fragile", Box::pin(async { panic!("broken {}", 7) })).end().await;
    });
    assert_eq!(trace.matching("a                panic    task fragile: broken 7").count(), 1, "{trace}");
}

/// A scenario that fails says with which seed.
#[test]
#[should_panic(expected = "seed 42: no such luck")]
fn a_failed_scenario_names_its_seed() {
    run(42, async |_| panic!("no such luck"));
}

/// A node that crashed comes back under its name with nothing of its former life.
#[tokio::test(start_paused = true)]
async fn a_crashed_node_comes_back_anew() {
    let world = World::new(7);
    let first = world.node("a");
    let messaging = first.messaging();
    first.crash();
    let second = world.node("a");
    assert_eq!((first.name(), second.name()), ("a", "a#2"));
    assert!(messaging.flush().await.is_err());
    second.messaging().flush().await.unwrap();
    second.environment().spawn("alive", Box::pin(async {})).end().await;
    assert_eq!(world.node("a").name(), "a#2");
}
