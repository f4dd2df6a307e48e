use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::fault::Fault;
use crate::history::{Event, Moment};

/// Is anything wrong in the world, and which nodes run?
#[derive(Default)]
pub(super) struct Calm<'a> {
    /// Faults that last, and have not ended.
    open: Vec<&'a Fault>,
    /// Links that were switched off by hand.
    switched: BTreeSet<&'a str>,
    /// Nodes that stand still, each as often as it was told to.
    paused: BTreeMap<Arc<str>, u32>,
    /// When a node went on last.
    resumed: BTreeMap<Arc<str>, Duration>,
    dead: BTreeSet<Arc<str>>,
    /// Nodes whose messages take so long, from now on, that nothing can be said about them.
    slow: BTreeSet<&'a str>,
    last: Duration,
}

/// Longer latencies than this one make heartbeats fail.
const LATENCY_MAX: Duration = Duration::from_millis(250);

impl<'a> Calm<'a> {
    pub(super) fn follow(&mut self, moment: &'a Moment) {
        let node = &moment.node;
        match &moment.event {
            Event::Struck(fault) => self.strike(fault),
            Event::Healed(fault) => {
                let ended = self.open.iter().position(|open| *open == fault);
                ended.map(|ended| self.open.swap_remove(ended));
            }
            Event::Link("opened") => {
                self.switched.remove(&**node);
            }
            Event::Link("cut" | "silent") => {
                self.switched.insert(node);
            }
            Event::Link(_) => {}
            Event::Paused => *self.paused.entry(node.clone()).or_default() += 1,
            Event::Resumed => {
                let pauses = self.paused.remove(node).unwrap_or_default().saturating_sub(1);
                if pauses > 0 {
                    self.paused.insert(node.clone(), pauses);
                }
                self.resumed.insert(node.clone(), moment.at);
            }
            Event::Died(_) => {
                self.dead.insert(node.clone());
                self.paused.remove(node);
                self.switched.remove(&**node);
            }
            _ => return,
        }
        self.last = moment.at;
    }

    fn strike(&mut self, fault: &'a Fault) {
        match fault {
            Fault::Latency { node, latency } => {
                if (*latency).max() > LATENCY_MAX {
                    self.slow.insert(node);
                } else {
                    self.slow.remove(&**node);
                }
            }
            // The death of a node is an event of its own.
            Fault::Crash { .. } | Fault::PowerLoss { .. } => {}
            lasting if !lasting.clone().times().is_empty() => self.open.push(lasting),
            _ => {}
        }
    }

    /// Since when nothing is wrong; `None` if something is.
    pub(super) fn since(&self) -> Option<Duration> {
        let calm = self.open.is_empty()
            && self.switched.is_empty()
            && self.paused.is_empty()
            && self.slow.is_empty();
        calm.then_some(self.last)
    }

    pub(super) fn is_paused(&self, node: &str) -> bool {
        self.paused.contains_key(node)
    }

    /// When this node went on after its last pause.
    pub(super) fn resumed(&self, node: &str) -> Option<Duration> {
        self.resumed.get(node).copied()
    }

    pub(super) fn is_dead(&self, node: &str) -> bool {
        self.dead.contains(node)
    }
}
