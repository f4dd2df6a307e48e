use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use slipring_core::{Change, Fact};
use slipring_memory::store::StoreEvent;

use super::Met;
use crate::check::names::{bare, record_key};
use crate::history::{Event, History, Moment};

pub(super) fn look(history: &History, met: &mut Met) {
    let mut calls = Calls::default();
    for moment in history.moments() {
        calls.step(moment, met);
    }
}

#[derive(Default)]
struct Calls {
    /// Calls under way, by node: which, since when, and to whom they went. A route names no call, so only a
    /// node with a single one tells anything.
    open: BTreeMap<Arc<str>, BTreeMap<u64, Routed>>,
    stopping: BTreeSet<(Arc<str>, u64)>,
    /// Requests that are worked on, by record.
    working: BTreeMap<String, u64>,
    outlived: BTreeSet<String>,
    cut: BTreeSet<u64>,
}

/// When a call began, and to whom it went.
type Routed = (Duration, BTreeSet<u64>);

impl Calls {
    fn step(&mut self, moment: &Moment, met: &mut Met) {
        match &moment.event {
            Event::Fact(fact) => self.fact(moment, fact, met),
            Event::Store { event: StoreEvent::Committed(batch), .. } => {
                let deleted = batch.changes.iter().filter_map(|change| match change {
                    Change::Delete(key) => bare(key.as_str()),
                    Change::Put(_) => None,
                });
                let busy = deleted.filter(|name| self.working.get(*name).is_some_and(|working| *working > 0));
                self.outlived.extend(busy.map(str::to_owned));
            }
            Event::Unsubscribed { line } => drop(self.cut.insert(*line)),
            Event::Subscribed { line, .. } => met.add_if(self.cut.remove(line), "subscription_restored"),
            Event::Lagged { missed, .. } => met.add_if(*missed > 0, "messages_missed"),
            _ => {}
        }
    }

    fn fact(&mut self, moment: &Moment, fact: &Fact, met: &mut Met) {
        let of_node = self.open.entry(moment.node.clone()).or_default();
        match fact {
            Fact::CallStarted { call, .. } => drop(of_node.insert(*call, (moment.at, BTreeSet::new()))),
            Fact::CallEnded { call, code } => {
                of_node.remove(call);
                met.add_if(*code == Some("deadline_exceeded"), "call_ended_at_its_deadline");
            }
            Fact::RouteChosen { instance, .. } if of_node.len() == 1 => {
                let Some((began, routes)) = of_node.values_mut().next() else { return };
                met.add_if(routes.is_empty() && moment.at > *began, "call_waited_for_an_instance");
                met.add_if(routes.insert(*instance) && routes.len() == 2, "retried_on_another_instance");
            }
            Fact::RequestAccepted { endpoint, instance, epoch } => {
                met.add_if(epoch.is_none(), "accepted_without_lease");
                let stopping = self.stopping.contains(&(endpoint.clone(), *instance));
                met.add_if(stopping, "accepted_while_stopping");
                *self.working.entry(record_key(endpoint, *instance)).or_default() += 1;
            }
            Fact::RequestEnded { endpoint, instance } => {
                let name = record_key(endpoint, *instance);
                met.add_if(self.outlived.remove(&name), "request_outlived_record");
                if let Some(working) = self.working.get_mut(&name) {
                    *working = working.saturating_sub(1);
                }
            }
            Fact::LifecycleChanged { endpoint, instance, step: "stopping" } => {
                self.stopping.insert((endpoint.clone(), *instance));
            }
            _ => {}
        }
    }
}
