use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use etcd_client::proto::PbResponseHeader;
use slipring_core::{Environment, Revision};
use slipring_memory::Profile;
use slipring_memory::store::{Saved, Store, StoreEvent};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tonic::Status;

use crate::clock::Clock;
use crate::versions::{Gone, Versions};

/// An etcd in this process. Clones are the same cluster: one store behind however many servers.
///
/// It has no task and no socket of its own. A [`channel`](Self::channel) reaches it without a network; what a
/// network is needed for is [served](Self::serve). Time is tokio's, so a paused clock passes at once, and what
/// is random comes from the environment: the same seed gives the same bytes.
#[derive(Clone)]
pub struct Etcd {
    pub(crate) shared: Arc<Shared>,
}

/// A store's content: keys, leases and history.
#[derive(Debug, Clone)]
pub struct Backup {
    store: Saved,
    versions: Versions,
}

/// Who is told what happens in the store.
type Observer = Box<dyn Fn(Duration, StoreEvent) + Send + Sync>;

pub(crate) struct Shared {
    environment: Arc<dyn Environment>,
    state: Mutex<State>,
    /// Something was written, or a lease ends at another time than before.
    pub(crate) changed: Notify,
    /// All connections are to be closed.
    pub(crate) cut: Notify,
}

struct State {
    store: Store,
    versions: Versions,
    clock: Clock,
    observer: Option<Observer>,
    /// How many servers run.
    servers: usize,
    /// Before that, there is no leader.
    led_from: Option<Instant>,
}

/// A store at one moment.
pub(crate) struct Step<'a> {
    pub(crate) now: Duration,
    pub(crate) store: &'a mut Store,
    pub(crate) versions: &'a mut Versions,
}

impl Etcd {
    /// What leases have beyond their time to live after a restart or under a new leader, as measured.
    pub const EXTENSION: Duration = Duration::from_secs(1);
    /// The version that it says it is.
    pub const VERSION: &'static str = "3.5.1";

    /// A fresh etcd whose leases and clock are as this profile says; its limits are etcd's own.
    pub fn new(profile: &Profile, environment: Arc<dyn Environment>) -> Self {
        Self::made(profile, environment, None)
    }

    /// [`new`](Self::new), and everything that happens in the store is told in order, with the time on its
    /// clock, before anybody who waits for it is woken. The observer must not call this etcd.
    pub fn observed(
        profile: &Profile,
        environment: Arc<dyn Environment>,
        observer: impl Fn(Duration, StoreEvent) + Send + Sync + 'static,
    ) -> Self {
        Self::made(profile, environment, Some(Box::new(observer)))
    }

    fn made(profile: &Profile, environment: Arc<dyn Environment>, observer: Option<Observer>) -> Self {
        let clock = Clock::new(profile.clock_rate_ppm);
        // The limits of requests are checked before, and history ends with a compaction alone.
        let unlimited = profile.discovery.with_atomic_keys_max(usize::MAX).with_value_bytes_max(usize::MAX);
        let profile = profile.clone().with_discovery(unlimited).with_txn_bytes_max(usize::MAX);
        let profile = profile.with_history_revisions_max(usize::MAX);
        let mut store = Store::new(profile, environment.random("etcd store"));
        store.record();
        let versions = Versions::new();
        let state = State { store, versions, clock, observer, servers: 0, led_from: None };
        let (changed, cut) = (Notify::new(), Notify::new());
        Self { shared: Arc::new(Shared { environment, state: Mutex::new(state), changed, cut }) }
    }

    /// Forgets the history before the current revision, as an operator does. No-op if there is none.
    pub fn compact(&self) {
        // The one refusal that there can be: all is forgotten already.
        let _ = self.shared.step(|mut step| step.compact(step.versions.head()));
    }

    /// There is no leader for this long: calls wait, watches are silent, nothing is written and no lease ends. From
    /// its beginning all leases have their whole time and [`EXTENSION`](Self::EXTENSION) more, or as much more as
    /// the election lasts if that is longer.
    pub fn elect(&self, lasts: Duration) {
        self.shared.elect(lasts);
    }

    /// Ends all connections once. New ones are accepted at once.
    pub fn cut(&self) {
        self.shared.cut.notify_waiters();
    }

    /// The content as it is now.
    pub fn backup(&self) -> Backup {
        let save = |step: Step<'_>| Backup { store: step.store.export(), versions: step.versions.clone() };
        self.shared.step(save)
    }

    /// Puts the store back to a content that was saved. Revisions may go backwards; leases have their whole time
    /// again. Watches that are open wait for revisions that the store may never reach: end their connections
    /// before, if that is not what is wanted.
    pub fn restore(&self, backup: Backup) {
        self.shared.step(|step| {
            step.store.import(step.now, backup.store);
            *step.versions = backup.versions;
        });
        self.shared.changed.notify_waiters();
    }

