use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use slipring_core::mutation::Mutation;
use slipring_core::{
    Batch, BoxStream, Change, DiscoveryExt, Effect, Error, Fact, Range, Result, Start, Task, Told,
};
use tokio::time::Instant;

use super::instance::Instance;
use super::mirror::{Mirror, Options, State, Step};
use super::view::{InstanceChange, View, WatchState};
use crate::name::{EndpointPath, InstancePath, near_misses};
use crate::plane::traffic::Tally;
use crate::platform::Platform;

/// How long a list of similar names is good for.
const NEAR_AGE_MAX: Duration = Duration::from_secs(5);

/// One watch of an endpoint's records, shared by all its clients in a runtime, and the view it keeps up to
/// date. Dropping it ends the watch.
#[derive(Debug)]
pub(crate) struct Watcher {
    platform: Arc<Platform>,
    view: Arc<View>,
    name: Arc<str>,
    /// What those who watch it call.
    tally: Arc<Tally>,
    /// What is registered and looks similar, and when that was found.
    near: tokio::sync::Mutex<Option<(Instant, Vec<String>)>>,
    task: Task,
}

impl Watcher {
    /// Starts watching. Whatever happens to the watch, the view keeps what was seen last and says how old it
    /// is.
    pub(crate) fn start(platform: Arc<Platform>, endpoint: EndpointPath) -> Self {
        let name: Arc<str> = endpoint.to_string().into();
        let tally = platform.traffic.called(&name);
        let view = Arc::new(View::new(endpoint));
        let prefix = view.endpoint().instances().to_string();
        platform.environment.observe(&Fact::WatcherStarted { prefix });
        let follower = Follower::new(platform.clone(), view.clone());
        let task = platform.spawn("shared watcher", follower.run());
        Self { platform, view, name, tally, near: tokio::sync::Mutex::default(), task }
    }

    /// The endpoint, as `namespace/component/endpoint`.
    pub(crate) fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Counts the calls of the endpoint.
    pub(crate) fn tally(&self) -> &Arc<Tally> {
        &self.tally
    }

    /// Endpoints of the same namespace that are registered and look similar; none if that cannot be found out.
    /// However many ask, the store is asked once in a while.
    pub(crate) async fn near_misses(&self) -> Vec<String> {
        let mut near = self.near.lock().await;
        if let Some((at, found)) = &*near
            && at.elapsed() < NEAR_AGE_MAX
        {
            return found.clone();
        }
        let found = self.find_near_misses().await.unwrap_or_default();
        *near = Some((Instant::now(), found.clone()));
        found
    }

    async fn find_near_misses(&self) -> Result<Vec<String>> {
        let namespace = self.view.endpoint().component().namespace();
        let prefix = namespace.components();
        let reading = self.platform.discovery.list(&prefix);
        let entries = self.platform.within("looking for similar names", reading).await?;
        let names = entries.iter().filter_map(|entry| InstancePath::from_key(&entry.key).ok());
        let names: BTreeSet<_> = names.map(|path| path.endpoint().to_string()).collect();
        Ok(near_misses(&self.name, names))
    }

    pub(crate) fn view(&self) -> &View {
        &self.view
    }

    /// Says what a reader of the view was told; nothing if it has to wait.
    pub(crate) fn tell_read(&self, reader: u64, change: Option<&InstanceChange>) {
        let revision = |instance: &Instance| (instance.id(), instance.modified());
        let told = match change {
            Some(InstanceChange::Snapshot(all)) => Told::All(all.iter().map(|one| revision(one)).collect()),
            Some(InstanceChange::Put(instance)) => Told::Put(instance.id(), instance.modified()),
            Some(InstanceChange::Removed(instance)) => Told::Removed(instance.id()),
            None => Told::Latest,
        };
        self.platform.environment.observe(&Fact::ViewRead { prefix: self.prefix(), reader, told });
    }

    fn prefix(&self) -> String {
        self.view.endpoint().instances().to_string()
    }

