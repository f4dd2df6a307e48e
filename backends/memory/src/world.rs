use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Duration;

use slipring_core::{Batch, Environment, LeaseId, Range, Result, Revision, Snapshot, SystemEnvironment};
use tokio::time::Instant;

use crate::store::{Saved, Store, StoreEvent, WatchId};
use crate::{Bus, MemoryDiscovery, MemoryMessaging, Profile, SharedBus};

/// One store and one bus, shared by all handles that are taken from it.
///
/// A world has no task of its own. Every call first lets the store's time pass up to now, and a watch that is
/// being waited for wakes itself when a lease is due; so what happens under a paused clock happens exactly on
/// time. The clock starts with the first call. Handles may be used from any number of threads and tokio
/// runtimes at once; watches need one (with time enabled), the other calls do not.
#[derive(Clone)]
pub struct MemoryWorld {
    shared: Arc<Shared>,
}

impl MemoryWorld {
    /// A world of its own with the default [`Profile`] and the system's entropy.
    pub fn new() -> Self {
        Self::with(Profile::default(), Arc::new(SystemEnvironment::new()))
    }

    /// A world with this profile, whose entropy comes from this environment.
    pub fn with(profile: Profile, environment: Arc<dyn Environment>) -> Self {
        Self::made(profile, environment, None)
    }

    /// [`with`](Self::with), and everything that happens in the store is told in order: with the time on its
    /// clock, and before anybody who waits for it is woken. The observer must not call this world.
    pub fn observed(
        profile: Profile,
        environment: Arc<dyn Environment>,
        observer: impl Fn(Duration, StoreEvent) + Send + Sync + 'static,
    ) -> Self {
        Self::made(profile, environment, Some(Box::new(observer)))
    }

    fn made(profile: Profile, environment: Arc<dyn Environment>, observer: Option<Observer>) -> Self {
        let mut store = Store::new(profile.clone(), environment.random("memory store"));
        if observer.is_some() {
            store.record();
        }
        let timeline = Timeline { rate_ppm: profile.clock_rate_ppm.max(1).into(), ..Timeline::default() };
        let state = State { store, timeline, waiting: BTreeMap::new() };
        let bus = Bus::new(profile.messaging).with_mutation(profile.mutation);
        let bus = SharedBus::with(bus, environment);
        Self { shared: Arc::new(Shared { profile, bus, observer, state: Mutex::new(state) }) }
    }

    /// What it can do and how it behaves.
    pub fn profile(&self) -> &Profile {
        &self.shared.profile
    }

    /// A handle to the store. All handles are alike.
    pub fn discovery(&self) -> MemoryDiscovery {
        MemoryDiscovery::new(self.shared.clone())
    }

    /// A handle to the bus: its own connection, which can be closed alone.
    pub fn messaging(&self) -> MemoryMessaging {
        MemoryMessaging::new(self.shared.bus.clone())
    }

    /// Forgets all history, as an operator's compaction does. No-op if there is none.
    pub fn compact(&self) {
        // The one refusal that there can be: all is forgotten already.
        let _ = self.shared.step(|store, _| store.compact(store.revision()));
    }

    /// Forgets the history up to a revision, itself included.
    ///
    /// # Errors
    /// `Compacted` if it is forgotten already, or is beyond the current one.
    pub fn compact_to(&self, revision: Revision) -> Result<()> {
        self.shared.step(|store, _| store.compact(revision))
    }

    /// The store's content as it is now: entries, leases and history.
    pub fn export(&self) -> Saved {
        self.shared.step(|store, _| store.export())
    }

    /// Puts the store back to a saved content, of this world or of another. Revisions may go backwards;
    /// leases have their whole time again; the open watches fall silent or end ([`Profile::on_restore`]).
    pub fn import(&self, saved: Saved) {
        self.shared.step(|store, now| store.import(now, saved));
    }

    /// Empties the store, which is then at revision 1 again.
    pub fn empty(&self) {
        self.import(Saved::empty());
    }

