//! Callers that go on calling whatever happens, and count what became of their calls.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::TryStreamExt;
use slipring::{Client, DistributedRuntime, Effect, Error, Instances, WatchState};
use slipring_core::LeaseId;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::backends::WORK;
use crate::worker::Addresses;

/// As many as there would be processes.
const CALLERS: u64 = 4;
/// Calls that each has under way.
const TASKS: u64 = 4;
/// Between two calls of a task.
const PACE: Duration = Duration::from_millis(20);
/// A call that is not over so long after its deadline hangs.
const LATE_MAX: Duration = Duration::from_secs(1);

/// Four runtimes, each on connections of its own, with several tasks that call without end.
pub(crate) struct Callers {
    callers: Vec<(DistributedRuntime, Client<u64, u64>)>,
    tasks: JoinSet<Outcomes>,
    stop: Arc<AtomicBool>,
}

/// What became of the calls.
#[derive(Debug, Default)]
pub(crate) struct Outcomes {
    /// Those that brought what they should.
    pub(crate) ok: u64,
    /// Those that failed, by code.
    pub(crate) failed: BTreeMap<&'static str, u64>,
    /// Those of them that certainly did nothing.
    pub(crate) untouched: u64,
    /// Those that were not over a second after their deadline.
    pub(crate) hung: u64,
    /// Those that claimed success and brought something else.
    pub(crate) wrong: u64,
    /// The longest that a call took.
    slowest: Duration,
}

/// What an instance is known by: its id, its epoch, its lease.
pub(crate) type Known = BTreeSet<(u64, u64, LeaseId)>;

impl Callers {
    /// Starts calling, with this deadline.
    pub(crate) async fn start(addresses: &Addresses, deadline: Duration) -> Self {
        let (mut callers, mut tasks, stop) = (Vec::new(), JoinSet::new(), Arc::<AtomicBool>::default());
        for caller in 0..CALLERS {
            let runtime = addresses.caller().await;
            let client: Client<u64, u64> = runtime.endpoint(WORK).unwrap().client().await.unwrap();
            let client = client.with_planes([addresses.plane]);
            for task in 0..TASKS {
                tasks.spawn(keep_calling(client.clone(), deadline, caller + task, stop.clone()));
            }
            callers.push((runtime, client));
        }
        Self { callers, tasks, stop }
    }

    /// Does every caller see these instances, and knows that it sees well?
    pub(crate) fn all_see(&self, known: &Known) -> bool {
        self.callers.iter().all(|(_, client)| sees(&client.instances(), known))
    }

    /// Waits until every caller has reached every one of these instances. Returns how long after `since` that
    /// was so.
    pub(crate) async fn reach_all(&self, ids: BTreeSet<u64>, since: Instant, limit: Duration) -> Duration {
        for (_, client) in &self.callers {
            for id in &ids {
                let reached = async || {
                    let call = client.request(&0).instance(*id).deadline(LATE_MAX).generate();
                    call.await.is_ok()
                };
                while !reached().await {
                    assert!(since.elapsed() < limit, "after {limit:?} instance {id:x} is not reached");
                    sleep(PACE).await;
                }
            }
        }
        since.elapsed()
    }

    /// Ends the callers after their last calls.
    pub(crate) async fn stop(mut self) -> Outcomes {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Outcomes::default();
        while let Some(outcomes) = self.tasks.join_next().await {
            all.absorb(outcomes.unwrap());
        }
        for (runtime, _) in &self.callers {
            assert_eq!(runtime.calls_in_flight(), 0, "a call that is over is not kept");
        }
        all
    }
}

fn sees(instances: &Instances, known: &Known) -> bool {
    let all = instances.all();
    let seen = all.iter().map(|instance| (instance.id(), instance.epoch(), instance.record().lease));
    matches!(instances.state(), WatchState::Live(_)) && seen.collect::<Known>() == *known
}

async fn keep_calling(
    client: Client<u64, u64>,
    deadline: Duration,
    seed: u64,
    stop: Arc<AtomicBool>,
) -> Outcomes {
    let mut outcomes = Outcomes::default();
    for call in seed.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let to = call % 4;
        let began = Instant::now();
        let calling = async {
            let items: Vec<_> =
                client.request(&to).deadline(deadline).generate().await?.try_collect().await?;
            Ok::<_, Error>(items == (1..=to).collect::<Vec<_>>())
        };
        // Its own time-out polls the call once more, which may end only for that: how long it took decides.
        let limit = deadline + LATE_MAX;
        let result = timeout(limit, calling).await;
        match result {
            Err(_) => outcomes.hung += 1,
            Ok(_) if began.elapsed() >= limit => outcomes.hung += 1,
            Ok(Ok(true)) => outcomes.ok += 1,
            Ok(Ok(false)) => outcomes.wrong += 1,
            Ok(Err(error)) => {
                *outcomes.failed.entry(error.code()).or_default() += 1;
                outcomes.untouched += u64::from(error.effect() == Effect::None);
            }
        }
        outcomes.slowest = outcomes.slowest.max(began.elapsed());
        sleep(PACE).await;
    }
    outcomes
}

impl Outcomes {
    fn absorb(&mut self, other: Self) {
        self.ok += other.ok;
        for (code, count) in other.failed {
            *self.failed.entry(code).or_default() += count;
        }
        self.untouched += other.untouched;
        self.hung += other.hung;
        self.wrong += other.wrong;
        self.slowest = self.slowest.max(other.slowest);
    }
}

/// Cells of the table: calls, ok, failed by code, hung, the slowest.
impl fmt::Display for Outcomes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let failed: Vec<_> = self.failed.iter().map(|(code, count)| format!("{code} {count}")).collect();
        let failed = if failed.is_empty() { "0".to_owned() } else { failed.join(", ") };
        let calls = self.ok + self.failed.values().sum::<u64>() + self.hung + self.wrong;
        let slowest = self.slowest.as_secs_f32();
        write!(f, "{calls} | {} | {failed} | {} | {slowest:.1} s", self.ok, self.hung)
    }
}
