//! What others suffer from: defects of other systems, and what their users reported.

use std::time::Duration;

use slipring_core::Fact;
use slipring_sim::check::Violation;
use slipring_sim::history::{Event, Moment};
use slipring_sim::{Choice, Fault, Report, Scenario, Shape, World};
use tokio::time::sleep;

use crate::fleet::{Fleet, TTL, WORK, setup, terms};
use crate::leases::{self, NODES, fleet};
use crate::views::{nobody_is_blind, replaces_the_store};

const LENGTH: Duration = Duration::from_secs(30);

pub(crate) fn all() -> Vec<Scenario> {
    [of_leases(), of_watches(), of_calls()].into_iter().flatten().collect()
}

fn shape() -> Shape {
    Shape::new(NODES, TTL, LENGTH).with_faults_max(4)
}

fn of_leases() -> Vec<Scenario> {
    let scenario = |name, shows, sure: Choice| {
        Scenario::new(name, shows, shape().with_sure(sure), fleet).with_setup(setup()).with_terms(terms())
    };
    vec![
        scenario("d03_heartbeats_keep_their_pace", "Heartbeats never come in a hot loop", |fault| {
            matches!(fault, Fault::PauseStore { .. } | Fault::LeaderChange { .. })
        })
        .with_judge(heartbeats_keep_their_pace),
        scenario(
            "d04_u3493_a_lost_lease_heals",
            "A worker that loses its lease goes on, and is registered again as the same instance",
            |fault| matches!(fault, Fault::Partition { lasts, .. } if *lasts > TTL),
        )
        .with_judge(instances_stay_the_same),
        scenario(
            "d23_a_paused_owner_returns",
            "An owner that stood still comes back by itself",
            |fault| matches!(fault, Fault::Pause { lasts, .. } if *lasts > TTL),
        )
        .with_judge(instances_stay_the_same),
        Scenario::new(
            "u10798_the_store_comes_later",
            "Workers that start before their store wait for it",
            shape(),
            store_comes_later,
        )
        .with_setup(setup())
        .with_terms(terms()),
    ]
}

fn of_watches() -> Vec<Scenario> {
    let scenario = |name, shows, shape: Shape| {
        let shape = shape.with_operations(["leave", "join", "look"], 8);
        Scenario::new(name, shows, shape, fleet).with_setup(setup()).with_terms(terms())
    };
    vec![
        scenario(
            "d05_a_compacted_watch_is_noticed",
            "A watch whose history is gone begins anew, and misses nothing",
            shape()
                .with_sure(|fault| matches!(fault, Fault::Partition { node, .. } if node == "caller"))
                .with_sure(|fault| matches!(fault, Fault::Compact)),
        ),
        scenario(
            "d06_d07_d08_a_watch_dies",
            "A watch that ends stops no process, empties no view, and serves those who come later",
            shape()
                .with_faults(|fault| !replaces_the_store(fault))
                .with_sure(|fault| matches!(fault, Fault::RestartStore { .. } | Fault::Cut { .. })),
        )
        .with_judge(nobody_is_blind),
        scenario(
            "u1592_a_silent_watch_is_noticed",
            "A watch that says nothing any more is given up and opened anew",
            shape().with_sure(|fault| matches!(fault, Fault::Save)).with_sure(replaces_the_store),
        ),
        scenario(
            "u4904_a_restarted_caller_finds_all",
            "A caller that starts again sees all workers",
            shape().with_sure(|fault| matches!(fault, Fault::Crash { node, .. } if node == "caller")),
        ),
        scenario(
            "u13206_removals_in_an_outage_are_told",
            "Who leaves while a caller cannot see is gone for it when it can",
            shape().with_faults(|fault| fault.node() == Some("caller")),
        ),
        Scenario::new(
            "u971_calls_open_no_watches",
            "However many calls are made, there is one watch",
            shape().with_faults_max(0),
            many_calls,
        )
        .with_setup(setup())
        .with_terms(terms())
        .with_judge(one_watch),
        Scenario::new(
            "u11144_no_stale_and_no_foreign_instances",
            "After a reconnect nobody is seen who left, nor anybody of a component with a longer name",
            shape().with_faults_max(8).with_operations(["leave", "join"], 8),
            neighbours,
        )
        .with_setup(setup())
        .with_terms(terms()),
    ]
}

fn of_calls() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "d09_u732_who_is_set_aside_stays_aside",
            "A worker that is gone, but still registered, gets no second call, whatever others do",
            Shape::new(["two", "three"], 5 * TTL, LENGTH)
                .with_faults_max(0)
                .with_operations(["leave", "join"], 12),
            set_aside,
        )
        .with_setup(setup()).with_terms(terms())
        .with_judge(the_dead_are_called_once),
        Scenario::new(
            "d28_a_call_to_the_dead_ends",
            "A request that a worker took along when it died ends for its caller, and with an error",
            shape().with_sure(|fault| {
                matches!(fault, Fault::Crash { node, .. } | Fault::PowerLoss { node, .. } if node != "caller")
            }),
            fleet,
        )
        .with_setup(setup()).with_terms(terms())
        .with_judge(calls_end),
    ]
}

/// The store is not there when everybody starts.
async fn store_comes_later(world: World) {
    let fleet = Fleet::new(&world);
    let late = Fault::RestartStore { down: 2 * TTL, ready: TTL / 6 };
    world.apply(&late).expect("it strikes no node");
    leases::start(&fleet, &world);
    sleep(2 * TTL).await;
    fleet.agrees(&world).await;
}