    /// Stops the store: its time stands still, no lease ends, and no watch yields. Calls are still answered,
    /// as of this moment; who must not reach a stopped store has to be kept away. Again is no-op.
    pub fn pause(&self) {
        self.shared.set_time(|timeline, _| timeline.freeze());
    }

    /// Ends a [pause](Self::pause): the leases that were due meanwhile end at once, as in an etcd process that
    /// was stopped and goes on. Nothing happens if it is not paused.
    pub fn resume(&self) {
        self.shared.set_time(|timeline, _| timeline.thaw());
    }

    /// Ends a [pause](Self::pause): all leases have their whole time from now and `by` more, as in an etcd
    /// that was restarted or has a new leader. Without a pause it only gives them this time.
    pub fn revive(&self, by: Duration) {
        self.shared.set_time(|timeline, store| {
            timeline.thaw();
            store.revive(timeline.now().max(store.now()), by);
        });
    }

    /// From now on the store's clock runs at this rate against the clock of its users, in millionths, at least
    /// 1. It does not jump.
    pub fn set_clock_rate_ppm(&self, ppm: u32) {
        self.shared.set_time(|timeline, _| timeline.set_rate_ppm(ppm));
    }

    /// Everything that is in the store.
    pub fn entries(&self) -> Snapshot {
        self.shared.step(|store, now| store.read(now, &Range::All))
    }

    /// The leases that are not removed yet.
    pub fn leases(&self) -> Vec<LeaseId> {
        self.shared.step(|store, _| store.leases().iter().map(|lease| lease.id).collect())
    }

    /// How many watches are open.
    pub fn watches(&self) -> usize {
        self.shared.step(|store, _| store.watches())
    }
}

impl Default for MemoryWorld {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryWorld {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryWorld").finish_non_exhaustive()
    }
}

/// What the handles of a world share.
pub(crate) struct Shared {
    pub(crate) profile: Profile,
    bus: Arc<SharedBus>,
    observer: Option<Observer>,
    state: Mutex<State>,
}

/// Who is told what happens in a store.
type Observer = Box<dyn Fn(Duration, StoreEvent) + Send + Sync>;

struct State {
    store: Store,
    timeline: Timeline,
    /// Who waits in which watch.
    waiting: BTreeMap<WatchId, Waker>,
}

/// What there is for a watch.
pub(crate) enum Polled {
    /// An item, or the error that ends it.
    Item(Result<Batch>),
    /// Nothing; the waker is kept, and this is when to look again in any case.
    Wait(Option<Instant>),
}

impl Shared {
    /// Lets the store's time pass up to now, does one thing, and wakes whom it concerns.
    pub(crate) fn step<R>(&self, act: impl FnOnce(&mut Store, Duration) -> R) -> R {
        let mut state = self.lock();
        let now = state.advance();
        let answer = act(&mut state.store, now);
        let wakers = state.wakers();
        self.tell(state);
        wakers.into_iter().for_each(Waker::wake);
        answer
    }

    /// What there is for a watch; after `progress_at`, progress if nothing else.
    pub(crate) fn poll(&self, watch: WatchId, progress_at: Instant, waker: &Waker) -> Polled {
        let mut state = self.lock();
        state.advance();
        let wakers = state.wakers();
        let polled = state.poll(watch, progress_at);
        let replaced = match polled {
            Polled::Wait(_) => state.waiting.insert(watch, waker.clone()),
            Polled::Item(_) => state.waiting.remove(&watch),
        };
        self.tell(state);
        // A waker may run foreign code when it is dropped: never under the lock.
        drop(replaced);
        wakers.into_iter().for_each(Waker::wake);
        polled
    }

    /// Does something to the store's clock, and has everybody who waits look at it anew.
    fn set_time(&self, set: impl FnOnce(&mut Timeline, &mut Store)) {
        let mut state = self.lock();
        state.advance();
        let State { store, timeline, waiting } = &mut *state;
        set(timeline, store);
        let waiting = std::mem::take(waiting);
        state.advance();
        self.tell(state);
        waiting.into_values().for_each(Waker::wake);
    }

