//! Stories with one fault each, told to the end.

use std::time::Duration;

use futures_util::StreamExt;
use slipring_core::{
    Base, Discovery, DiscoveryExt, Key, Message, Messaging, Pattern, QueueGroup, Start, Subject, Subscription,
};
use slipring_memory::Profile;
use slipring_sim::check::check;
use slipring_sim::{Direction, Fault, History, Node, Report, Setup, World, turmoil};
use tokio::time::{Instant, sleep, timeout};

use crate::member::{TTL, count, key, member, members, setup};

const SECOND: Duration = Duration::from_secs(1);

/// Runs a story, and judges it by what always holds.
fn tell(seed: u64, setup: Setup, story: impl AsyncFn(World) + 'static) -> Report {
    let profile = setup.profile.clone();
    let report = turmoil::simulate(seed, setup.with_self_check(false), story);
    let violations = check(&report.history, &profile);
    assert!(violations.is_empty(), "seed {seed}: {}", violations[0]);
    assert_eq!(report.stray_tasks, 0);
    report
}

/// Waits until the store holds this many members.
async fn until_members(world: &World, wanted: usize, within: Duration) -> Duration {
    let began = Instant::now();
    while world.memory().entries().entries.len() != wanted {
        assert!(began.elapsed() < within, "{:?}", world.memory().entries());
        sleep(Duration::from_millis(1)).await;
    }
    began.elapsed()
}

/// L1, L2: the lease of a machine without power ends no earlier than its time after its last heartbeat, and no
/// later than the store looks; an observer over the network sees it.
#[test]
fn lease_expiry() {
    for seed in 0..2 {
        let report = tell(seed, setup(), async |world: World| {
            world.spawn_node("a", member);
            let observer = world.node("observer");
            until_members(&world, 1, 2 * SECOND).await;
            sleep(TTL).await;
            let mut watch = observer.discovery().watch(members(), Start::Snapshot).await.unwrap();
            assert!(matches!(&watch.base, Base::Snapshot(snapshot) if snapshot.entries.len() == 1));
            world.apply(&Fault::PowerLoss { node: "a".to_owned(), down: None }).unwrap();
            let gone = until_members(&world, 0, 2 * TTL).await;
            assert!((TTL * 3 / 5..TTL + SECOND).contains(&gone), "{gone:?}");
            let seen = timeout(SECOND, async {
                loop {
                    let batch = watch.events.next().await.unwrap().unwrap();
                    if !batch.changes.is_empty() {
                        return batch;
                    }
                }
            });
            assert_eq!(seen.await.unwrap().changes[0].key(), &key("a"));
        });
        assert_eq!(count(&report, "expire"), 1);
    }
}

/// A member that takes its leave is gone at once, everywhere; it needs no lease to end.
#[test]
fn deregistration() {
    let report = tell(7, setup(), async |world: World| {
        let (worker, observer) = (world.node("worker"), world.node("observer"));
        let lease = worker.discovery().grant(TTL).await.unwrap();
        worker.discovery().put(key("worker"), "".into(), Some(lease.id)).await.unwrap();
        let mut watch = observer.discovery().watch(members(), Start::Snapshot).await.unwrap();
        worker.discovery().revoke(lease.id).await.unwrap();
        let batch = timeout(SECOND, watch.events.next()).await.unwrap().unwrap().unwrap();
        assert_eq!(batch.changes[0].key(), &key("worker"));
        let again = worker.discovery().revoke(lease.id).await;
        assert_eq!(again.unwrap_err().code(), "lease_lost");
    });
    assert_eq!((count(&report, "revoke"), count(&report, "expire")), (1, 0));
}

/// A watch that many read over one connection each shows all of them the same, whatever their latencies; one that
/// lost its connection says so and is opened anew, and shows the same again.
#[test]
fn shared_watcher() {
    tell(7, setup(), async |world: World| {
        let mut watches = Vec::new();
        for name in ["x", "y", "z"] {
            let node = world.node(name);
            watches.push(node.discovery().watch(members(), Start::Snapshot).await.unwrap());
        }
        world.spawn_node("a", member);
        for watch in &mut watches {
            let batch = timeout(2 * SECOND, watch.events.next()).await.unwrap().unwrap().unwrap();
            assert_eq!(batch.changes.len(), 1);
        }
        world.apply(&Fault::Cut { node: "x".to_owned(), lasts: SECOND }).unwrap();
        let lost = watches[0].events.next().await.unwrap();
        assert_eq!(lost.unwrap_err().code(), "unavailable");
        assert!(watches[0].events.next().await.is_none());
        let resumed = loop {
            match world.node("x").discovery().watch(members(), Start::Snapshot).await {
                Ok(watch) => break watch,
                Err(error) => assert_eq!(error.code(), "unavailable"),
            }
            sleep(SECOND / 10).await;
        };
        assert!(matches!(resumed.base, Base::Snapshot(snapshot) if snapshot.entries.len() == 1));
    });
}