/// Some hundred calls, and nothing goes wrong.
async fn many_calls(world: World) {
    let fleet = Fleet::new(&world).with_pause_max(TTL / 60);
    leases::start(&fleet, &world);
    sleep(LENGTH).await;
    fleet.agrees(&world).await;
    let tally = fleet.tally();
    assert!(tally.failed.is_empty() && tally.answered > 100, "{tally:?}");
}

/// One worker more, of a component whose name begins as the others' does.
async fn neighbours(world: World) {
    let fleet = Fleet::new(&world);
    leases::start(&fleet, &world);
    fleet.neighbour(&world, "neighbour");
    fleet.agrees(&world).await;
}

/// One worker dies for good, with a lease that lives on for long; another stays, the others come and go.
async fn set_aside(world: World) {
    let fleet = Fleet::with(&world, |settings| settings.lease_ttl = 5 * TTL);
    ["dead", "one", "two", "three"].iter().for_each(|name| fleet.worker(&world, name));
    fleet.caller(&world, "caller");
    sleep(TTL).await;
    world.node("dead").crash();
    fleet.agrees(&world).await;
}

/// D03: no node sends more heartbeats than one each third of a second, also if each is refused at once.
fn heartbeats_keep_their_pace(report: &Report) -> Vec<Violation> {
    const WINDOW: Duration = Duration::from_secs(10);
    const BEATS_MAX: usize = 30;
    let beats = |moment: &&Moment| {
        let call = slipring_sim::history::Call::KeepAlive;
        matches!(&moment.event, Event::Answered { call: answered, .. } if *answered == call)
    };
    let beats: Vec<&Moment> = report.history.moments().iter().filter(beats).collect();
    NODES
        .iter()
        .filter_map(|node| {
            let of_node: Vec<Duration> =
                beats.iter().filter(|beat| &*beat.node == *node).map(|beat| beat.at).collect();
            let hot = of_node.windows(BEATS_MAX + 1).find(|some| some[BEATS_MAX] - some[0] < WINDOW)?;
            let what = format!("{node} sent {} heartbeats within {WINDOW:?}", BEATS_MAX + 1);
            Some(Violation::new("D03", hot[BEATS_MAX], what))
        })
        .collect()
}

/// D04, D23: a life of a node is one instance, whatever becomes of its leases.
fn instances_stay_the_same(report: &Report) -> Vec<Violation> {
    let mut known = std::collections::BTreeMap::new();
    let mut violations = Vec::new();
    for Moment { at, node, event, .. } in report.history.moments() {
        let Event::Fact(Fact::LeaseHeld { instance, .. }) = event else { continue };
        let first = *known.entry(node.clone()).or_insert(*instance);
        if first != *instance {
            let what = format!("{node} was the instance {first:x}, and is {instance:x}");
            violations.push(Violation::new("D04", *at, what));
        }
    }
    violations
}

/// U971: a caller opens one watch of the instances.
fn one_watch(report: &Report) -> Vec<Violation> {
    let opened =
        |moment: &&Moment| matches!(moment.event, Event::WatchOpened { .. }) && &*moment.node == "caller";
    let second = report.history.moments().iter().filter(opened).nth(1);
    second.map(|moment| Violation::new("U971", moment.at, "a second watch was opened")).into_iter().collect()
}

/// D09, U732: a worker that died is called once, and then known.
fn the_dead_are_called_once(report: &Report) -> Vec<Violation> {
    let moments = report.history.moments();
    let instance = moments.iter().find_map(|moment| match &moment.event {
        Event::Fact(Fact::LeaseHeld { instance, .. }) if &*moment.node == "dead" => Some(*instance),
        _ => None,
    });
    let died =
        moments.iter().position(|moment| &*moment.node == "dead" && matches!(moment.event, Event::Died(_)));
    let (Some(instance), Some(died)) = (instance, died) else {
        return vec![Violation::new("D09", Duration::ZERO, "nobody died")];
    };
    let calls = moments[died..].iter().filter(|moment| {
        matches!(&moment.event, Event::Fact(Fact::RouteChosen { instance: to, .. }) if *to == instance)
    });
    // The call in flight when it died, and the one that finds out.
    let more =
        calls.skip(2).map(|moment| Violation::new("D09", moment.at, format!("{WORK} called the dead again")));
    more.collect()
}

/// D28: each call of a life that goes on ends, by its deadline.
fn calls_end(report: &Report) -> Vec<Violation> {
    const LATE_MAX: Duration = Duration::from_secs(1);
    let mut open = std::collections::BTreeMap::new();
    let mut violations = Vec::new();
    for Moment { at, node, event, .. } in report.history.moments() {
        match event {
            Event::Fact(Fact::CallStarted { call, deadline, .. }) => {
                open.insert((node.clone(), *call), *at + *deadline + LATE_MAX);
            }
            Event::Fact(Fact::CallEnded { call, .. }) => {
                open.remove(&(node.clone(), *call));
            }
            Event::Died(_) => open.retain(|(of, _), _| of != node),
            // Who stands still cannot keep time.
            Event::Struck(Fault::Pause { node, .. }) => open.retain(|(of, _), _| !of.starts_with(&**node)),
            _ => {}
        }
        let late = open.iter().find(|(_, until)| **until < *at).map(|(call, _)| call.clone());
        if let Some((node, call)) = late {
            violations.push(Violation::new(
                "D28",
                *at,
                format!("call {call} of {node} goes on after its deadline"),
            ));
            open.remove(&(node, call));
        }
    }
    violations
}
