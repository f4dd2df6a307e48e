use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use indexmap::IndexMap;
use slipring_core::{Change, Entry, Key, Revision};
use tokio::time::Instant;

use super::instance::{Instance, Standing};
use crate::name::{EndpointPath, InstancePath};
use crate::observed::{Observed, Observer};
use crate::record::Record;

/// How many changes a reader may be behind before it is given the whole set anew.
const CHANGES_KEPT_MAX: usize = 1024;

/// How well a shared watcher sees.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum WatchState {
    /// Nothing was seen yet.
    Syncing,
    /// It shows the store as of this revision.
    Live(Revision),
    /// It cannot see now; the last view is kept.
    Stale {
        /// Since when.
        since: Instant,
        /// Why.
        cause: String,
    },
    /// It cannot see for a reason that will not pass by itself, such as `unauthorized`; tried again slowly.
    Failed(&'static str),
}

/// A change of an endpoint's instances.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum InstanceChange {
    /// The whole set: at the beginning, and whenever the reader was too far behind.
    Snapshot(Vec<Arc<Instance>>),
    /// An instance is new, or its record changed.
    Put(Arc<Instance>),
    /// An instance is gone.
    Removed(Arc<Instance>),
}

/// The instances of one endpoint, shared by all its clients in a runtime. Each event costs O(1); nothing is
/// copied but what a reader asks for.
pub(crate) struct View {
    endpoint: EndpointPath,
    members: Mutex<Members>,
    /// Changes with the members and the state.
    version: Observed<()>,
    /// How many readers there were.
    readers: AtomicU64,
}

pub(crate) struct Members {
    pub(crate) state: WatchState,
    pub(crate) revision: Revision,
    /// Instances that can be routed to and say they are ready.
    pub(crate) ready: IndexMap<u64, Arc<Instance>>,
    /// The others.
    pub(crate) unready: IndexMap<u64, Arc<Instance>>,
    /// The newest changes, each with its number.
    changes: VecDeque<InstanceChange>,
    /// The number of the first of `changes`.
    first: u64,
}

