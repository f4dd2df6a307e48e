//! What callers see of who is there.

use std::collections::BTreeMap;
use std::time::Duration;

use slipring_core::{Change, Fact, Revision};
use slipring_memory::store::StoreEvent;
use slipring_sim::check::Violation;
use slipring_sim::history::{Event, Moment};
use slipring_sim::{Engine, Fault, Report, Scenario, Shape, World};

use crate::fleet::{Fleet, TTL, setup, terms};

const LENGTH: Duration = Duration::from_secs(30);

/// Three workers, and two callers whose ways to the broker fail apart.
const NODES: [&str; 5] = ["one", "two", "three", "left", "right"];

pub(crate) fn all() -> Vec<Scenario> {
    let shape = || Shape::new(NODES, TTL, LENGTH).with_operations(["leave", "join"], 8);
    let scenario = |name, shows, shape| {
        Scenario::new(name, shows, shape, callers).with_setup(setup()).with_terms(terms())
    };
    vec![
        scenario(
            "shared_watcher",
            "However many clients come and go, they share one watch, and see what its store shows",
            Shape::new(NODES, TTL, LENGTH).with_operations(["leave", "join", "look", "look", "forget"], 16),
        )
        .with_engine(Engine::Turmoil),
        scenario(
            "split_brain_clients",
            "A caller that is cut off keeps its last view, others go on, and in the end they agree",
            shape()
                .with_faults(|fault| !replaces_the_store(fault))
                .with_sure(|fault| matches!(fault, Fault::Partition { node, .. } if node == "left")),
        )
        .with_judge(nobody_is_blind),
        scenario(
            "slow_reader",
            "A caller that does not read for a while misses nothing, and keeps nobody else waiting",
            shape()
                .with_faults(|fault| {
                    matches!(fault, Fault::StallWatches { .. } | Fault::Delay { .. } | Fault::Compact)
                })
                .with_sure(|fault| matches!(fault, Fault::StallWatches { node, .. } if node == "left")),
        )
        .with_judge(nobody_is_blind),
    ]
}

/// Three workers and two callers; each of these has one watch in the end.
pub(crate) async fn callers(world: World) {
    let fleet = Fleet::new(&world);
    let [workers @ .., left, right] = NODES;
    workers.iter().for_each(|name| fleet.worker(&world, name));
    [left, right].iter().for_each(|name| fleet.caller(&world, name));
    fleet.agrees(&world).await;
    assert!(fleet.watchers().iter().all(|watches| *watches == 1), "{:?} watches", fleet.watchers());
}

/// Does the store have another content after this fault than its revisions tell?
pub(crate) fn replaces_the_store(fault: &Fault) -> bool {
    matches!(fault, Fault::Restore | Fault::Empty)
}

/// D07, U12304: "I cannot see" is never shown as "nobody is there": a view is empty only if the store was at
/// its revision.
pub(crate) fn nobody_is_blind(report: &Report) -> Vec<Violation> {
    let mut stored = BTreeMap::new();
    let mut counts: BTreeMap<Revision, i64> = BTreeMap::new();
    let mut violations = Vec::new();
    for Moment { at, node, event, .. } in report.history.moments() {
        match event {
            Event::Store { event: StoreEvent::Committed(batch), .. } => {
                for change in &batch.changes {
                    let key = change.key().to_string();
                    if key.starts_with("fleet/components/worker/work:") {
                        let here = matches!(change, Change::Put(_));
                        stored.insert(key, i64::from(here));
                    }
                }
                counts.insert(batch.revision, stored.values().sum());
            }
            Event::Fact(Fact::ViewChanged { revision, instances: 0, .. }) => {
                let count = counts.range(..=revision).next_back().map_or(0, |(_, count)| *count);
                if count > 0 {
                    let what =
                        format!("{node} sees nobody at revision {revision}, where {count} are registered");
                    violations.push(Violation::new("D07", *at, what));
                }
            }
            _ => {}
        }
    }
    violations
}
