//! Faults of real servers and processes, under load: what the callers notice, and how soon all is well again.
//!
//! Each test prints a row of the table in the README. `SLIPRING_LIVE_ROUNDS` says how often each fault happens.

mod callers;
mod fleet;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use slipring::Plane;
use slipring_servers::Version;
use tokio::time::{Instant, sleep};

pub(crate) use self::callers::Callers;
use self::callers::Outcomes;
pub(crate) use self::fleet::Fleet;
use crate::backends::TTL;

/// How often a fault happens if nothing else is said.
const ROUNDS: usize = 2;
/// The load between two faults, so that each finds it going.
const CALM: Duration = Duration::from_secs(1);
/// Once the server is back, all is registered again within this and the TTL.
const RECOVERY_MAX: Duration = Duration::from_secs(5);
/// The deadline of the calls: longer than an etcd may be missed.
const PATIENT: Duration = Duration::from_secs(10);
/// The deadline of the calls while NATS fails: shorter than it does, and than anybody takes to notice that it
/// hangs, so that nothing but the deadline ends them.
const IMPATIENT: Duration = Duration::from_secs(1);

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    KillEtcd,
    WipeEtcd,
    PauseEtcd,
    KillLeader,
    KillNats,
    PauseNats,
    KillWorker,
}

impl Fault {
    fn name(self) -> &'static str {
        match self {
            Self::KillEtcd => "etcd: kill -9, restart",
            Self::WipeEtcd => "etcd: kill -9, data removed, restart",
            Self::PauseEtcd => "etcd: paused longer than the TTL",
            Self::KillLeader => "etcd: kill -9 the leader of 3",
            Self::KillNats => "nats-server: kill -9, restart",
            Self::PauseNats => "nats-server: paused",
            Self::KillWorker => "worker: kill -9, another started",
        }
    }

    /// May calls fail? They may not while the bus and the workers are well.
    fn may_fail_calls(self) -> bool {
        matches!(self, Self::KillNats | Self::PauseNats | Self::KillWorker)
    }

    /// Must every lease be a new one afterwards? Else it did not happen.
    fn ends_leases(self) -> bool {
        matches!(self, Self::WipeEtcd | Self::PauseEtcd)
    }

    fn deadline(self) -> Duration {
        if matches!(self, Self::KillNats | Self::PauseNats) { IMPATIENT } else { PATIENT }
    }

    /// Happens, and returns when the servers are back. An outage is shorter than the TTL in even rounds, and
    /// longer in odd ones.
    async fn happen(self, fleet: &mut Fleet, round: usize) {
        let outage = if round.is_multiple_of(2) { TTL / 2 } else { TTL * 2 };
        match self {
            Self::KillEtcd | Self::WipeEtcd => {
                let etcd = &mut fleet.etcd[0];
                etcd.kill();
                if self == Self::WipeEtcd {
                    etcd.wipe();
                }
                sleep(outage).await;
                etcd.restart().await.unwrap();
            }
            Self::PauseEtcd => {
                fleet.etcd[0].pause();
                sleep(TTL * 2 + CALM).await;
                fleet.etcd[0].resume();
            }
            Self::KillLeader => fleet.kill_leader().await,
            Self::KillNats => {
                fleet.nats.kill();
                sleep(outage).await;
                fleet.nats.restart().await.unwrap();
            }
            Self::PauseNats => {
                fleet.nats.pause();
                sleep(TTL + outage).await;
                fleet.nats.resume();
            }
            Self::KillWorker => fleet.replace_worker(round).await,
        }
    }
}

