//! Scenarios that break promises, for the tests of the command line.

use std::process::ExitCode;
use std::time::Duration;

use slipring_core::{Discovery, DiscoveryExt, Key};
use slipring_sim::check::Violation;
use slipring_sim::history::Event;
use slipring_sim::{Fault, Node, Report, Scenario, Shape, World, command};

const TTL: Duration = Duration::from_secs(3);

fn main() -> ExitCode {
    let shape = || Shape::new(["a", "b"], TTL, 10 * TTL).with_operations(["greet"], 8);
    let crashes = shape().with_faults(|fault| matches!(fault, Fault::Crash { .. } | Fault::Compact));
    command::main([
        Scenario::new("sound", "Nothing is broken", shape(), registered),
        Scenario::new("fragile", "A crash is taken for a broken promise", crashes, registered)
            .with_judge(no_crash),
        Scenario::new("panicking", "A task that is asked to greet panics", shape(), async |world: World| {
            for name in ["a", "b"] {
                world.spawn_node(name, async |node: Node| panic!("asked to {}", node.operation().await));
            }
            world.calm().await;
        }),
        Scenario::new(
            "restless",
            "A task that is asked to greet wakes itself for ever",
            shape(),
            async |world| {
                greeted(&world, async || {
                    loop {
                        tokio::task::yield_now().await;
                    }
                })
                .await;
            },
        ),
        Scenario::new(
            "stuck",
            "A task that is asked to greet keeps its thread for ever",
            shape(),
            async |world| {
                greeted(&world, async || {
                    loop {
                        std::hint::spin_loop();
                    }
                })
                .await;
            },
        ),
    ])
}

/// Two nodes that do this when they are asked to greet.
async fn greeted<T>(world: &World, act: impl Fn() -> T + Copy + Send + Sync + 'static)
where
    T: Future<Output = ()> + Send + 'static,
{
    for name in ["a", "b"] {
        world.spawn_node(name, move |node: Node| async move {
            node.operation().await;
            act().await;
        });
    }
    world.calm().await;
}

/// Two nodes hold leases, and note what they are asked.
async fn registered(world: World) {
    for name in ["a", "b"] {
        world.spawn_node(name, async |node: Node| {
            let Ok(lease) = node.discovery().grant(TTL).await else { return };
            let key = Key::new(format!("members/{}", node.name().replace('#', ":"))).expect("it is a key");
            let _maybe_lost = node.discovery().put(key, "".into(), Some(lease.id)).await;
            loop {
                node.note(node.operation().await);
            }
        });
    }
    world.calm().await;
}

fn no_crash(report: &Report) -> Vec<Violation> {
    let died = |event: &Event| matches!(event, Event::Died(_));
    let deaths = report.history.moments().iter().filter(|moment| died(&moment.event));
    // At the end of a run all nodes end, and that is not in its history.
    deaths.map(|moment| Violation::new("no_crash", moment.at, format!("{} died", moment.node))).collect()
}
