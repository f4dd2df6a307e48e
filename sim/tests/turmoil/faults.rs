//! What faults do to worlds on turmoil, and the traps of turmoil 0.7.2 that such a world copes with.

use std::time::Duration;

use slipring_core::{Discovery, DiscoveryExt, Environment, EnvironmentExt, Start};
use slipring_memory::Profile;
use slipring_sim::check::check;
use slipring_sim::{Direction, Fault, Node, Schedule, Setup, World, turmoil};
use tokio::io::AsyncReadExt;
use tokio::time::{Instant, sleep, timeout};

use crate::member::{TTL, count, key, members, play, setup};

const SECOND: Duration = Duration::from_secs(1);

/// A broker like etcd; that a seed is one run is shown elsewhere.
fn once() -> Setup {
    Setup::from(Profile::etcd()).with_self_check(false)
}

/// Trap: a panic in a spawned task is swallowed. Here it is in the history, and the world goes on.
#[test]
fn a_panic_is_in_the_history() {
    let report = turmoil::simulate(7, once(), async |world: World| {
        world.spawn_node("a", async |_| panic!("broken"));
        sleep(SECOND).await;
        world.node("b").discovery().grant(TTL).await.unwrap();
    });
    let text = report.history.to_string();
    assert_eq!(text.matches("panic    task program: broken").count(), 1, "{text}");
}

/// A panic of the story ends the run, with its seed.
#[test]
#[should_panic(expected = "seed 42: no such luck")]
fn a_failed_story_names_its_seed() {
    turmoil::simulate(42, once(), async |_| panic!("no such luck"));
}

/// A node that listens, and says hello.
async fn greeter(node: Node) {
    let environment = node.environment();
    let mut listener = environment.listen("0.0.0.0:80").await.unwrap();
    while let Ok((mut stream, _)) = listener.accept().await {
        use tokio::io::AsyncWriteExt;
        environment
            .start("greeting", async move {
                let _gone = stream.write_all(b"hello").await;
                let mut rest = Vec::new();
                let _gone = stream.read_to_end(&mut rest).await;
            })
            .detach();
    }
}

/// Trap: connecting to a crashed host hangs. Here that is so for a machine without power; one whose process
/// crashed refuses, and the connections to it are reset.
#[test]
fn f1_f2_a_crash_is_told_and_a_power_loss_is_not() {
    turmoil::simulate(7, once(), async |world: World| {
        for (name, fault) in [
            ("one", Fault::Crash { node: "one".to_owned(), down: None }),
            ("two", Fault::PowerLoss { node: "two".to_owned(), down: None }),
        ] {
            world.spawn_node(name, greeter);
            let address = format!("{name}:80");
            let caller = world.spawn_node(&format!("caller-of-{name}"), move |node: Node| {
                let address = address.clone();
                async move {
                    sleep(SECOND).await;
                    let mut stream = node.environment().connect(&address).await.unwrap();
                    let mut read = [0; 5];
                    stream.read_exact(&mut read).await.unwrap();
                    match timeout(3 * SECOND, stream.read(&mut read)).await {
                        Ok(end) => node.note(format_args!("connection ended: {}", end.map_or(0, |n| n) == 0)),
                        Err(_) => node.note("connection is silent"),
                    }
                    match timeout(3 * SECOND, node.environment().connect(&address)).await {
                        Ok(refused) => node.note(format_args!("refused: {}", refused.is_err())),
                        Err(_) => node.note("no answer"),
                    }
                }
            });
            sleep(2 * SECOND).await;
            world.apply(&fault).unwrap();
            sleep(8 * SECOND).await;
            let trace = world.trace();
            let expected = if name == "one" {
                ["connection ended: true", "refused: true"]
            } else {
                ["connection is silent", "no answer"]
            };
            for line in expected {
                assert!(trace.matching(line).any(|found| found.contains(caller.name())), "{line}\n{trace}");
            }
        }
    });
}