/// However a fault ends, calls do not fail that should not, none is answered later than its deadline allows, no
/// worker ends, and all that live, and only those, are registered and known to every caller soon after.
async fn survives(fault: Fault, version: Version, plane: Plane) {
    let (rounds, panics) = (rounds(ROUNDS), count_panics());
    let members = if fault == Fault::KillLeader { 3 } else { 1 };
    let mut fleet = Fleet::start(version, members, plane).await;
    let callers = Callers::start(&fleet.addresses, fault.deadline()).await;
    let (_, mut before) = fleet.settle(&callers, Instant::now(), RECOVERY_MAX).await;
    let mut recoveries = Vec::new();
    for round in 0..rounds {
        sleep(CALM).await;
        fault.happen(&mut fleet, round).await;
        let back = Instant::now();
        let limit = TTL + RECOVERY_MAX;
        let ((registered, after), reached) =
            tokio::join!(fleet.settle(&callers, back, limit), callers.reach_all(fleet.ids(), back, limit));
        recoveries.push(registered.max(reached));
        assert!(
            !fault.ends_leases() || before.is_disjoint(&after),
            "a lease survived: {before:?}, {after:?}"
        );
        before = after;
        fleet.repair().await;
        fleet.assert_running();
    }
    let outcomes = callers.stop().await;
    report(fault, &format!("{version:?}, {}", plane.name()), &outcomes, &mut recoveries);
    assert_eq!((outcomes.hung, outcomes.wrong, panics.load(Ordering::Relaxed)), (0, 0, 0));
    assert!(outcomes.ok > 0 && (fault.may_fail_calls() || outcomes.failed.is_empty()), "{outcomes:?}");
    // A call that certainly did nothing is made elsewhere, while there is somebody.
    assert!(fault != Fault::KillWorker || outcomes.untouched == 0, "{outcomes:?}");
    // On a connection it is known at once what its end means for those who use it.
    let mut codes = outcomes.failed.keys();
    assert!(plane == Plane::Broker || codes.all(|code| *code == "stream_interrupted"), "{outcomes:?}");
}

/// Counts panics, also those of tasks that nobody waits for.
fn count_panics() -> Arc<AtomicU64> {
    let panics = Arc::<AtomicU64>::default();
    let (counted, report) = (panics.clone(), std::panic::take_hook());
    std::panic::set_hook(Box::new(move |panic| {
        counted.fetch_add(1, Ordering::Relaxed);
        report(panic);
    }));
    panics
}

/// How often: as the environment says, or else so often.
pub(crate) fn rounds(default: usize) -> usize {
    std::env::var("SLIPRING_LIVE_ROUNDS").map_or(default, |rounds| rounds.parse().unwrap())
}

#[expect(clippy::print_stdout, reason = "the table is what the test is run for")]
fn report(fault: Fault, ground: &str, outcomes: &Outcomes, recoveries: &mut [Duration]) {
    recoveries.sort_unstable();
    let median = recoveries[recoveries.len() / 2];
    println!(
        "| {} ({ground}) | {} | {outcomes} | {:.1} s | {:.1} s |",
        fault.name(),
        recoveries.len(),
        median.as_secs_f32(),
        recoveries.last().map_or(0.0, Duration::as_secs_f32),
    );
}

macro_rules! faults {
    ($($test:ident: $fault:ident;)*) => { $(
        mod $test {
            use super::*;

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn debian() {
                survives(Fault::$fault, Version::Debian, Plane::Broker).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn newer() {
                survives(Fault::$fault, Version::Newer, Plane::Broker).await;
            }
        }
    )* };
}

faults! {
    etcd_killed: KillEtcd;
    etcd_killed_and_emptied: WipeEtcd;
    etcd_paused: PauseEtcd;
    etcd_leader_killed: KillLeader;
    nats_killed: KillNats;
    nats_paused: PauseNats;
    worker_killed: KillWorker;
}

/// A worker process that is killed under load, on connections: only what it had under way fails.
mod worker_killed_on_connections {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn direct() {
        survives(Fault::KillWorker, Version::Newer, Plane::Tcp).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn called_home() {
        survives(Fault::KillWorker, Version::Newer, Plane::NatsTcp).await;
    }
}
