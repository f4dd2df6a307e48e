//! A worker in a process of its own: this test program again, started with the servers' addresses.

use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::{StreamExt, stream};
use slipring::{Client, Context, DistributedRuntime, Fault, LeaseState, Plane, TcpPlane};
use slipring_servers::Version;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

use crate::backends::{Backends, WORK, etcd_at, nats_at, settings};

/// The variables that make a worker of this program.
const ETCD: &str = "SLIPRING_LIVE_ETCD";
const NATS: &str = "SLIPRING_LIVE_NATS";
/// How a worker takes part in the planes over TCP, as in production.
const TCP: &str = "SLIPRING_TCP";
/// How long a worker counts at each number.
const STEP: Duration = Duration::from_millis(5);
/// How long a start or a stop of a process may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where the servers are, and how workers are called.
#[derive(Debug, Clone)]
pub(crate) struct Addresses {
    /// The members of the etcd cluster.
    pub(crate) etcd: Vec<String>,
    /// The nats-server.
    pub(crate) nats: String,
    /// The plane that all calls take.
    pub(crate) plane: Plane,
}

impl Addresses {
    /// A runtime for calls, on connections of its own.
    pub(crate) async fn caller(&self) -> DistributedRuntime {
        let listens = self.plane == Plane::NatsTcp;
        self.runtime(if listens { "tcp://127.0.0.1" } else { "tcp:" }).await
    }

    /// How the workers take part in the planes over TCP.
    fn tcp_of_workers(&self) -> &'static str {
        match self.plane {
            Plane::Tcp => "tcp://127.0.0.1",
            Plane::NatsTcp => "tcp:?call_home=true",
            _ => "tcp:",
        }
    }

    async fn runtime(&self, tcp: &str) -> DistributedRuntime {
        let tcp: TcpPlane = tcp.parse().unwrap();
        let builder = DistributedRuntime::builder().settings(settings(|_| {})).tcp(tcp);
        let builder = builder.discovery(etcd_at(self.etcd.clone())).messaging(nats_at(self.nats.clone()));
        builder.build().await.unwrap()
    }
}

/// A process that serves [`WORK`]: it counts to what it is asked for. Dropping it kills the process.
#[derive(Debug)]
pub(crate) struct Worker {
    child: Child,
    /// The id of its instance.
    pub(crate) id: u64,
    /// What it has said so far.
    said: Arc<Mutex<Vec<String>>>,
}

impl Worker {
    /// Starts it, and waits until it is registered.
    pub(crate) async fn start(addresses: &Addresses) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", "worker::a_process_serves_until_it_is_told_to_stop", "--nocapture"])
            .env(ETCD, addresses.etcd.join(","))
            .env(NATS, &addresses.nats)
            .env(TCP, addresses.tcp_of_workers())
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let id = timeout(PATIENCE, registered(&mut lines)).await.expect("a worker registers");
        let said = Arc::<Mutex<Vec<String>>>::default();
        let noted = said.clone();
        let mut reading = tokio::task::JoinSet::new();
        reading.spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                noted.lock().unwrap().push(line);
            }
        });
        reading.detach_all();
        Self { child, id, said }
    }

    /// Fails if it has ended by itself.
    pub(crate) fn assert_running(&mut self) {
        let ended = self.child.try_wait().unwrap();
        assert!(ended.is_none(), "worker {:x} ended by itself: {ended:?}, {:?}", self.id, self.said());
    }

    /// SIGKILL.
    pub(crate) async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    /// SIGTERM; waits for the end, and returns how many requests it says that it served in all.
    pub(crate) async fn terminate(mut self) -> u64 {
        let id = self.child.id().unwrap().to_string();
        let told = Command::new("kill").args(["-TERM", &id]).status().await.unwrap();
        assert!(told.success());
        let status: ExitStatus =
            timeout(PATIENCE, self.child.wait()).await.expect("a stop is bounded").unwrap();
        let said = self.said();
        assert!(status.success(), "{status}: {said:?}");
        let last = said.iter().find_map(|line| line.strip_prefix("stopped clean=true abandoned=0 requests="));
        last.unwrap_or_else(|| panic!("{said:?}")).parse().unwrap()
    }

    /// What it has said so far.
    fn said(&self) -> Vec<String> {
        self.said.lock().unwrap().clone()
    }
}

async fn registered(lines: &mut Lines<BufReader<ChildStdout>>) -> u64 {
    loop {
        let line = lines.next_line().await.unwrap().expect("a worker goes on until it is told to stop");
        // The test harness has written half a line before.
        if let Some((_, id)) = line.split_once("registered id=") {
            return u64::from_str_radix(id, 16).unwrap();
        }
    }
}

/// A worker process says when it is registered, serves, and on SIGTERM stops in order, saying how many requests
/// it served.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_serves_until_it_is_told_to_stop() {
    if let (Ok(etcd), Ok(nats)) = (std::env::var(ETCD), std::env::var(NATS)) {
        let etcd = etcd.split(',').map(str::to_owned).collect();
        return serve(Addresses { etcd, nats, plane: Plane::Broker }).await;
    }
    let backends = Backends::memory().with_etcd(Version::Newer).await.with_nats(Version::Newer).await;
    let addresses = backends.addresses();
    let mut worker = Worker::start(&addresses).await;
    let caller = addresses.caller().await;
    let client: Client<u64, u64> = caller.endpoint(WORK).unwrap().client().await.unwrap();
    let items: Vec<_> = client.generate(&3).await.unwrap().map(Result::unwrap).collect().await;
    assert_eq!(items, [1, 2, 3]);
    worker.assert_running();
    assert_eq!(worker.terminate().await, 1);
}

#[expect(clippy::print_stdout, reason = "it is how a worker tells the test")]
async fn serve(addresses: Addresses) {
    // A panic of any task, also of one that nobody waits for, is seen as the end of the process.
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        std::process::abort();
    }));
    let runtime = addresses.runtime(&std::env::var(TCP).unwrap()).await;
    let count = |to: u64, _: Context| async move {
        Ok(stream::iter(1..=to).then(|item| async move {
            tokio::time::sleep(STEP).await;
            Ok::<_, Fault>(item)
        }))
    };
    let _serving = runtime.endpoint(WORK).unwrap().serve(count).await.unwrap();
    println!("registered id={:x}", runtime.instance_id());
    let mut lease = runtime.lease();
    let tell = async {
        while let Some(state) = lease.changed().await {
            match state {
                LeaseState::Held { epoch, .. } => println!("lease epoch={epoch}"),
                LeaseState::Lost { epoch } => println!("lost epoch={epoch}"),
                _ => {}
            }
        }
    };
    let report = tokio::select! {
        biased;
        report = runtime.run_until_signal() => report.unwrap(),
        () = tell => unreachable!("the runtime lives"),
    };
    if !report.is_clean() {
        println!("{report}");
    }
    println!(
        "stopped clean={} abandoned={} requests={}",
        report.is_clean(),
        report.abandoned,
        report.requests
    );
}
