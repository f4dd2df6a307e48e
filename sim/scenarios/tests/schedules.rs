//! Schedules out of proptest instead of a seed: it draws them for real runtimes, and shrinks those that fail.
#![allow(clippy::unwrap_used, reason = "a test may")]

use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestError, TestRunner};
use slipring_sim::{Direction, Fault, Scenario, Schedule};

const NODES: [&str; 5] = ["one", "two", "three", "four", "caller"];

fn scenario() -> Scenario {
    scenarios::all().into_iter().find(|scenario| scenario.name() == "deregistration").unwrap()
}

fn time(max_ms: u64) -> impl Strategy<Value = Duration> {
    (0..=max_ms).prop_map(Duration::from_millis)
}

/// A fault, the milder ones first: proptest shrinks towards those.
fn fault() -> impl Strategy<Value = Fault> {
    let node = || (0..NODES.len()).prop_map(|number| NODES[number].to_owned());
    let lasts = || time(12_000);
    prop_oneof![
        Just(Fault::Compact),
        node().prop_map(|node| Fault::LoseReply { node }),
        node().prop_map(|node| Fault::LoseRequest { node }),
        (node(), lasts()).prop_map(|(node, lasts)| Fault::StallWatches { node, lasts }),
        (node(), lasts()).prop_map(|(node, lasts)| Fault::Cut { node, lasts }),
        (node(), lasts()).prop_map(|(node, lasts)| Fault::Partition { node, lost: Direction::Both, lasts }),
        (node(), lasts(), any::<bool>()).prop_map(|(node, lasts, suspended)| Fault::Pause {
            node,
            lasts,
            suspended
        }),
        (node(), lasts()).prop_map(|(node, down)| Fault::Crash { node, down: Some(down) }),
        (node(), lasts()).prop_map(|(node, down)| Fault::PowerLoss { node, down: Some(down) }),
        lasts().prop_map(|lasts| Fault::PauseStore { lasts }),
        lasts().prop_map(|lasts| Fault::LeaderChange { lasts }),
        (lasts(), time(2_000)).prop_map(|(down, ready)| Fault::RestartStore { down, ready }),
        lasts().prop_map(|down| Fault::RestartBus { down }),
        Just(Fault::Empty),
    ]
}

/// Up to eight faults and eight operations within half a minute.
fn schedule() -> impl Strategy<Value = Schedule> {
    let operation = (time(30_000), 0..NODES.len(), prop_oneof![Just("leave"), Just("join")]);
    (vec((time(30_000), fault()), 0..8), vec(operation, 0..8)).prop_map(|(faults, operations)| {
        let struck = faults.into_iter().fold(Schedule::new(), |all, (at, fault)| all.with(at, fault));
        let asked = operations.into_iter();
        asked.fold(struck, |all, (at, node, verb)| all.with_operation(at, NODES[node], verb))
    })
}

fn runner(cases: u32) -> TestRunner {
    TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() })
}

/// K, L, W: no schedule that proptest thinks of breaks a promise of the component model.
#[test]
fn no_schedule_breaks_a_promise() {
    let cases = if cfg!(debug_assertions) { 48 } else { 1_000 };
    let scenario = scenario();
    let kept = |schedule: Schedule| {
        let violations = scenario.replay(7, schedule).violations;
        prop_assert!(violations.is_empty(), "{}", violations[0]);
        Ok(())
    };
    runner(cases).run(&schedule(), kept).unwrap();
}

/// A schedule that fails shrinks to what it takes: a lease expires by one fault. At most one operation or fault
/// beside it cannot go before the fault has changed: proptest looks at one part at a time.
#[test]
fn a_failing_schedule_shrinks() {
    let scenario = scenario();
    let expires = |schedule: Schedule| {
        let report = scenario.replay(7, schedule).report;
        prop_assert!(report.history.moments().iter().all(|moment| moment.event.kind() != "expire"));
        Ok(())
    };
    let Err(TestError::Fail(_, smallest)) = runner(1_000).run(&schedule(), expires) else {
        panic!("no lease expires in a thousand schedules")
    };
    let (operations, faults) = (smallest.operations().len(), smallest.faults().len());
    assert!(faults >= 1 && operations + faults <= 2, "{smallest}");
}
