//! The server half of a load test: the same program again, as a child process.

use std::process::Stdio;

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// What the server prints once it can take requests.
const READY: &str = "ready";

/// A running server. Killed when dropped; [`stop`](Self::stop) lets it end by itself.
pub struct Server {
    child: Child,
    /// It runs until this is closed.
    input: ChildStdin,
    _output: BufReader<ChildStdout>,
    /// Its process id.
    pub pid: u32,
}

impl Server {
    /// Starts this program with the arguments that it was given and `--serve`, and waits until that is ready.
    ///
    /// # Errors
    /// It cannot be started, or ended before it was ready.
    pub async fn start() -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(std::env::args_os().skip(1))
            .args(["--serve", &std::process::id().to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let pid = child.id().context("the server has no process id")?;
        let input = child.stdin.take().context("the server has no input")?;
        let mut output = BufReader::new(child.stdout.take().context("the server has no output")?);
        let mut line = String::new();
        output.read_line(&mut line).await?;
        if line.trim() != READY {
            bail!("the server ended before it was ready");
        }
        Ok(Self { child, input, _output: output, pid })
    }

    /// Lets it end in order.
    ///
    /// # Errors
    /// Those of waiting for it.
    pub async fn stop(mut self) -> Result<()> {
        drop(self.input);
        self.child.wait().await?;
        Ok(())
    }
}

/// Called by the server half once it can take requests; resolves when its client is done.
///
/// # Errors
/// Those of reading the standard input.
#[expect(clippy::print_stdout, reason = "the client reads it")]
pub async fn until_closed() -> Result<()> {
    println!("{READY}");
    tokio::io::stdin().read_to_end(&mut Vec::new()).await?;
    Ok(())
}
