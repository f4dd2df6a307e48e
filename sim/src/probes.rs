//! Rare situations: which of them did the seeds meet?
//!
//! A run without a violation says little if nothing interesting happened in it. A probe is a situation with a
//! name that is recognised in a history; [`Probes`] counts in how many runs each was met, and says which never
//! were. Programs and scenarios add probes of their own with [`Node::sometimes`](crate::Node::sometimes).

mod calls;
mod faults;
mod known;
mod leases;
mod watches;
mod writes;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

pub use self::known::KNOWN;
use crate::history::{Event, History};

/// In how many runs each rare situation was met. Values of several runs, threads and machines add up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Probes {
    runs: u64,
    met: BTreeMap<String, u64>,
}

impl Probes {
    /// Of no run.
    pub fn new() -> Self {
        Self::default()
    }

    /// Of one run.
    pub fn of(history: &History) -> Self {
        let mut met = Met::default();
        leases::look(history, &mut met);
        writes::look(history, &mut met);
        watches::look(history, &mut met);
        faults::look(history, &mut met);
        calls::look(history, &mut met);
        let own = history.moments().iter().filter_map(|moment| match &moment.event {
            Event::Sometimes(name) => Some(name.clone()),
            _ => None,
        });
        let names = met.0.into_iter().map(str::to_owned).chain(own);
        Self { runs: 1, met: names.map(|name| (name, 1)).collect() }
    }

    /// Adds the runs of another one.
    pub fn merge(&mut self, other: &Self) {
        self.runs += other.runs;
        for (name, runs) in &other.met {
            *self.met.entry(name.clone()).or_default() += runs;
        }
    }

    /// How many runs were counted.
    pub fn runs(&self) -> u64 {
        self.runs
    }

    /// In how many of them this situation was met.
    pub fn met(&self, name: &str) -> u64 {
        self.met.get(name).copied().unwrap_or_default()
    }

    /// All situations, known and of programs, each with in how many runs it was met; the known ones first.
    pub fn all(&self) -> impl Iterator<Item = (&str, u64)> {
        let known: BTreeSet<&str> = KNOWN.iter().map(|(name, _)| *name).collect();
        let own = self.met.keys().map(String::as_str).filter(move |name| !known.contains(name));
        KNOWN.iter().map(|(name, _)| *name).chain(own).map(|name| (name, self.met(name)))
    }

    /// The [known](KNOWN) situations that no run met, in their order.
    pub fn never(&self) -> Vec<&'static str> {
        KNOWN.iter().map(|(name, _)| *name).filter(|name| self.met(name) == 0).collect()
    }

    /// What is expected, and no run met.
    pub fn missing<'a>(&self, expected: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
        expected.into_iter().filter(|name| self.met(name) == 0).collect()
    }
}

/// A line for each situation: in how many runs it was met, its name, and what it is; those of programs last.
impl fmt::Display for Probes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, what) in KNOWN {
            writeln!(f, "{:>8} {name:<NAME_CHARS$} {what}", self.met(name))?;
        }
        let known: BTreeSet<&str> = KNOWN.iter().map(|(name, _)| *name).collect();
        let own = self.met.iter().filter(|(name, _)| !known.contains(name.as_str()));
        own.into_iter().try_for_each(|(name, runs)| writeln!(f, "{runs:>8} {name}"))
    }
}

/// The width of the column of names.
const NAME_CHARS: usize = 40;

/// What one run met.
#[derive(Default)]
struct Met(BTreeSet<&'static str>);

impl Met {
    fn add(&mut self, name: &'static str) {
        debug_assert!(KNOWN.iter().any(|(known, _)| *known == name), "{name} is not in the list");
        self.0.insert(name);
    }

    fn add_if(&mut self, met: bool, name: &'static str) {
        if met {
            self.add(name);
        }
    }
}
