use std::io::{self, Write};
use std::path::PathBuf;
use std::process::Command;

use super::arguments::Run;
use super::{Done, Verdict};

/// Runs a seed in two processes, and tells where they part, if they do.
pub(super) fn doctor(run: &Run<'_>, out: &mut impl Write) -> Done {
    let (one, other) = (trace(run, 1)?, trace(run, 2)?);
    let (name, seed) = (run.scenario.name(), run.seed);
    let Some(line) = first_difference(&one, &other) else {
        writeln!(out, "{name}, seed {seed}: two processes agree on all of {} events", one.lines().count())?;
        return Ok(Verdict::Kept);
    };
    writeln!(out, "{name}, seed {seed}: two processes part at event {}", line + 1)?;
    for (which, trace) in [("one", &one), ("the other", &other)] {
        writeln!(out, "{which:<10} {}", trace.lines().nth(line).unwrap_or("(it is over)"))?;
    }
    Ok(Verdict::Broken)
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

/// The place of the first line in which two traces differ.
fn first_difference(one: &str, other: &str) -> Option<usize> {
    let (mut one, mut other) = (one.lines(), other.lines());
    for line in 0.. {
        match (one.next(), other.next()) {
            (None, None) => return None,
            (one, other) if one == other => {}
            _ => return Some(line),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first line that differs is found, also where one trace is the beginning of the other.
    #[test]
    fn the_first_difference_is_found() {
        assert_eq!(first_difference("a\nb\n", "a\nb\n"), None);
        assert_eq!(first_difference("a\nb\nc\n", "a\nx\nc\n"), Some(1));
        assert_eq!(first_difference("a\n", "a\nb\n"), Some(1));
        assert_eq!(first_difference("", ""), None);
    }
}