    /// Did it end without being told to? Only a panic or a crashed node does that.
    pub(crate) fn is_dead(&self) -> bool {
        self.task.is_finished()
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.platform.environment.observe(&Fact::WatcherStopped { prefix: self.prefix() });
    }
}

/// Drives a [`Mirror`] with a backend's watch.
struct Follower {
    platform: Arc<Platform>,
    view: Arc<View>,
    range: Range,
    mirror: Mirror,
    events: Option<BoxStream<'static, Result<Batch>>>,
}

impl Follower {
    fn new(platform: Arc<Platform>, view: Arc<View>) -> Self {
        let can = &platform.discovery_can;
        let deaf = platform.mutated(Mutation::SilenceIsIgnored);
        let silence_max = if deaf { Duration::from_secs(365 * 24 * 3600) } else { can.watch_silence_max };
        let mut options = Options::new(silence_max).with_reconcile(platform.settings.reconcile_interval);
        options.mutation = platform.settings.mutation;
        let seed = platform.environment.random("watch jitter");
        let range = Range::Prefix(view.endpoint().instances());
        Self { mirror: Mirror::new(Instant::now(), options, seed), platform, view, range, events: None }
    }

    async fn run(mut self) {
        loop {
            match self.mirror.poll(Instant::now()) {
                Step::Open(start) => self.open(start).await,
                Step::Wait(until) => self.follow(until).await,
            }
        }
    }

    async fn open(&mut self, start: Start) {
        self.events = None;
        let opening = self.platform.discovery.watch(self.range.clone(), start);
        match self.platform.within("opening a watch", opening).await {
            Ok(watch) => {
                let changes = self.mirror.handle_watch(Instant::now(), watch.base);
                self.events = Some(watch.events);
                self.publish(changes);
            }
            Err(error) => self.end(error),
        }
    }

    /// Takes what the watch yields, at most until the mirror has something else to do.
    async fn follow(&mut self, until: Instant) {
        let Some(events) = &mut self.events else { return tokio::time::sleep_until(until).await };
        let event = tokio::select! {
            biased;
            event = events.next() => event,
            () = tokio::time::sleep_until(until) => return,
        };
        match event {
            Some(Ok(batch)) => {
                let changes = self.mirror.handle_batch(Instant::now(), batch);
                self.publish(changes);
            }
            Some(Err(error)) => self.end(error),
            None => self.end(Error::unavailable("watch", "it ended without a word", Effect::None)),
        }
    }

    fn end(&mut self, cause: Error) {
        tracing::debug!(endpoint = %self.view.endpoint(), %cause, "the shared watch broke");
        self.events = None;
        self.mirror.handle_end(Instant::now(), cause);
        self.publish(Vec::new());
    }

    fn publish(&self, mut changes: Vec<Change>) {
        if self.platform.mutated(Mutation::GoneIsCalled) {
            changes.retain(|change| matches!(change, Change::Put(_)));
        }
        let broken = matches!(self.mirror.state(), State::Stale { .. });
        if broken && self.platform.mutated(Mutation::BreakEmptiesView) {
            changes.extend(self.mirror.entries().keys().cloned().map(Change::Delete));
        }
        let changes = self.view.apply(changes, state(self.mirror.state()));
        if !changes.is_empty() {
            let prefix = self.view.endpoint().instances().to_string();
            let (revision, instances) = {
                let members = self.view.lock();
                (members.revision, members.len())
            };
            let fact = Fact::ViewChanged { prefix, revision, instances, changes };
            self.platform.environment.observe(&fact);
        }
    }
}

fn state(state: &State) -> WatchState {
    match state {
        State::Syncing { .. } => WatchState::Syncing,
        State::Live(revision) => WatchState::Live(*revision),
        State::Stale { since, cause } => WatchState::Stale { since: *since, cause: cause.to_string() },
        State::Failed(code) => WatchState::Failed(code),
    }
}
