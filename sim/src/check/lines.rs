use std::collections::{BTreeMap, BTreeSet};

use slipring_core::{Pattern, QueueGroup, Subject};

use crate::history::Event;

/// The subscriptions that the broker routes to, followed through a history.
#[derive(Default)]
pub(super) struct Lines<'a> {
    lines: BTreeMap<u64, (&'a Pattern, Option<&'a QueueGroup>)>,
    exact: BTreeMap<&'a str, BTreeSet<u64>>,
    wild: BTreeSet<u64>,
}

impl<'a> Lines<'a> {
    pub(super) fn follow(&mut self, event: &'a Event) {
        match event {
            Event::Subscribed { line, pattern, queue } => {
                self.lines.insert(*line, (pattern, queue.as_ref()));
                if pattern.is_exact() {
                    self.exact.entry(pattern.as_str()).or_default().insert(*line);
                } else {
                    self.wild.insert(*line);
                }
            }
            Event::Unsubscribed { line } => {
                let Some((pattern, _)) = self.lines.remove(line) else { return };
                self.wild.remove(line);
                if let Some(lines) = self.exact.get_mut(pattern.as_str()) {
                    lines.remove(line);
                    if lines.is_empty() {
                        self.exact.remove(pattern.as_str());
                    }
                }
            }
            _ => {}
        }
    }

    /// Who gets a message now, and in which group.
    pub(super) fn matching(&self, subject: &Subject) -> Vec<(u64, Option<&'a QueueGroup>)> {
        let exact = self.exact.get(subject.as_str()).into_iter().flatten();
        let wild = self
            .wild
            .iter()
            .filter(|line| self.lines.get(line).is_some_and(|(pattern, _)| pattern.matches(subject)));
        let group = |line: &u64| (*line, self.lines.get(line).and_then(|(_, queue)| *queue));
        exact.chain(wild).map(group).collect()
    }

    /// Does anybody get it?
    pub(super) fn is_heard(&self, subject: &Subject) -> bool {
        !self.matching(subject).is_empty()
    }
}
