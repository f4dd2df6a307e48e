use std::time::Instant;

use serde_json::{Value, json};
use slipring_bench::usage::{Machine, Usage};

/// A lap in which everybody else used more cores than this does not count as quiet.
const FOREIGN_CORES_MAX: f64 = 0.2;

/// The two sides of one figure, lap by lap.
pub(crate) struct Figure {
    /// What it is, with its unit.
    pub(crate) name: &'static str,
    /// What is asked of it.
    pub(crate) goal: Goal,
    laps: Vec<Lap>,
}

/// What is asked of a figure.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Goal {
    /// Slipring's divided by the raw client's: at least this.
    AtLeast(f64),
    /// Slipring's divided by the raw client's: at most this.
    AtMost(f64),
    /// Slipring's alone: below this.
    Below(f64),
    /// Nothing: it explains another figure.
    Told,
}

struct Lap {
    ours: f64,
    raw: f64,
    quiet: bool,
}

impl Figure {
    pub(crate) fn new(name: &'static str, goal: Goal) -> Self {
        Self { name, goal, laps: Vec::new() }
    }

    /// One lap: what both sides measured, and how many cores others used meanwhile.
    pub(crate) fn add(&mut self, ours: f64, raw: f64, foreign_cores: f64) {
        self.laps.push(Lap { ours, raw, quiet: foreign_cores <= FOREIGN_CORES_MAX });
    }

    /// The median of the ratios, lap by lap; of the quiet laps, if there are any.
    pub(crate) fn print(&self, json: bool) {
        let quiet: Vec<_> = self.laps.iter().filter(|lap| lap.quiet).collect();
        let counted = if quiet.is_empty() { self.laps.iter().collect() } else { quiet.clone() };
        let ratios = sorted(counted.iter().map(|lap| lap.ours / lap.raw));
        let (ours, raw) =
            (sorted(counted.iter().map(|lap| lap.ours)), sorted(counted.iter().map(|lap| lap.raw)));
        let (ratio, laps) = (median(&ratios), self.laps.len());
        let (least, most) = (ratios[0], ratios[ratios.len() - 1]);
        let (goal, met) = match self.goal {
            Goal::AtLeast(goal) => (format!("a ratio of at least {goal}"), Some(ratio >= goal)),
            Goal::AtMost(goal) => (format!("a ratio of at most {goal}"), Some(ratio <= goal)),
            Goal::Below(goal) => (format!("below {goal}"), Some(median(&ours) < goal)),
            Goal::Told => ("none".to_owned(), None),
        };
        let line = json!({
            "figure": self.name, "ours": median(&ours), "raw": median(&raw), "ratio": ratio,
            "ratio_min": least, "ratio_max": most, "goal": goal, "met": met,
            "laps": laps, "quiet_laps": quiet.len(),
        });
        let verdict = met.map_or("", |met| if met { ": met" } else { ": MISSED" });
        let text = format!(
            "{}: slipring {:.3}, raw {:.3}, ratio {ratio:.3} ({least:.3} to {most:.3}; {} quiet of {laps} laps; goal: {goal}{verdict})",
            self.name,
            median(&ours),
            median(&raw),
            quiet.len(),
        );
        print(json, &text, &line);
    }
}

#[expect(clippy::print_stdout, reason = "the result is for the terminal")]
pub(crate) fn print(json: bool, text: &str, line: &Value) {
    if json {
        println!("{line}");
    } else {
        println!("{text}");
    }
}

pub(crate) fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_unstable_by(f64::total_cmp);
    sorted
}

/// The middle one; of two, the upper.
pub(crate) fn median(sorted: &[f64]) -> f64 {
    sorted[sorted.len() / 2]
}

#[expect(clippy::disallowed_methods, reason = "a bench measures real time")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

pub(crate) fn seconds_since(began: Instant) -> f64 {
    (now() - began).as_secs_f64()
}

/// How many cores others than these processes use, from now on.
pub(crate) struct Neighbours {
    began: Instant,
    own: Vec<u32>,
    own_s: f64,
    machine_s: f64,
}

impl Neighbours {
    /// Besides this process and those named.
    pub(crate) fn watch(others: &[u32]) -> Self {
        let own = [&[std::process::id()], others].concat();
        Self { began: now(), own_s: total(&own), own, machine_s: Machine::now().busy_s }
    }

    pub(crate) fn cores(&self) -> f64 {
        let busy = Machine::now().busy_s - self.machine_s - (total(&self.own) - self.own_s);
        (busy / seconds_since(self.began)).max(0.0)
    }
}

fn total(processes: &[u32]) -> f64 {
    processes.iter().map(|process| Usage::of(*process).total()).sum()
}
