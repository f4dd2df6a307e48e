use std::io::{self, Write};
use std::path::PathBuf;
use std::process::Command;

use super::arguments::{Doctor, Run};
use super::{Done, Verdict};
use crate::doctor::{compare, scan_tree};

/// Looks for leaks in the sources, and runs a seed in two processes. If they part, tells where, and which leak
/// may have done it; else tells all leaks.
pub(super) fn doctor(order: &Doctor<'_>, out: &mut impl Write) -> Done {
    let Doctor { run, sources } = order;
    let found = sources.iter().map(|source| scan_tree(source)).collect::<io::Result<Vec<_>>>()?.concat();
    let (name, seed) = (run.scenario.name(), run.seed);
    let (one, other) = (trace(run, 1)?, trace(run, 2)?);
    if let Some(difference) = compare(&one, &other, &found) {
        write!(out, "{name}, seed {seed}: {difference}")?;
        return Ok(Verdict::Broken);
    }
    writeln!(out, "{name}, seed {seed}: two processes agree on all of {} events", one.lines().count())?;
    if !found.is_empty() {
        writeln!(out, "Other seeds may come to differ by what stands in the sources:")?;
        found.iter().try_for_each(|finding| writeln!(out, "  {finding}"))?;
    }
    Ok(Verdict::Kept)
}

/// The trace of a seed that another process runs.
fn trace(run: &Run<'_>, number: u32) -> io::Result<String> {
    let path = format!("slipring-trace-{}-{number}", std::process::id());
    let path: PathBuf = std::env::temp_dir().join(path);
    let mut process = Command::new(std::env::current_exe()?);
    process.args(["replay", "--scenario", run.scenario.name(), "--engine", run.engine.name()]);
    process.arg("--seed").arg(run.seed.to_string()).arg("--trace").arg(&path);
    process.output()?;
    let trace = std::fs::read_to_string(&path);
    let _left_behind = std::fs::remove_file(&path);
    trace
}
