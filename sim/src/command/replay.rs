use std::io::Write;

use super::arguments::{Replay, Run, Shrink};
use super::{Done, Verdict, account, quietly, write};
use crate::Trace;
use crate::picture::Picture;

/// Runs a seed, keeps what is to be kept of it, and tells of it.
pub(super) fn replay(order: &Replay<'_>, out: &mut impl Write) -> Done {
    let outcome = order.run.outcome(out)?;
    if let Some(path) = &order.trace {
        write(path, Trace::from(&outcome.report.history).as_str())?;
    }
    if let Some(path) = &order.html {
        let title = format!("{}, seed {}", order.run.scenario.name(), outcome.seed);
        let picture = Picture::new(&outcome.report.history).with_violations(&outcome.violations);
        write(path, &picture.with_title(title).with_reproduction(order.run.line()).to_html())?;
    }
    account::tell(&order.run, &outcome, out)?;
    Ok(Verdict::of(!outcome.violations.is_empty()))
}

/// Runs a seed, and makes the schedule small under which it breaks a promise, if it does.
pub(super) fn shrink(order: &Shrink<'_>, out: &mut impl Write) -> Done {
    let Run { scenario, seed, engine, patience, .. } = order.run;
    let outcome = quietly(|| order.run.outcome(out))?;
    let Some(first) = outcome.violations.first() else {
        account::tell(&order.run, &outcome, out)?;
        return Ok(Verdict::Kept);
    };
    let smallest = quietly(|| scenario.shrink_on(engine, seed, &outcome.schedule, first.invariant));
    let [before, after] = [&outcome.schedule, &smallest].map(|schedule| {
        format!("{} operations and {} faults", schedule.operations().len(), schedule.faults().len())
    });
    writeln!(out, "{}, seed {seed}, breaks {} with {before}; {after} do:", scenario.name(), first.invariant)?;
    match &order.out {
        None => {
            writeln!(out, "\n{}\n", smallest.to_json())?;
            account::tell(&order.run, &scenario.replay_on(engine, seed, smallest), out)?;
        }
        Some(path) => {
            write(path, &(smallest.to_json() + "\n"))?;
            let run = Run { scenario, seed, engine, patience, schedule: Some((path.clone(), smallest)) };
            account::tell(&run, &quietly(|| run.outcome(out))?, out)?;
        }
    }
    Ok(Verdict::Broken)
}
