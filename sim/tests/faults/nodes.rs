//! Nodes die, come back and stand still.

use super::common::*;

/// F1, F2: after a crash the bus knows that nobody is there; after a power loss it does not, for minutes, and
/// requests are lost. In both cases the lease runs out and no earlier.
#[tokio::test(start_paused = true)]
async fn f01_f02_crash_and_power_loss_are_told_apart() {
    for power_loss in [false, true] {
        let world = World::new(7);
        let b = world.node("b");
        let a = world.spawn_node("a", async |node: Node| {
            register(&node).await;
            let mut requests = subscribe(&node, "s").await;
            while requests.next().await.is_some() {}
        });
        let mut watch = watch(&b).await;
        sleep(SECOND).await;
        let began = Instant::now();
        let (node, down) = (named(), None);
        let death = if power_loss { Fault::PowerLoss { node, down } } else { Fault::Crash { node, down } };
        world.apply(&death).unwrap();
        assert!(!a.is_alive());
        // Time for its tasks to be dropped, with the subscriptions that they hold.
        sleep(SECOND / 10).await;
        let refused = b.messaging().request(message("?"), SECOND).await.unwrap_err();
        assert_eq!(refused.code(), if power_loss { "deadline_exceeded" } else { "no_responders" });
        assert_eq!(changes(&mut watch).await.unwrap(), ["a"]);
        assert_eq!(changes(&mut watch).await.unwrap(), ["-a"]);
        assert_eq!(began.elapsed(), TTL - SECOND);
        sleep(Duration::from_secs(180)).await;
        let refused = b.messaging().request(message("?"), SECOND).await.unwrap_err();
        assert_eq!(refused.code(), "no_responders");
    }
}

/// F3: a node that died runs its program anew when it comes back, under the next name; nothing of the life
/// before reaches anything.
#[tokio::test(start_paused = true)]
async fn f03_f35_a_program_runs_in_each_life() {
    let world = World::new(7);
    let first = world.spawn_node("a", async |node: Node| {
        node.discovery().put(key(&node.name().replace('#', ":")), "".into(), None).await.unwrap();
        std::future::pending::<()>().await;
    });
    sleep(SECOND).await;
    world.apply(&Fault::Crash { node: named(), down: Some(TTL) }).unwrap();
    assert!(world.living("a").is_none());
    sleep(2 * TTL).await;
    assert_eq!(world.living("a").unwrap().name(), "a#2");
    let keys: Vec<_> = world.memory().entries().entries.into_iter().map(|entry| entry.key).collect();
    assert_eq!(keys, [key("a"), key("a:2")]);
    first.link().open();
    assert_unavailable(first.discovery().read(Range::All).await, Effect::None);
}

/// Tasks that a node started past its environment live on after its death, reach nothing, and are counted.
#[test]
#[expect(clippy::disallowed_methods, reason = "the test is about tasks that are started so")]
fn stray_tasks_are_fenced_and_counted() {
    async fn stray(node: Node) {
        let store = node.discovery();
        tokio::spawn(async move {
            loop {
                let _ = store.put(key("k"), "".into(), None).await;
                sleep(SECOND).await;
            }
        });
        node.environment().spawn("owned", Box::pin(std::future::pending())).detach();
        std::future::pending::<()>().await;
    }
    for power_loss in [false, true] {
        let report = simulate(7, Setup::new().with_lasting_requests(power_loss), async |world: World| {
            world.spawn_node("a", stray);
            world.spawn_node("b", stray);
            sleep(TTL).await;
            assert_eq!(world.stray_tasks().await, 2);
            for node in ["a", "b"].map(str::to_owned) {
                let (crash, power) =
                    (Fault::Crash { node: node.clone(), down: None }, Fault::PowerLoss { node, down: None });
                world.apply(if power_loss { &power } else { &crash }).unwrap();
            }
            let revision = world.memory().entries().revision;
            sleep(TTL).await;
            assert_eq!(world.memory().entries().revision, revision);
            assert_eq!(world.stray_tasks().await, 2);
        });
        assert_eq!(report.stray_tasks, 2);
    }
}

/// F13, F41: the tasks of a paused node do not run, and all that they missed is there when they do; only a
/// suspended machine finds that its wall time jumped.
#[tokio::test(start_paused = true)]
async fn f13_f41_a_paused_node_does_nothing() {
    for suspended in [false, true] {
        let world = World::new(7);
        let a = world.spawn_node("a", async |node: Node| {
            loop {
                sleep(SECOND).await;
                node.note("tick");
            }
        });
        let (wall, began) = (a.environment().wall_time(), Instant::now());
        sleep(SECOND / 2).await;
        world.apply(&Fault::Pause { node: named(), lasts: TTL, suspended }).unwrap();
        sleep(TTL - SECOND / 4).await;
        assert_eq!(world.trace().matching("tick").count(), 0);
        sleep(SECOND / 2).await;
        assert_eq!(world.trace().matching("tick").count(), 1);
        let jumped = a.environment().wall_time().duration_since(wall).unwrap() - began.elapsed();
        assert_eq!(jumped, if suspended { TTL } else { Duration::ZERO });
        sleep(SECOND).await;
        assert_eq!(world.trace().matching("tick").count(), 2);
    }
}

/// A fault for a node that never lived is refused by its name.
#[tokio::test(start_paused = true)]
async fn unknown_nodes_are_refused() {
    let world = World::new(7);
    let error = world.apply(&Fault::LoseReply { node: named() }).unwrap_err();
    assert!(error.code() == "not_found" && error.to_string().contains("node a"), "{error}");
}