/// Workers of a queue group are replaced one after the other: each crashes once its successor serves, and callers
/// lose no request that they may not try again.
#[test]
fn rolling_restart() {
    async fn worker(node: Node) {
        let wanted = Subscription::new(Pattern::new("work").unwrap());
        let wanted = wanted.with_queue(QueueGroup::new("workers").unwrap());
        let Ok(mut requests) = node.messaging().subscribe(wanted).await else { return };
        node.note("serves");
        while let Some(Ok(request)) = requests.next().await {
            let Some(reply) = request.reply else { continue };
            let _gone = node.messaging().publish(Message::new(reply, request.payload)).await;
        }
    }
    let report = tell(7, setup(), async |world: World| {
        let caller = world.node("caller");
        for (one, other) in [("a", "b"), ("b", "c"), ("c", "d")] {
            world.node(one);
            world.spawn_node(one, worker);
            world.spawn_node(other, worker);
            sleep(SECOND).await;
            for _ in 0..20 {
                let work = Message::new(Subject::new("work").unwrap(), "x");
                let reply = caller.messaging().request(work, SECOND).await.unwrap();
                assert_eq!(reply.payload, "x");
            }
            world.node(one).crash();
            sleep(SECOND).await;
        }
        world.node("d").crash();
        sleep(SECOND).await;
        let work = Message::new(Subject::new("work").unwrap(), "x");
        let nobody = caller.messaging().request(work, SECOND).await.unwrap_err();
        assert_eq!((nobody.code(), nobody.effect()), ("no_responders", slipring_core::Effect::None));
    });
    assert!(count(&report, "note") >= 4);
}

/// A partition in any direction, longer than a lease, takes the member's key; after it heals, the member is there
/// again within seconds, with a lease of its own. The other members never notice.
#[test]
fn partition_and_heal() {
    for (seed, lost) in
        [Direction::Both, Direction::Both, Direction::Both, Direction::ToBroker, Direction::FromBroker]
            .into_iter()
            .enumerate()
    {
        let report = tell(seed as u64, setup(), async move |world: World| {
            for name in ["a", "b"] {
                world.spawn_node(name, member);
            }
            until_members(&world, 2, 2 * SECOND).await;
            world.apply(&Fault::Partition { node: "a".to_owned(), lost, lasts: 3 * TTL }).unwrap();
            until_members(&world, 1, 2 * TTL).await;
            sleep(2 * TTL).await;
            until_members(&world, 2, 2 * TTL).await;
        });
        let expired = count(&report, "expire");
        assert!((1..=4).contains(&expired), "{expired} leases expired");
        assert!(count(&report, "unwatch") >= 1, "nobody noticed");
    }
}

/// F14, F20, F3: a store that stands still, has no leader, or restarts: all members are there when it is over.
#[test]
fn the_store_comes_back() {
    let faults = [
        Fault::PauseStore { lasts: 2 * TTL },
        Fault::LeaderChange { lasts: TTL },
        Fault::RestartStore { down: TTL, ready: SECOND },
    ];
    for fault in faults {
        let kind = fault.clone();
        let report = tell(7, setup(), async move |world: World| {
            for name in ["a", "b"] {
                world.spawn_node(name, member);
            }
            until_members(&world, 2, 2 * SECOND).await;
            world.apply(&fault).unwrap();
            sleep(4 * TTL).await;
            until_members(&world, 2, 2 * TTL).await;
        });
        let revived = !matches!(kind, Fault::PauseStore { .. });
        assert_eq!(count(&report, "revive"), usize::from(revived), "{kind}");
    }
}

/// M9: subscriptions come back after the bus did, and say that something may be missing.
#[test]
fn m9_the_bus_comes_back() {
    tell(7, Setup::from(Profile::nats()), async |world: World| {
        let (reader, writer) = (world.node("reader"), world.node("writer"));
        let news = Pattern::new("news").unwrap();
        let mut messages = reader.messaging().subscribe(Subscription::new(news)).await.unwrap();
        let publish = async |text: &'static str| {
            writer.messaging().publish(Message::new(Subject::new("news").unwrap(), text)).await
        };
        publish("before").await.unwrap();
        assert_eq!(messages.next().await.unwrap().unwrap().payload, "before");
        world.apply(&Fault::RestartBus { down: 2 * SECOND }).unwrap();
        sleep(SECOND).await;
        let refused = publish("lost").await.unwrap_err();
        assert_eq!((refused.code(), refused.effect()), ("unavailable", slipring_core::Effect::None));
        sleep(4 * SECOND).await;
        publish("after").await.unwrap();
        assert_eq!(messages.next().await.unwrap().unwrap_err().code(), "lagged");
        assert_eq!(messages.next().await.unwrap().unwrap().payload, "after");
    });
}

/// The broker's memory is a world's: what a node wrote over the network is there, and the history shows the same
/// kinds of events, in the same words, as on one runtime.
#[test]
fn the_history_is_that_of_one_runtime() {
    async fn story(world: World) {
        let node = world.node("a");
        let lease = node.discovery().grant(TTL).await.unwrap();
        let mut watch = node.discovery().watch(members(), Start::Snapshot).await.unwrap();
        node.discovery().put(key("a"), "v".into(), Some(lease.id)).await.unwrap();
        watch.events.next().await.unwrap().unwrap();
        node.discovery().keep_alive(lease.id).await.unwrap();
        node.discovery().revoke(lease.id).await.unwrap();
        watch.events.next().await.unwrap().unwrap();
        let _ = Key::new("x").unwrap();
    }
    let setup = Setup::from(Profile::etcd());
    let words = |history: &History| -> Vec<String> {
        let lines = history.to_string();
        let line = |line: &str| {
            let words: Vec<&str> = line.split_whitespace().skip(1).collect();
            // Here a transaction is told where it is executed.
            let words = words.join(" ").replace("broker txn", "a txn");
            words.split(", sent at").next().unwrap().to_owned()
        };
        lines.lines().map(line).collect()
    };
    let fast = slipring_sim::simulate(7, setup.clone(), story);
    let turmoil = turmoil::simulate(7, setup, story);
    let (mut fast, mut turmoil) = (words(&fast.history), words(&turmoil.history));
    // An answer and an event that it causes may change places.
    fast.sort();
    turmoil.sort();
    assert_eq!(fast, turmoil);
}
