use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, ChildStdout, Command};
use tokio::time::timeout;

/// How long a program may take to say its next line, or to end. Far more than it needs.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// One of the examples as a process. Dropping it kills it.
pub(crate) struct Program {
    child: Child,
    output: Lines<BufReader<ChildStdout>>,
    errors: ChildStderr,
}

/// How a program ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    /// What it wrote on standard output, of what was not read before.
    pub(crate) output: Vec<String>,
    pub(crate) errors: String,
}

impl Program {
    /// Starts an example with these arguments, and with these variables of ours and no others.
    pub(crate) fn start(name: &str, arguments: &str, variables: &[(&str, String)]) -> Self {
        // The tests lie in target/<profile>/deps, the examples beside that.
        let tests = std::env::current_exe().unwrap();
        let program: PathBuf = tests.parent().unwrap().with_file_name("examples").join(name);
        assert!(program.is_file(), "{program:?} is missing: run `cargo build -p examples --examples`");
        let mut command = Command::new(program);
        command.args(arguments.split_whitespace());
        for name in ["SLIPRING_DISCOVERY", "SLIPRING_MESSAGING", "SLIPRING_DEPLOYMENT"] {
            command.env_remove(name);
        }
        Self::run(command.envs(variables.iter().map(|(name, value)| (name, value))))
    }

    /// Runs a command.
    pub(crate) fn run(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap()).lines();
        let errors = child.stderr.take().unwrap();
        Self { child, output, errors }
    }

    /// The next line on standard output, while it runs.
    pub(crate) async fn line(&mut self) -> String {
        let line = timeout(WAIT_MAX, self.output.next_line()).await.expect("it says something").unwrap();
        match line {
            Some(line) => line,
            None => {
                let mut errors = String::new();
                self.errors.read_to_string(&mut errors).await.unwrap();
                panic!("it ended: {errors}");
            }
        }
    }

    /// SIGTERM.
    pub(crate) fn terminate(&self) {
        let id = self.child.id().expect("it runs").to_string();
        let killed = std::process::Command::new("kill").args(["-TERM", &id]).status().unwrap();
        assert!(killed.success());
    }

    /// Waits until it has ended.
    pub(crate) async fn end(mut self) -> Ended {
        let ending = async {
            let mut output = Vec::new();
            while let Some(line) = self.output.next_line().await.unwrap() {
                output.push(line);
            }
            let mut errors = String::new();
            self.errors.read_to_string(&mut errors).await.unwrap();
            Ended { code: self.child.wait().await.unwrap().code(), output, errors }
        };
        timeout(WAIT_MAX, ending).await.expect("it ends")
    }
}

impl Ended {
    /// What a caller says, checked: one line, the fields in their order, and nothing else on standard output.
    pub(crate) fn report(&self) -> Value {
        assert_eq!((self.code, self.output.len()), (Some(0), 1), "{self:?}");
        let line = &self.output[0];
        let fields = ["requests", "ok", "failed", "hung", "p50_us", "p99_us"];
        let places: Vec<_> =
            fields.iter().map(|field| line.find(&format!("\"{field}\":")).unwrap()).collect();
        assert!(places.is_sorted() && line.starts_with("{\"requests\":") && !line.contains(' '), "{line}");
        let report: Value = serde_json::from_str(line).unwrap();
        assert_eq!(report.as_object().unwrap().len(), fields.len());
        report
    }
}
