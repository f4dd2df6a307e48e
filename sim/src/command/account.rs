//! What is told about runs.

use std::collections::BTreeSet;
use std::io::{self, Write};

use super::arguments::Run;
use super::quietly;
use crate::check::Violation;
use crate::history::{Event, Moment};
use crate::{Outcome, Scenario};

/// Tells of a run. If it broke a promise: which one, in words; the few events that matter; what becomes of the
/// failure when each part of the schedule is taken away; and, last, the line that shows it again.
pub(super) fn tell(run: &Run<'_>, outcome: &Outcome, out: &mut impl Write) -> io::Result<()> {
    let Some(first) = outcome.violations.first() else {
        return tell_kept(run.scenario, outcome, out);
    };
    writeln!(out, "{}, seed {}, breaks a promise:", run.scenario.name(), outcome.seed)?;
    for violation in outcome.violations.iter().take(VIOLATIONS_MAX) {
        writeln!(out, "  {violation}")?;
    }
    if let Some(more @ 1..) = outcome.violations.len().checked_sub(VIOLATIONS_MAX) {
        writeln!(out, "  and {more} more")?;
    }
    let moments = outcome.report.history.moments();
    let matter = that_matter(moments, first);
    writeln!(out, "\nThe events that matter, {} of {}:", matter.len(), moments.len())?;
    for moment in matter {
        writeln!(out, "{moment}")?;
    }
    tell_causes(run, outcome, first, out)?;
    writeln!(out, "\nTo see it again:\n{}", run.line())
}

/// How many violations of a run are shown.
const VIOLATIONS_MAX: usize = 5;

fn tell_kept(scenario: &Scenario, outcome: &Outcome, out: &mut impl Write) -> io::Result<()> {
    let moments = outcome.report.history.moments();
    let end = moments.last().map(|moment| moment.at).unwrap_or_default();
    let (name, seed) = (scenario.name(), outcome.seed);
    writeln!(
        out,
        "{name}, seed {seed}, keeps all promises: {} events in {end:?}, hash {:016x}",
        moments.len(),
        outcome.hash
    )
}

/// A failure in a line, and below it the line that shows it.
pub(super) fn tell_briefly(run: &Run<'_>, outcome: &Outcome, out: &mut impl Write) -> io::Result<()> {
    let Some(first) = outcome.violations.first() else { return Ok(()) };
    writeln!(out, "{}, seed {}: {first}\n{}", run.scenario.name(), outcome.seed, run.line())
}

/// One after the other, each part of the schedule is taken away.
fn tell_causes(run: &Run<'_>, outcome: &Outcome, first: &Violation, out: &mut impl Write) -> io::Result<()> {
    let parts = outcome.schedule.parts();
    if parts.is_empty() {
        return writeln!(out, "\nNothing was asked of anybody, and nothing went wrong before.");
    }
    let width = parts.iter().map(|(part, _)| part.len()).max().unwrap_or(0);
    writeln!(out, "\nWhat was asked and what went wrong, and what the run does without it:")?;
    for (part, rest) in parts {
        let without = quietly(|| run.scenario.replay_on(run.engine, run.seed, rest));
        let becomes = match without.violations.first() {
            None => "keeps all promises".to_owned(),
            Some(_) if without.breaks(first.invariant) => format!("breaks {} too", first.invariant),
            Some(other) => format!("breaks {} instead", other.invariant),
        };
        writeln!(out, "  {part:<width$}  {becomes}")?;
    }
    Ok(())
}

/// What a violation is about, if it says so, and otherwise what came last before it; and before that, what had
/// been asked and what had gone wrong.
fn that_matter<'a>(moments: &'a [Moment], violation: &Violation) -> Vec<&'a Moment> {
    let end = moments.partition_point(|moment| moment.at <= violation.at);
    let grave = |at: &usize| {
        use Event::{Asked, Died, Healed, Panicked, Struck};
        matches!(moments[*at].event, Struck(_) | Healed(_) | Died(_) | Asked(_) | Panicked { .. })
    };
    let mut matter: BTreeSet<usize> = (0..end).rev().filter(grave).take(GRAVE_EVENTS_MAX).collect();
    if violation.moments.is_empty() {
        matter.extend(end.saturating_sub(LAST_EVENTS)..end);
    }
    matter.extend(violation.moments.iter().filter(|at| **at < moments.len()));
    matter.into_iter().map(|at| &moments[at]).collect()
}

/// How many of the events right before a violation are shown.
const LAST_EVENTS: usize = 8;
/// How many of the graver events up to there are shown.
const GRAVE_EVENTS_MAX: usize = 12;