impl View {
    pub(crate) fn new(endpoint: EndpointPath) -> Self {
        let members = Members {
            state: WatchState::Syncing,
            revision: Revision::default(),
            ready: IndexMap::new(),
            unready: IndexMap::new(),
            changes: VecDeque::new(),
            first: 0,
        };
        Self {
            endpoint,
            members: Mutex::new(members),
            version: Observed::new(()),
            readers: AtomicU64::new(0),
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Members> {
        // No user code runs under this lock, and each change is applied whole.
        self.members.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Wakes at every change of members or state.
    pub(crate) fn observe(&self) -> Observer<()> {
        self.version.observe()
    }

    pub(crate) fn endpoint(&self) -> &EndpointPath {
        &self.endpoint
    }

    /// Applies what the mirror found, and its state. Returns what is different now, in order: instances, and
    /// the revisions of their records, if they are there.
    pub(crate) fn apply(&self, changes: Vec<Change>, state: WatchState) -> Vec<(u64, Option<Revision>)> {
        let mut members = self.lock();
        let mut applied = Vec::with_capacity(changes.len());
        for change in changes {
            applied.extend(match change {
                Change::Put(entry) => self.put(&mut members, entry),
                Change::Delete(key) => self.remove(&mut members, &key),
            });
        }
        if let WatchState::Live(revision) = state {
            members.revision = revision;
        }
        let changed = !applied.is_empty() || differs(&members.state, &state);
        members.state = state;
        drop(members);
        if changed {
            self.version.set(());
        }
        applied
    }

    fn put(&self, members: &mut Members, entry: Entry) -> Option<(u64, Option<Revision>)> {
        let id = match self.id(&entry.key) {
            Ok(id) => id,
            Err(error) => {
                self.report(&entry.key, &error);
                return None;
            }
        };
        let record = match Record::decode(&entry.key, &entry.value) {
            Ok(record) => record,
            Err(error) => {
                self.report(&entry.key, &error);
                // What it was before is no longer true.
                return self.remove(members, &entry.key);
            }
        };
        let known = members.get(id).map(|instance| instance.standing().clone());
        let standing = known.unwrap_or_else(|| Arc::new(Standing::default()));
        let instance = Arc::new(Instance::new(record, entry.modified, standing));
        let routable = instance.is_ready() && instance.subject().is_some();
        if routable {
            members.unready.swap_remove(&id);
            members.ready.insert(id, instance.clone());
        } else {
            members.ready.swap_remove(&id);
            members.unready.insert(id, instance.clone());
        }
        members.note(InstanceChange::Put(instance));
        Some((id, Some(entry.modified)))
    }

    fn remove(&self, members: &mut Members, key: &Key) -> Option<(u64, Option<Revision>)> {
        let id = self.id(key).ok()?;
        let instance = members.ready.swap_remove(&id).or_else(|| members.unready.swap_remove(&id))?;
        members.note(InstanceChange::Removed(instance));
        Some((id, None))
    }

    fn id(&self, key: &Key) -> slipring_core::Result<u64> {
        InstancePath::from_key(key).map(|path| path.id())
    }

    /// An unreadable record is said aloud and never harms its neighbours.
    fn report(&self, key: &Key, error: &slipring_core::Error) {
        tracing::warn!(endpoint = %self.endpoint, %key, %error, "an unreadable record is skipped");
    }
}

/// Moving from one revision to the next is no change of the state.
fn differs(old: &WatchState, new: &WatchState) -> bool {
    !matches!((old, new), (WatchState::Live(_), WatchState::Live(_))) && old != new
}

impl Members {
    pub(crate) fn get(&self, id: u64) -> Option<&Arc<Instance>> {
        self.ready.get(&id).or_else(|| self.unready.get(&id))
    }

    pub(crate) fn len(&self) -> usize {
        self.ready.len() + self.unready.len()
    }

    /// Instances worth trying: the ready ones, or all others when none is.
    pub(crate) fn candidates(&self) -> &IndexMap<u64, Arc<Instance>> {
        if self.ready.is_empty() { &self.unready } else { &self.ready }
    }

    pub(crate) fn all(&self) -> Vec<Arc<Instance>> {
        let mut all: Vec<_> = self.ready.values().chain(self.unready.values()).cloned().collect();
        all.sort_by_key(|instance| instance.id());
        all
    }

    fn note(&mut self, change: InstanceChange) {
        if self.changes.len() == CHANGES_KEPT_MAX {
            self.changes.pop_front();
            self.first += 1;
        }
        self.changes.push_back(change);
    }

    /// What follows after change number `cursor`, which moves on; the whole set if that is gone. `None` if
    /// nothing follows.
    fn next(&mut self, cursor: &mut Option<u64>) -> Option<InstanceChange> {
        let end = self.first + self.changes.len() as u64;
        match *cursor {
            Some(at) if at == end => None,
            Some(at) if at >= self.first => {
                *cursor = Some(at + 1);
                self.changes.get((at - self.first) as usize).cloned()
            }
            _ => {
                *cursor = Some(end);
                Some(InstanceChange::Snapshot(self.all()))
            }
        }
    }
}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let members = self.lock();
        f.debug_struct("View")
            .field("endpoint", &self.endpoint.to_string())
            .field("state", &members.state)
            .field("instances", &members.len())
            .finish()
    }
}

/// The instances of an endpoint, to look at and to follow. Cheap; holds the shared watcher open.
#[derive(Debug)]
pub struct Instances {
    watcher: Arc<super::Watcher>,
    version: Observer<()>,
    cursor: Option<u64>,
    /// Its number among the readers of the view.
    reader: u64,
}

impl Instances {
    pub(crate) fn new(watcher: Arc<super::Watcher>) -> Self {
        let version = watcher.view().observe();
        let reader = watcher.view().readers.fetch_add(1, Ordering::Relaxed);
        Self { watcher, version, cursor: None, reader }
    }

    /// All instances, ready or not, by id. Copies the list of them.
    pub fn all(&self) -> Vec<Arc<Instance>> {
        self.watcher.view().lock().all()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.watcher.view().lock().len()
    }

    /// Are there none?
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The instance of this id.
    pub fn by_id(&self, id: u64) -> Option<Arc<Instance>> {
        self.watcher.view().lock().get(id).cloned()
    }

    /// How well the watcher sees. "No instances" and "cannot see" are different facts.
    pub fn state(&self) -> WatchState {
        self.watcher.view().lock().state.clone()
    }

    /// Waits for a change of the set or of the state since the last call. Cancel-safe.
    pub async fn changed(&mut self) {
        // It lives in the view, which this handle keeps.
        let _ = self.version.changed().await;
    }

    /// Waits until the set satisfies a condition, which is given a copy of the list after every change.
    /// Cancel-safe; bound it with a timeout.
    pub async fn wait_until(&mut self, mut condition: impl FnMut(&[Arc<Instance>]) -> bool) {
        loop {
            self.version.mark_seen();
            if condition(&self.all()) {
                return;
            }
            self.changed().await;
        }
    }

    /// The next change, in order and without a gap: first a snapshot, then single changes; a reader that is
    /// too far behind is given a snapshot again. Cancel-safe.
    pub async fn next(&mut self) -> InstanceChange {
        loop {
            self.version.mark_seen();
            let next = self.watcher.view().lock().next(&mut self.cursor);
            self.watcher.tell_read(self.reader, next.as_ref());
            match next {
                Some(change) => return change,
                None => self.changed().await,
            }
        }
    }
}