    /// Empties the store, which is then at revision 1 again.
    pub fn empty(&self) {
        self.restore(Backup { store: Saved::empty(), versions: Versions::new() });
    }

    /// The current revision.
    pub fn revision(&self) -> Revision {
        self.shared.step(|step| step.store.revision())
    }
}

impl fmt::Debug for Etcd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Etcd").finish_non_exhaustive()
    }
}

impl Shared {
    /// Lets the store's time pass up to now, does one thing, and wakes whom it concerns.
    pub(crate) fn step<R>(&self, act: impl FnOnce(Step<'_>) -> R) -> R {
        self.with_deadline(act).0
    }

    /// [`step`](Self::step), and when the next one is due in any case.
    pub(crate) fn with_deadline<R>(&self, act: impl FnOnce(Step<'_>) -> R) -> (R, Option<Instant>) {
        let mut state = self.state();
        let before = state.mark();
        let now = state.clock.now().max(state.store.now());
        state.store.advance(now);
        state.absorb();
        let State { store, versions, .. } = &mut *state;
        let answer = act(Step { now, store, versions });
        state.absorb();
        let after = state.mark();
        let due = after.1.map(|due| state.clock.instant(due));
        drop(state);
        if before != after {
            self.changed.notify_waiters();
        }
        (answer, due)
    }

    /// Waits until there is a leader.
    pub(crate) async fn led(&self) {
        while let Some(from) = self.led_from() {
            sleep_until(from).await;
        }
    }

    /// When there is a leader; none if there is one.
    pub(crate) fn led_from(&self) -> Option<Instant> {
        self.state().led_from.filter(|from| *from > Instant::now())
    }

    pub(crate) fn random(&self, purpose: &'static str) -> u64 {
        self.environment.random(purpose)
    }

    /// A server begins. The first one after a time without any finds all leases with their whole time.
    pub(crate) fn begin(self: &Arc<Self>, ready: Duration) -> Running {
        let restarted = {
            let mut state = self.state();
            state.servers += 1;
            state.clock.start()
        };
        if restarted {
            self.elect(ready);
        }
        Running(self.clone())
    }

    fn elect(&self, lasts: Duration) {
        let mut state = self.state();
        let now = state.clock.now().max(state.store.now());
        state.led_from = Some(Instant::now() + lasts);
        // None may end before there is a leader again.
        state.store.revive(now, lasts.max(Etcd::EXTENSION));
        state.absorb();
        drop(state);
        self.changed.notify_waiters();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no code panics while it holds the lock")
    }
}

impl State {
    /// Takes over what happened in the store.
    fn absorb(&mut self) {
        for (at, event) in self.store.take_events() {
            if let StoreEvent::Committed(batch) = &event {
                self.versions.append(batch);
            }
            if let Some(observer) = &self.observer {
                observer(at, event);
            }
        }
    }

    /// Differs if somebody has to look again.
    fn mark(&self) -> (i64, Option<Duration>) {
        (self.versions.head(), self.store.next_deadline())
    }
}

impl Step<'_> {
    /// What stands before every answer.
    pub(crate) fn header(&self) -> PbResponseHeader {
        header(self.versions.head())
    }

    pub(crate) fn compact(&mut self, at: i64) -> Result<(), Gone> {
        self.versions.compact(at)?;
        // Refused where nothing is to be forgotten.
        if let Ok(at) = u64::try_from(at) {
            let _ = self.store.compact(Revision(at));
        }
        Ok(())
    }
}

/// A header at a revision.
pub(crate) fn header(revision: i64) -> PbResponseHeader {
    PbResponseHeader { cluster_id: CLUSTER, member_id: MEMBER, revision, raft_term: 2 }
}

/// As long as those of a real one.
const CLUSTER: u64 = 0xc1d5_7e11_a2b4_0001;
const MEMBER: u64 = 0xc1d5_7e11_a2b4_0002;

/// A server that runs. When the last one ends, the store's time stands still.
pub(crate) struct Running(Arc<Shared>);

impl Drop for Running {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.servers -= 1;
        if state.servers == 0 {
            state.clock.stop();
        }
    }
}

/// What etcd says when a revision cannot be shown.
impl From<Gone> for Status {
    fn from(gone: Gone) -> Self {
        Status::out_of_range(match gone {
            Gone::Compacted => "etcdserver: mvcc: required revision has been compacted",
            Gone::Future => "etcdserver: mvcc: required revision is a future revision",
        })
    }
}
