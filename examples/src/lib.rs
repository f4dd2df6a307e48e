//! What the programs `worker` and `caller` are made with: how they read their arguments, where their words go,
//! and how calls are counted.

mod tally;

use std::collections::BTreeMap;
use std::io::Write;
use std::process::ExitCode;
use std::str::FromStr;

use slipring::name::Reference;

pub use self::tally::{Outcome, Tally};

/// The arguments of a program: `--name value` for the names that take a value, `--name` for flags.
#[derive(Debug, Default)]
pub struct Arguments {
    values: BTreeMap<String, String>,
    flags: Vec<String>,
}

impl Arguments {
    /// Reads the arguments, of which these and no others are known.
    ///
    /// # Errors
    /// What is wrong with them, for people.
    pub fn read(
        arguments: impl IntoIterator<Item = String>,
        values: &[&str],
        flags: &[&str],
    ) -> Result<Self, String> {
        let mut read = Self::default();
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            let name = argument.strip_prefix("--").unwrap_or_default().to_owned();
            if flags.contains(&name.as_str()) {
                read.flags.push(name);
            } else if values.contains(&name.as_str()) {
                let value = arguments.next().ok_or_else(|| format!("{argument} needs a value"))?;
                if read.values.insert(name, value).is_some() {
                    return Err(format!("{argument} is given twice"));
                }
            } else {
                return Err(format!("unknown argument {argument:?}"));
            }
        }
        Ok(read)
    }

    /// Is this flag given?
    pub fn flag(&self, name: &str) -> bool {
        self.flags.iter().any(|flag| flag == name)
    }

    /// The value of this name, if it is given.
    ///
    /// # Errors
    /// Naming the argument, if its value is not of the wanted type.
    pub fn value<T: FromStr<Err: ToString>>(&self, name: &str) -> Result<Option<T>, String> {
        let Some(text) = self.values.get(name) else { return Ok(None) };
        text.parse().map(Some).map_err(|error: T::Err| format!("--{name} {text:?}: {}", error.to_string()))
    }

    /// The endpoint that `--endpoint` names; with `--demo` it may be left out.
    ///
    /// # Errors
    /// If it is missing, or is none.
    pub fn endpoint(&self) -> Result<Reference, String> {
        match self.value("endpoint")? {
            Some(endpoint) => Ok(endpoint),
            None if self.flag("demo") => {
                Ok("demo.worker.echo".parse().expect("it is written as it should be"))
            }
            None => Err("--endpoint is missing".to_owned()),
        }
    }

    /// The number of this name, which is at least 1, if it is given.
    ///
    /// # Errors
    /// Naming the argument.
    pub fn count(&self, name: &str) -> Result<Option<u64>, String> {
        match self.value(name)? {
            Some(0) => Err(format!("--{name} 0: it must be at least 1")),
            count => Ok(count),
        }
    }
}

/// Says on standard error what is wrong with the arguments and which there are. Returns the exit code for it.
#[expect(clippy::print_stderr, reason = "this is a program")]
pub fn refuse(problem: &str, usage: &str) -> ExitCode {
    eprintln!("{problem}\n{usage}");
    ExitCode::from(2)
}

/// Says on standard error why the program cannot go on. Returns the exit code for it.
#[expect(clippy::print_stderr, reason = "this is a program")]
pub fn fail(problem: impl ToString) -> ExitCode {
    eprintln!("{}", problem.to_string());
    ExitCode::FAILURE
}

/// Writes a line on standard output, at once. If nobody reads it any more, that is no reason to end.
pub fn say(line: impl ToString) {
    let mut output = std::io::stdout().lock();
    let _ = writeln!(output, "{}", line.to_string()).and_then(|()| output.flush());
}

/// What the library warns of goes to standard error, so that standard output holds results alone.
pub fn log_to_stderr() {
    let warnings = tracing_subscriber::fmt().with_max_level(tracing::Level::WARN);
    warnings.with_writer(std::io::stderr).with_ansi(false).init();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Arguments, String> {
        Arguments::read(line.split_whitespace().map(str::to_owned), &["name", "n"], &["demo"])
    }

    /// Values and flags are found, and may be missing.
    #[test]
    fn arguments_are_found() {
        let arguments = read("--n 7 --demo").unwrap();
        assert_eq!(arguments.count("n"), Ok(Some(7)));
        assert_eq!(arguments.value::<String>("name"), Ok(None));
        assert!(arguments.flag("demo") && !read("").unwrap().flag("demo"));
    }

    /// What is wrong is named: an argument that does not exist, a missing value, one that is no number.
    #[test]
    fn mistakes_are_named() {
        for (line, words) in [
            ("--nme x", "unknown argument \"--nme\""),
            ("name", "unknown argument \"name\""),
            ("--", "unknown argument \"--\""),
            ("--n", "--n needs a value"),
            ("--n 1 --n 2", "--n is given twice"),
        ] {
            assert_eq!(read(line).unwrap_err(), words);
        }
        assert!(read("--n x").unwrap().count("n").unwrap_err().contains("--n \"x\": invalid digit"));
        assert!(read("--n 0").unwrap().count("n").unwrap_err().contains("at least 1"));
    }
}