/// Both kinds of the dead come back under their names, on the same machine, and serve; a handle of the former life
/// reaches nothing.
#[test]
fn the_dead_come_back() {
    for fault in [
        Fault::Crash { node: "a".to_owned(), down: Some(SECOND) },
        Fault::PowerLoss { node: "a".to_owned(), down: Some(SECOND) },
    ] {
        turmoil::simulate(7, once(), async move |world: World| {
            let before = world.spawn_node("a", greeter);
            sleep(SECOND).await;
            world.apply(&fault).unwrap();
            sleep(2 * SECOND).await;
            let after = world.node("a");
            assert_eq!((before.name(), after.name()), ("a", "a#2"));
            after.discovery().grant(TTL).await.unwrap();
            assert!(!matches!(timeout(SECOND, before.discovery().grant(TTL)).await, Ok(Ok(_))));
            let caller = world.spawn_node("caller", async |node: Node| {
                let mut stream = node.environment().connect("a:80").await.unwrap();
                let mut read = [0; 5];
                stream.read_exact(&mut read).await.unwrap();
                node.note("greeted");
            });
            sleep(SECOND).await;
            assert!(world.trace().matching("greeted").any(|line| line.contains(caller.name())));
        });
    }
}

/// A task that was started past the environment dies with its host, and is counted.
#[test]
#[expect(clippy::disallowed_methods, reason = "that is what is tested")]
fn stray_tasks_are_counted() {
    let report = turmoil::simulate(7, once(), async |world: World| {
        world.spawn_node("a", async |_: Node| {
            tokio::spawn(std::future::pending::<()>());
            tokio::spawn(std::future::pending::<()>());
            std::future::pending().await
        });
        world.spawn_node("b", async |_: Node| {
            tokio::spawn(std::future::pending::<()>());
        });
        sleep(SECOND).await;
        world.node("a").crash();
        sleep(SECOND).await;
    });
    assert_eq!(report.stray_tasks, 3);
}

/// Trap: one lost segment kills a stream for good. The connection is given up after three seconds of silence and
/// made again: with messages lost all the time, a service stays registered, and no promise is broken.
#[test]
fn f10_lost_messages_cost_connections_only() {
    let length = Duration::from_secs(60);
    let lossy = setup().with_losses_ppm(10_000);
    let report = play(7, lossy, Schedule::new(), length);
    assert_eq!(check(&report.history, &setup().profile), []);
    let (unwatched, watched) = (count(&report, "unwatch"), count(&report, "watch"));
    assert!(unwatched >= 3 && watched >= unwatched, "{unwatched} of {watched} watches ended");
    let renewed = count(&report, "renew");
    assert!(renewed > 40, "{renewed} heartbeats");
    let calm = play(7, setup(), Schedule::new(), length);
    assert_eq!(count(&calm, "unwatch"), 0);
}

/// Trap: a SYN-ACK ignores a partition in one direction. A connection over which nothing comes back does not
/// count: calls fail within the bound, and go through once the way is open.
#[test]
fn f6_a_connection_counts_once_the_broker_has_spoken() {
    for lost in [Direction::FromBroker, Direction::ToBroker] {
        turmoil::simulate(7, once(), async move |world: World| {
            let node = world.node("a");
            node.discovery().grant(TTL).await.unwrap();
            world.apply(&Fault::Partition { node: "a".to_owned(), lost, lasts: 15 * SECOND }).unwrap();
            let began = Instant::now();
            let lost = node.discovery().grant(TTL).await.unwrap_err();
            assert_eq!((lost.code(), lost.effect()), ("unavailable", slipring_core::Effect::Unknown));
            assert!(began.elapsed() <= 5 * SECOND, "{:?}", began.elapsed());
            while began.elapsed() < 14 * SECOND {
                let began = Instant::now();
                let refused = node.discovery().grant(TTL).await.unwrap_err();
                assert_eq!((refused.code(), refused.effect()), ("unavailable", slipring_core::Effect::None));
                assert!(began.elapsed() <= 3 * SECOND, "{:?}", began.elapsed());
                sleep(SECOND / 10).await;
            }
            sleep(5 * SECOND).await;
            node.discovery().grant(TTL).await.unwrap();
        });
    }
}

