use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use slipring_core::Fact;

use super::calm::Calm;
use super::{Findings, Terms};
use crate::history::{Event, History, Moment};

/// C1, M8, M12, M14: calls of the component model, at both ends.
pub(super) fn check(history: &History, terms: &Terms, found: &mut Findings<'_>) {
    let (calm, open, instances) = Default::default();
    let mut calls = Calls { terms, calm, open, instances, next_due: Duration::MAX };
    let mut looked = Duration::ZERO;
    for (place, moment) in history.moments().iter().enumerate() {
        calls.calm.follow(moment);
        // Nothing is too late before time has passed.
        if moment.at > looked {
            looked = moment.at;
            calls.find_late(place, moment.at, found);
        }
        match &moment.event {
            Event::Fact(fact) => calls.fact(place, moment, fact, found),
            Event::Died(_) => calls.end_node(moment),
            _ => {}
        }
    }
}

struct Calls<'a> {
    terms: &'a Terms,
    calm: Calm<'a>,
    /// By node and number; several runtimes of a node may number alike.
    open: BTreeMap<(Arc<str>, u64), Vec<Call>>,
    instances: BTreeMap<Arc<str>, BTreeMap<u64, Instance>>,
    /// No call is due earlier.
    next_due: Duration,
}

struct Call {
    endpoint: Arc<str>,
    began: Duration,
    due: Duration,
    place: usize,
    any: bool,
}

/// An instance of an endpoint, wherever it is.
#[derive(Default)]
struct Instance {
    node: Option<Arc<str>>,
    chosen: u64,
    accepted: u64,
    working: u64,
    /// Since when it serves.
    serves: Option<Duration>,
    /// When it began to stop.
    stops: Option<(Duration, usize)>,
    drained: Option<usize>,
}

/// Errors that a caller who may go elsewhere never has to see because of a stop.
const OF_A_STOP: [&str; 6] =
    ["draining", "lease_lost", "no_instances", "no_responders", "stream_interrupted", "unavailable"];

impl<'a> Calls<'a> {
    fn fact(&mut self, place: usize, moment: &'a Moment, fact: &'a Fact, found: &mut Findings<'_>) {
        let at = moment.at;
        match fact {
            Fact::CallStarted { endpoint, call, deadline, any } => {
                let (endpoint, due) = (endpoint.clone(), at.saturating_add(*deadline));
                self.next_due = self.next_due.min(due);
                let call_of = Call { endpoint, began: at, due, place, any: *any };
                self.open.entry((moment.node.clone(), *call)).or_default().push(call_of);
            }
            Fact::CallEnded { call, code } => {
                let name = (moment.node.clone(), *call);
                let Some(calls) = self.open.get_mut(&name) else { return };
                let call = calls.remove(0);
                if calls.is_empty() {
                    self.open.remove(&name);
                }
                if let Some(code) = code.filter(|code| OF_A_STOP.contains(code)) {
                    self.judge_failure(place, &call, code, found);
                }
            }
            Fact::RouteChosen { endpoint, instance, .. } => self.instance(endpoint, *instance).chosen += 1,
            Fact::RequestAccepted { endpoint, instance, .. } => {
                let foreign = self.terms.foreign_calls;
                let of = self.instance(endpoint, *instance);
                of.accepted += 1;
                of.working += 1;
                if !foreign && of.accepted > of.chosen {
                    let what =
                        format!("{endpoint} {instance:x} accepts request {} of {}", of.accepted, of.chosen);
                    found.add("M8", [place], what);
                }
                if let Some(drained) = of.drained {
                    let what = format!("{endpoint} {instance:x} accepts a request, and is drained");
                    found.add("M12", [drained, place], what);
                }
            }
            Fact::RequestEnded { endpoint, instance } => {
                let of = self.instance(endpoint, *instance);
                of.working = of.working.saturating_sub(1);
            }
            Fact::LifecycleChanged { endpoint, instance, step } => {
                self.turn(place, moment, endpoint, *instance, step, found);
            }
            _ => {}
        }
    }

    fn turn(
        &mut self,
        place: usize,
        moment: &Moment,
        endpoint: &Arc<str>,
        instance: u64,
        step: &str,
        found: &mut Findings<'_>,
    ) {
        let settled = self.is_settled(moment.at);
        let of = self.instance(endpoint, instance);
        of.node = Some(moment.node.clone());
        match step {
            "created" => (of.drained, of.stops) = (None, None),
            "running" | "healthy" => drop(of.serves.get_or_insert(moment.at)),
            "stopping" => (of.serves, of.stops) = (None, Some((moment.at, place))),
            "deregistered" => {
                if settled && of.working > 0 {
                    let what = format!("{endpoint} {instance:x} is drained, and works on {}", of.working);
                    found.add("M12", [place], what);
                }
                of.drained = Some(place);
            }
            _ => {}
        }
    }

    fn end_node(&mut self, moment: &Moment) {
        self.open.retain(|(node, _), _| *node != moment.node);
        for of in self.instances.values_mut().flat_map(BTreeMap::values_mut) {
            if of.node.as_ref() == Some(&moment.node) {
                of.serves = None;
            }
        }
    }

    /// M14: a call that fails while an instance stops, and another one was there all the time.
    fn judge_failure(&self, place: usize, call: &Call, code: &str, found: &mut Findings<'_>) {
        let Some(instances) = self.instances.get(&call.endpoint).filter(|_| call.any) else { return };
        let settled = self.terms.settled_within;
        let stays = |of: &Instance| of.serves.is_some_and(|since| since + settled <= call.began);
        let stops = |of: &Instance| of.stops.filter(|(at, _)| *at + settled >= call.began);
        let stopped = instances.values().find_map(stops);
        if let Some((_, stopped)) = stopped
            && instances.values().any(stays)
            && self.is_settled(call.began)
        {
            let what = format!("a call to {} fails ({code}) while an instance stops", call.endpoint);
            found.add("M14", [call.place, stopped, place], what);
        }
    }

    /// Has all been calm since a while before `from`?
    fn is_settled(&self, from: Duration) -> bool {
        let settled = self.terms.settled_within;
        self.calm.since().is_some_and(|calm| calm.is_zero() || calm + settled <= from)
    }

    /// C1.
    fn find_late(&mut self, place: usize, now: Duration, found: &mut Findings<'_>) {
        let slack = self.terms.call_slack;
        if now <= self.next_due.saturating_add(slack) {
            return;
        }
        let calm = &self.calm;
        for ((node, number), calls) in &mut self.open {
            let woken = calm.resumed(node).unwrap_or_default();
            calls.retain(|call| {
                let late = now > call.due.max(woken).saturating_add(slack) && !calm.is_paused(node);
                if late {
                    let what =
                        format!("call {number} of {node} to {} goes on after its deadline", call.endpoint);
                    found.add("C1", [call.place, place], what);
                }
                !late
            });
        }
        self.open.retain(|_, calls| !calls.is_empty());
        let due = self.open.values().flatten().map(|call| call.due);
        self.next_due = due.min().unwrap_or(Duration::MAX);
    }

    fn instance(&mut self, endpoint: &Arc<str>, instance: u64) -> &mut Instance {
        self.instances.entry(endpoint.clone()).or_default().entry(instance).or_default()
    }
}
