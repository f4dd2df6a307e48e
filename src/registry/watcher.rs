use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use slipring_core::{Batch, BoxStream, Change, Effect, Error, Fact, Range, Result, Start, Task, Watch};
use tokio::time::Instant;

use super::mirror::{Mirror, Options, State, Step};
use super::view::{View, WatchState};
use crate::name::EndpointPath;
use crate::platform::Platform;

/// One watch of an endpoint's records, shared by all its clients in a runtime, and the view it keeps up to
/// date. Dropping it ends the watch.
#[derive(Debug)]
pub(crate) struct Watcher {
    view: Arc<View>,
    task: Task,
}

impl Watcher {
    /// Starts watching. Whatever happens to the watch, the view keeps what was seen last and says how old it
    /// is.
    pub(crate) fn start(platform: Arc<Platform>, endpoint: EndpointPath) -> Self {
        let view = Arc::new(View::new(endpoint));
        let follower = Follower::new(platform.clone(), view.clone());
        let task = platform.spawn("shared watcher", follower.run());
        Self { view, task }
    }

    pub(crate) fn view(&self) -> &View {
        &self.view
    }

    /// Did it end without being told to? Only a panic or a crashed node does that.
    pub(crate) fn is_dead(&self) -> bool {
        self.task.is_finished()
    }
}

/// Drives a [`Mirror`] with a backend's watch.
struct Follower {
    platform: Arc<Platform>,
    view: Arc<View>,
    range: Range,
    mirror: Mirror,
    events: Option<BoxStream<'static, Result<Batch>>>,
    /// What identified the store when it was reached last.
    identity: Option<Bytes>,
}

impl Follower {
    fn new(platform: Arc<Platform>, view: Arc<View>) -> Self {
        let can = &platform.discovery_can;
        let options = Options::new(can.resume, can.watch_silence_max)
            .with_reconcile(platform.settings.reconcile_interval);
        let seed = platform.environment.random("watch jitter");
        let range = Range::Prefix(view.endpoint().instances());
        Self {
            mirror: Mirror::new(Instant::now(), options, seed),
            platform,
            view,
            range,
            events: None,
            identity: None,
        }
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
        match self.reopen(start).await {
            Ok(Some(watch)) => {
                let changes = self.mirror.handle_watch(Instant::now(), watch.base);
                self.events = Some(watch.events);
                self.publish(changes);
            }
            // Another store: the mirror asks again, for a snapshot.
            Ok(None) => self.publish(Vec::new()),
            Err(error) => self.end(error),
        }
    }

    /// Opens a watch; `None` if the store is another one than before, so that its revisions mean nothing.
    async fn reopen(&mut self, start: Start) -> Result<Option<Watch>> {
        if let Start::After(_) = start {
            let identity = Some(self.platform.store_identity().await?);
            if self.identity.is_some() && self.identity != identity {
                self.identity = identity;
                self.mirror.handle_identity(Instant::now());
                return Ok(None);
            }
        } else if self.platform.discovery_can.resume {
            self.identity = Some(self.platform.store_identity().await?);
        }
        let opening = self.platform.discovery.watch(self.range.clone(), start);
        self.platform.within("opening a watch", opening).await.map(Some)
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

    fn publish(&self, changes: Vec<Change>) {
        let changed = !changes.is_empty();
        self.view.apply(changes, state(self.mirror.state()));
        if let (true, State::Live(revision)) = (changed, self.mirror.state()) {
            let (prefix, instances) = (self.view.endpoint().instances().to_string(), self.view.lock().len());
            let fact = Fact::ViewChanged { prefix, revision: *revision, instances };
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