/// F17, F18: a request or a reply that the link loses has an effect that nobody knows, as on one runtime.
#[test]
fn f17_f18_a_lost_call_is_unknown() {
    turmoil::simulate(7, once(), async |world: World| {
        let node = world.node("a");
        world.apply(&Fault::LoseRequest { node: "a".to_owned() }).unwrap();
        let lost = node.discovery().put(key("never"), "".into(), None).await.unwrap_err();
        assert_eq!(lost.effect(), slipring_core::Effect::Unknown);
        world.apply(&Fault::LoseReply { node: "a".to_owned() }).unwrap();
        let lost = node.discovery().put(key("there"), "".into(), None).await.unwrap_err();
        assert_eq!(lost.effect(), slipring_core::Effect::Unknown);
        let entries = world.memory().entries().entries;
        assert_eq!(entries.iter().map(|entry| &entry.key).collect::<Vec<_>>(), [&key("there")]);
    });
}

/// F8, F12: messages take the time that they are told to take, in both directions, and more during a delay.
#[test]
fn f8_messages_take_their_time() {
    turmoil::simulate(7, once(), async |world: World| {
        let node = world.node("a");
        node.discovery().grant(TTL).await.unwrap();
        let round_trip = async || {
            let began = Instant::now();
            node.discovery().grant(TTL).await.unwrap();
            began.elapsed()
        };
        assert!(round_trip().await < Duration::from_millis(5));
        let latency = slipring_sim::Latency::between(SECOND / 10, SECOND / 10);
        world.apply(&Fault::Latency { node: "a".to_owned(), latency }).unwrap();
        sleep(SECOND).await;
        let slow = round_trip().await;
        assert!((SECOND / 5..SECOND / 4).contains(&slow), "{slow:?}");
        world.apply(&Fault::Delay { node: "a".to_owned(), by: SECOND / 5, lasts: 5 * SECOND }).unwrap();
        sleep(SECOND).await;
        let slower = round_trip().await;
        assert!((3 * SECOND / 5..2 * SECOND / 3).contains(&slower), "{slower:?}");
        sleep(5 * SECOND).await;
        assert!(round_trip().await < SECOND / 4);
    });
}

/// F13: a node that stands still for longer than a lease finds it lost, and its connections as they were.
#[test]
fn f13_a_paused_node_goes_on() {
    turmoil::simulate(7, once(), async |world: World| {
        world.spawn_node("a", async |node: Node| {
            let lease = node.discovery().grant(TTL).await.unwrap();
            loop {
                sleep(SECOND).await;
                let code = node.discovery().keep_alive(lease.id).await.err().map(|error| error.code());
                node.note(format_args!("beat: {code:?}"));
            }
        });
        sleep(2 * SECOND).await;
        let began = world.elapsed();
        world.apply(&Fault::Pause { node: "a".to_owned(), lasts: 3 * TTL, suspended: true }).unwrap();
        sleep(3 * TTL + 5 * SECOND).await;
        let trace = world.trace();
        let lost = trace.matching("KeepAlive lease_lost").count();
        assert!(lost >= 3, "{lost} heartbeats after {began:?}\n{trace}");
    });
}

/// A link that is switched by hand is switched in the network: silence is noticed, a cut is told at once, and an
/// open link carries everything.
#[test]
fn links_are_switched_by_hand() {
    turmoil::simulate(7, once(), async |world: World| {
        let node = world.node("a");
        let mut watch = node.discovery().watch(members(), Start::Snapshot).await.unwrap();
        node.link().cut();
        sleep(Duration::from_millis(5)).await;
        assert_eq!(node.discovery().grant(TTL).await.unwrap_err().code(), "unavailable");
        use futures_util::StreamExt;
        assert!(watch.events.next().await.unwrap().is_err());
        node.link().open();
        sleep(2 * SECOND).await;
        node.discovery().grant(TTL).await.unwrap();
        node.link().silence();
        let began = Instant::now();
        assert_eq!(node.discovery().grant(TTL).await.unwrap_err().code(), "unavailable");
        assert!((2 * SECOND..=4 * SECOND).contains(&began.elapsed()), "{:?}", began.elapsed());
        node.link().open();
        sleep(4 * SECOND).await;
        node.discovery().grant(TTL).await.unwrap();
    });
}