    /// Frees the lock, and tells the observer what happened.
    fn tell(&self, mut state: MutexGuard<'_, State>) {
        let events = state.store.take_events();
        drop(state);
        if let Some(observer) = &self.observer {
            events.into_iter().for_each(|(at, event)| observer(at, event));
        }
    }

    /// Closes a watch.
    pub(crate) fn unwatch(&self, watch: WatchId) {
        let mut state = self.lock();
        state.store.unwatch(watch);
        let waiting = state.waiting.remove(&watch);
        drop(state);
        drop(waiting);
    }

    /// A panic under the lock is a broken invariant of the store, and was reported where it happened; the
    /// others go on with what is there.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn advance(&mut self) -> Duration {
        // Two runtimes, one of them with a paused clock, may disagree about the time.
        let now = self.timeline.now().max(self.store.now());
        self.store.advance(now);
        now
    }

    /// Whom to wake: who waits and has something to poll. A lease that is granted wakes nobody: whoever is
    /// concerned by its end is woken by the put of its key, and then learns of the deadline.
    fn wakers(&mut self) -> Vec<Waker> {
        let woken = self.store.take_woken();
        woken.iter().filter_map(|watch| self.waiting.remove(watch)).collect()
    }

    fn poll(&mut self, watch: WatchId, progress_at: Instant) -> Polled {
        if self.timeline.frozen.is_some() {
            return Polled::Wait(None);
        }
        if let Some(item) = self.store.poll(watch).transpose() {
            return Polled::Item(item);
        }
        let progress = self.store.progress(watch);
        let silent = progress.is_none();
        if let Some(progress) = progress.filter(|_| Instant::now() >= progress_at) {
            return Polled::Item(Ok(progress));
        }
        let due = self.store.next_deadline().map(|deadline| self.timeline.instant(deadline));
        let progress_at = (!silent).then_some(progress_at);
        let until = [due, progress_at].into_iter().flatten().min();
        Polled::Wait(until)
    }
}

/// The store's clock against tokio's.
#[derive(Default)]
struct Timeline {
    rate_ppm: u128,
    /// When it was first looked at, or its rate changed.
    origin: Option<Instant>,
    /// What it showed then.
    shown: Duration,
    /// What it shows while the store is paused.
    frozen: Option<Duration>,
}

impl Timeline {
    const MILLION: u128 = 1_000_000;

    fn freeze(&mut self) {
        let now = self.now();
        self.frozen = Some(now);
    }

    fn thaw(&mut self) {
        self.frozen = None;
    }

    fn set_rate_ppm(&mut self, ppm: u32) {
        let frozen = self.frozen.take();
        self.shown = self.now();
        self.origin = Some(Instant::now());
        self.rate_ppm = ppm.max(1).into();
        self.frozen = frozen;
    }

    fn now(&mut self) -> Duration {
        if let Some(frozen) = self.frozen {
            return frozen;
        }
        let now = Instant::now();
        let elapsed = now.saturating_duration_since(*self.origin.get_or_insert(now));
        self.shown + nanos(elapsed.as_nanos() * self.rate_ppm / Self::MILLION)
    }

    /// The first moment at which the store's clock shows `at`; far away if it is beyond what a clock can say.
    fn instant(&self, at: Duration) -> Instant {
        let ahead = at.saturating_sub(self.shown);
        let elapsed = nanos((ahead.as_nanos() * Self::MILLION).div_ceil(self.rate_ppm));
        let origin = self.origin.expect("the store was looked at before it had a deadline");
        origin.checked_add(elapsed).unwrap_or(origin + FAR_AWAY)
    }
}

/// Thirty years: no timer waits longer.
const FAR_AWAY: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);

/// A duration of so many nanoseconds; what is longer than 500 years is 500 years.
fn nanos(nanos: u128) -> Duration {
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}
