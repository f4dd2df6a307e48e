use std::collections::BTreeMap;

use serde::Serialize;

use super::scene::micros;
use crate::history::{Event, History, Moment};

/// A row of the picture.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Lane {
    pub(super) name: String,
    pub(super) role: Role,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Role {
    Scenario,
    Broker,
    Node,
}

/// The rows: the scenario, if it said something; the broker with its store; and the nodes in the order in which
/// they appeared, each with all its lives.
#[derive(Debug)]
pub(super) struct Lanes {
    lanes: Vec<Lane>,
    numbers: BTreeMap<String, usize>,
}

impl Lanes {
    pub(super) fn of(history: &History) -> Self {
        let mut lanes = vec![Lane { name: BROKER.to_owned(), role: Role::Broker }];
        let struck = history.moments().iter().filter_map(|moment| match &moment.event {
            Event::Struck(fault) => fault.node(),
            _ => None,
        });
        for name in history.moments().iter().map(|moment| place(&moment.node)).chain(struck) {
            if lanes.iter().all(|lane| lane.name != name) {
                let role = if name == SCENARIO { Role::Scenario } else { Role::Node };
                lanes.push(Lane { name: name.to_owned(), role });
            }
        }
        lanes.sort_by_key(|lane| lane.role);
        let numbers = lanes.iter().enumerate().map(|(number, lane)| (lane.name.clone(), number)).collect();
        Self { lanes, numbers }
    }

    /// The row of a name in a history.
    pub(super) fn number(&self, node: &str) -> usize {
        *self.numbers.get(place(node)).unwrap_or(&self.broker())
    }

    pub(super) fn broker(&self) -> usize {
        self.numbers[BROKER]
    }

    pub(super) fn into_vec(self) -> Vec<Lane> {
        self.lanes
    }
}

const BROKER: &str = "broker";
const STORE: &str = "store";
const SCENARIO: &str = "scenario";

/// Where a node lives: its name without the number of its life. The store is the broker's.
fn place(node: &str) -> &str {
    if node == STORE {
        return BROKER;
    }
    match node.rsplit_once('#') {
        Some((name, life)) if !life.is_empty() && life.bytes().all(|c| c.is_ascii_digit()) => name,
        _ => node,
    }
}

/// A life of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Life {
    pub(super) lane: usize,
    pub(super) name: String,
    pub(super) from: u64,
    pub(super) to: u64,
    /// How it ended, if it did.
    pub(super) death: Option<String>,
}

pub(super) fn lives(moments: &[Moment], lanes: &Lanes, end: u64) -> Vec<Life> {
    let mut lives: Vec<Life> = Vec::new();
    for moment in moments {
        match &moment.event {
            Event::Began => lives.push(Life {
                lane: lanes.number(&moment.node),
                name: moment.node.to_string(),
                from: micros(moment.at),
                to: end,
                death: None,
            }),
            Event::Died(death) => {
                if let Some(life) = lives.iter_mut().rev().find(|life| *life.name == *moment.node) {
                    (life.to, life.death) = (micros(moment.at), Some(death.to_string()));
                }
            }
            _ => {}
        }
    }
    lives
}
