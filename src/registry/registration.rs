use std::sync::{Arc, Mutex, MutexGuard};

use slipring_core::mutation::Mutation;
use slipring_core::{Bytes, DiscoveryExt, Entry, Error, Key, LeaseId, Result, Task};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::registrar::{self, Options, Registrar, Step};
use crate::lifecycle::{LeaseHolder, LeaseState};
use crate::observed::{Observed, Observer};
use crate::platform::Platform;
use crate::record::Record;

impl registrar::Record for Record {
    fn encode(&self, lease: LeaseId, epoch: u64) -> Bytes {
        Record { lease, epoch, ..self.clone() }.encode()
    }
}

/// A runtime's records: what it wants the store to hold, and the task that sees to it.
pub(crate) struct Registration {
    shared: Arc<Shared>,
    task: Mutex<Option<Task>>,
}

struct Shared {
    platform: Arc<Platform>,
    state: Mutex<State>,
    /// Something is wanted that was not before.
    wanted: Notify,
    /// Something was done about it.
    done: Observed<()>,
}

struct State {
    registrar: Registrar<Record>,
    /// Why it takes so long, as far as known.
    trouble: Option<Error>,
}

impl Registration {
    pub(crate) fn start(platform: Arc<Platform>, lease: &LeaseHolder) -> Self {
        let (can, environment) = (&platform.discovery_can, &platform.environment);
        let anchor = platform.deployment.anchor_key(platform.instance);
        let fencing = can.fencing && !platform.mutated(Mutation::WritesAreNotFenced);
        let mut options = Options::new(platform.instance, environment.random("anchor nonce"), anchor)
            .with_transactions(can.atomic_keys_max, fencing)
            .with_check_interval(platform.settings.lease_ttl)
            .with_spread(platform.settings.lease_ttl / 20);
        options.mutation = platform.settings.mutation;
        let registrar = Registrar::new(Instant::now(), options, environment.random("registrar jitter"));
        let shared = Arc::new(Shared {
            platform: platform.clone(),
            state: Mutex::new(State { registrar, trouble: None }),
            wanted: Notify::new(),
            done: Observed::new(()),
        });
        let task = platform.spawn("registrar", shared.clone().run(lease.state()));
        Self { shared, task: Mutex::new(Some(task)) }
    }

    /// Wants this record in the store; its lease and epoch are filled in with every write. Takes effect before
    /// it returns: whatever is written from here on is this.
    pub(crate) fn set(&self, key: Key, record: Record) {
        self.shared.state().registrar.set(key, record);
        self.shared.wanted.notify_one();
    }

    /// Wants the key to be gone. Takes effect before it returns: nothing writes it again.
    pub(crate) fn remove(&self, key: &Key) {
        self.shared.state().registrar.remove(key);
        self.shared.wanted.notify_one();
    }

    /// Waits until the key is in the store as wanted. Cancel-safe.
    pub(crate) async fn confirmed(&self, key: &Key) {
        self.wait(|registrar| registrar.confirmed(key)).await;
    }

    /// Waits until the key is gone from the store. Cancel-safe.
    pub(crate) async fn withdrawn(&self, key: &Key) {
        self.wait(|registrar| registrar.withdrawn(key)).await;
    }

    /// Why it takes so long, for people.
    pub(crate) fn trouble(&self) -> String {
        let state = self.shared.state();
        if state.registrar.in_conflict() {
            return "another process writes under this instance id".to_owned();
        }
        state.trouble.as_ref().map_or_else(|| "no answer yet".to_owned(), ToString::to_string)
    }

    /// Ends the task: nothing is written any more.
    pub(crate) async fn end(&self) {
        let task = self.task.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
        if let Some(mut task) = task {
            task.abort();
            task.end().await;
        }
    }

    async fn wait(&self, reached: impl Fn(&Registrar<Record>) -> bool) {
        let mut done = self.shared.done.observe();
        while !reached(&self.shared.state().registrar) {
            // It lives in what this handle keeps.
            let _ = done.changed().await;
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // No foreign code runs under this lock; a panic of the machine's own leaves it to the next check.
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    async fn run(self: Arc<Self>, mut lease: Observer<LeaseState>) {
        lease.mark_seen();
        self.handle_lease(lease.get());
        loop {
            let step = self.state().registrar.poll(Instant::now());
            let until = match step {
                Step::Commit(txn) => {
                    let result =
                        self.platform.within("registering", self.platform.discovery.commit(txn)).await;
                    let error = result.as_ref().err().cloned();
                    self.handle(error, |registrar, now| registrar.handle_commit(now, result));
                    continue;
                }
                Step::Read(keys) => {
                    let result = self.platform.within("checking records", self.read(keys)).await;
                    let error = result.as_ref().err().cloned();
                    self.handle(error, |registrar, now| registrar.handle_read(now, result));
                    continue;
                }
                Step::Wait(until) => Some(until),
                Step::Idle => None,
            };
            let due = async {
                match until {
                    Some(until) => tokio::time::sleep_until(until).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                changed = lease.changed() => match changed {
                    Some(lease) => self.handle_lease(lease),
                    None => return,
                },
                () = self.wanted.notified() => {}
                () = due => {}
            }
        }
    }

    fn handle_lease(&self, lease: LeaseState) {
        let mut state = self.state();
        match lease {
            LeaseState::Held { lease, epoch } => state.registrar.handle_lease(Instant::now(), lease, epoch),
            LeaseState::Lost { .. } | LeaseState::Released => state.registrar.handle_lease_lost(),
        }
    }

    fn handle(&self, error: Option<Error>, answer: impl FnOnce(&mut Registrar<Record>, Instant)) {
        let mut state = self.state();
        let conflict = state.registrar.in_conflict();
        answer(&mut state.registrar, Instant::now());
        if state.registrar.in_conflict() && !conflict {
            tracing::error!(
                instance = format_args!("{:x}", self.platform.instance),
                "another process writes under this instance id; nothing is registered until it is gone"
            );
        }
        if let Some(error) = &error {
            tracing::debug!(%error, "the registrar's operation failed; it is tried again");
        }
        state.trouble = error;
        drop(state);
        self.done.set(());
    }

    async fn read(&self, keys: Vec<Key>) -> Result<Vec<Entry>> {
        let mut entries = Vec::with_capacity(keys.len());
        for key in keys {
            entries.extend(self.platform.discovery.entry(&key).await?);
        }
        Ok(entries)
    }
}
