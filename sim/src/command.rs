//! A command line for scenarios: `list`, `explore`, `replay`, `shrink` and `doctor`.
//!
//! A program of one's own is a list of scenarios:
//!
//! ```no_run
//! use std::process::ExitCode;
//! use std::time::Duration;
//!
//! use slipring_sim::{Scenario, Shape, World, command};
//!
//! fn main() -> ExitCode {
//!     let shape = Shape::new(["worker"], Duration::from_secs(3), Duration::from_secs(60));
//!     command::main([Scenario::new("a_worker_serves", "A worker serves", shape, async |world: World| {
//!         world.spawn_node("worker", async |node| node.note("serving"));
//!         world.calm().await;
//!     })])
//! }
//! ```

mod account;
mod arguments;
mod doctor;
mod explore;
mod replay;
mod sentry;

use std::fs;
use std::io::{self, ErrorKind, Write};
use std::panic;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use self::arguments::Order;
use crate::Scenario;

/// The whole of a program: does what the process's arguments say, and answers with 0 if no promise was broken,
/// with 1 if one was, and with 2 if it was asked for what does not exist or could not be done, which it says.
///
/// The names of the scenarios are in snake_case, each is there once, and all are such that a seed is one run.
pub fn main(scenarios: impl IntoIterator<Item = Scenario>) -> ExitCode {
    let scenarios: Vec<Scenario> = scenarios.into_iter().collect();
    let done = match check_names(&scenarios) {
        Ok(()) => arguments::read(&scenarios).and_then(|order| match order {
            Ok(order) => obey(&order),
            Err(told) => Ok(told),
        }),
        Err(problem) => Err(io::Error::other(problem)),
    };
    ExitCode::from(match done {
        Ok(Verdict::Kept) => 0,
        Ok(Verdict::Broken) => 1,
        Ok(Verdict::Misused) => 2,
        Err(error) => {
            // Whoever closed the pipe has read enough.
            if error.kind() != ErrorKind::BrokenPipe {
                let _nobody_reads = writeln!(io::stderr(), "error: {error}");
            }
            2
        }
    })
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// No promise was broken.
    Kept,
    /// One was.
    Broken,
    /// The arguments made no sense; it was said why.
    Misused,
}

/// How a command ended, or why it could not go on.
type Done = io::Result<Verdict>;

impl Verdict {
    fn of(broken: bool) -> Self {
        if broken { Self::Broken } else { Self::Kept }
    }
}

fn obey(order: &Order<'_>) -> Done {
    let out = &mut io::stdout();
    match order {
        Order::List(scenarios) => list(scenarios, out),
        Order::Explore(order) => explore::explore(order, out),
        Order::Replay(order) => replay::replay(order, out),
        Order::Shrink(order) => replay::shrink(order, out),
        Order::Doctor(order) => doctor::doctor(order, out),
    }
}

/// A line for each scenario: its name first.
fn list(scenarios: &[Scenario], out: &mut impl Write) -> Done {
    let width = scenarios.iter().map(|scenario| scenario.name().len()).max().unwrap_or(0);
    let lines =
        scenarios.iter().map(|scenario| format!("{:<width$}  {}\n", scenario.name(), scenario.shows()));
    out.write_all(lines.collect::<String>().as_bytes())?;
    Ok(Verdict::Kept)
}

/// The list itself may be wrong.
fn check_names(scenarios: &[Scenario]) -> Result<(), String> {
    for (at, scenario) in scenarios.iter().enumerate() {
        let name = scenario.name();
        let legal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        if !name.bytes().all(legal) || !name.starts_with(|first: char| first.is_ascii_lowercase()) {
            return Err(format!("the scenario name {name:?} is not in snake_case"));
        }
        if scenarios[..at].iter().any(|other| other.name() == name) {
            return Err(format!("there are two scenarios with the name {name}"));
        }
    }
    Ok(())
}

/// Does something during which panics are expected, and are told otherwise: without what the process's hook
/// would print about each.
fn quietly<T>(act: impl FnOnce() -> T) -> T {
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| {}));
    let done = act();
    panic::set_hook(hook);
    done
}

#[expect(clippy::disallowed_methods, reason = "it measures the machine, not a simulation")]
fn now() -> Instant {
    Instant::now()
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    let failed = |error| io::Error::other(format!("cannot write {}: {error}", path.display()));
    fs::write(path, text).map_err(failed)
}

/// A word of a command line, as a shell reads it.
fn quoted(word: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./=:,+@%".contains(&byte);
    if !word.is_empty() && word.bytes().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::Shape;

    fn named(names: &[&str]) -> Vec<Scenario> {
        let shape = Shape::new(["a"], Duration::from_secs(3), Duration::from_secs(3));
        names.iter().map(|name| Scenario::new(*name, "Nothing", shape.clone(), async |_| {})).collect()
    }

    /// A list in which a name is no name, or is there twice, is refused with the name.
    #[test]
    fn bad_lists_are_refused() {
        assert_eq!(check_names(&named(&["lease_expiry", "u3493_heals"])), Ok(()));
        for (names, culprit) in
            [(&["a", "b", "a"][..], "name a"), (&["Lease"], "Lease"), (&[""], "\"\""), (&["1"], "1")]
        {
            let problem = check_names(&named(names)).unwrap_err();
            assert!(problem.contains(culprit), "{problem} does not name {culprit}");
        }
    }

    /// A line to paste means the same to a shell.
    #[test]
    fn words_are_quoted() {
        assert_eq!(quoted("target/release/scenarios"), "target/release/scenarios");
        assert_eq!(quoted("my file"), "'my file'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
        assert_eq!(quoted(""), "''");
    }
}
