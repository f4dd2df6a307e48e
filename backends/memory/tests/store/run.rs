//! Steps to draw, and the record of a run of them.

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;
use slipring_core::{
    Base, Batch, Commit, Entry, Key, Lease, LeaseId, Prefix, Range, Result, Revision, Snapshot, Start, Txn,
    WatchFidelity,
};
use slipring_memory::Profile;
use slipring_memory::store::{Store, WatchId};

/// The knobs that a run turns.
#[derive(Debug, Clone)]
pub(crate) struct World {
    pub granularity: Duration,
    pub phase: Duration,
    pub expiries_per_scan: usize,
    pub expiry_atomic: bool,
    pub ttl_min: Duration,
    pub history_revisions_max: usize,
    pub atomic_keys_max: usize,
    pub watch: WatchFidelity,
}

impl World {
    pub(crate) fn store(&self) -> Store {
        let exact = Profile::exact();
        let discovery = exact
            .discovery
            .with_expiry_atomic(self.expiry_atomic)
            .with_ttl_min(self.ttl_min)
            .with_atomic_keys_max(self.atomic_keys_max)
            .with_watch(self.watch);
        let profile = exact
            .with_discovery(discovery)
            .with_expiry_granularity(self.granularity)
            .with_expiries_per_scan(self.expiries_per_scan)
            .with_history_revisions_max(self.history_revisions_max);
        // Half of the numbers that a seed can be is a phase of half a granularity.
        Store::new(profile, if self.phase.is_zero() { 1 } else { 1 << 63 })
    }
}

/// A step as it is drawn: which lease, watch or revision it means depends on what happened before.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    Advance(u64),
    Read(Range),
    Commit(Vec<(Key, Condition)>, Vec<Write>),
    Grant(u64),
    KeepAlive(usize),
    Revoke(usize),
    Compact(i64),
    Watch(Range, Option<i64>),
    Poll(usize),
    Close(usize),
}

#[derive(Debug, Clone)]
pub(crate) enum Condition {
    Absent,
    Unchanged,
    Stale,
}

#[derive(Debug, Clone)]
pub(crate) enum Write {
    Put(Key, u8, Option<usize>),
    Delete(Key),
}

/// What the store was really asked.
#[derive(Debug, Clone)]
pub(crate) enum Input {
    Advance(Duration),
    Read(Range),
    Commit(Txn),
    Grant(Duration),
    KeepAlive(LeaseId),
    Revoke(LeaseId),
    Compact(Revision),
    Watch(Range, Start),
    Poll(usize),
    Close(usize),
}

/// What it said.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Answer {
    Done,
    Read(Snapshot),
    Commit(Result<Commit>),
    Grant(Result<Lease>),
    KeepAlive(Result<Duration>),
    Revoke(Result<()>),
    Compact(Result<()>),
    Watch(Result<Base>),
    Poll(Result<Option<Batch>>),
}

/// One call, with what the store was before and after it.
#[derive(Debug)]
pub(crate) struct Call {
    pub now: Duration,
    pub input: Input,
    pub answer: Answer,
    pub before: State,
    pub after: State,
    /// The revisions that it made, as a watch of everything saw them at once.
    pub made: Vec<Batch>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct State {
    pub revision: Revision,
    pub oldest: Revision,
    pub entries: Vec<Entry>,
    pub leases: Vec<LeaseId>,
}

/// A watch and all that it yielded; in the end every watch that is still open is read to its end.
#[derive(Debug)]
pub(crate) struct Watched {
    pub id: WatchId,
    pub range: Range,
    pub base: Base,
    pub batches: Vec<Batch>,
    /// The progress that it could have told, each with the number of batches before it.
    pub progress: Vec<(usize, Revision)>,
    /// How many batches it had yielded when it was closed, or failed.
    pub closed_at: Option<usize>,
    pub failed: Option<slipring_core::Error>,
    /// The revision of the store when it was closed, or at the end.
    pub until: Revision,
}

impl Watched {
    /// The revision that its events follow.
    pub(crate) fn start(&self) -> Revision {
        match &self.base {
            Base::Snapshot(snapshot) => snapshot.revision,
            Base::Resumed(revision) => *revision,
        }
    }
}

/// Everything that happened.
#[derive(Debug)]
pub(crate) struct Run {
    pub calls: Vec<Call>,
    pub watches: Vec<Watched>,
}

impl Run {
    pub(crate) fn new(world: &World, steps: &[Step]) -> Self {
        let mut runner = Runner::new(world.store());
        steps.iter().for_each(|step| runner.step(step));
        runner.finish()
    }

    /// All revisions that were made, in order.
    pub(crate) fn history(&self) -> impl Iterator<Item = &Batch> {
        self.calls.iter().flat_map(|call| &call.made)
    }
}

struct Runner {
    store: Store,
    now: Duration,
    auditor: WatchId,
    /// Every lease that was ever granted; the first was not.
    leases: Vec<LeaseId>,
    run: Run,
}

impl Runner {
    fn new(mut store: Store) -> Self {
        let (auditor, _) = store.watch(Duration::ZERO, Range::All, Start::Snapshot).unwrap();
        let run = Run { calls: Vec::new(), watches: Vec::new() };
        Self { store, now: Duration::ZERO, auditor, leases: vec![LeaseId(1)], run }
    }

    fn step(&mut self, step: &Step) {
        let before = self.state();
        let input = self.input(step, &before);
        let answer = self.call(&input);
        let after = self.state();
        let mut made = Vec::new();
        while let Some(batch) = self.store.poll(self.auditor).unwrap() {
            made.push(batch);
        }
        for watch in self.run.watches.iter_mut().filter(|watch| watch.closed_at.is_none()) {
            watch.until = after.revision;
            let progress = self.store.progress(watch.id).map(|progress| progress.revision);
            watch.progress.extend(progress.map(|revision| (watch.batches.len(), revision)));
        }
        self.run.calls.push(Call { now: self.now, input, answer, before, after, made });
    }

    fn finish(mut self) -> Run {
        for watch in 0..self.run.watches.len() {
            while let Answer::Poll(Ok(Some(_))) = self.call(&Input::Poll(watch)) {}
        }
        self.run
    }

    fn state(&mut self) -> State {
        let entries = self.store.read(self.now, &Range::All).entries;
        let leases = self.store.leases().iter().map(|lease| lease.id).collect();
        State { revision: self.store.revision(), oldest: self.store.oldest(), entries, leases }
    }

    fn input(&self, step: &Step, before: &State) -> Input {
        let lease = |index: &usize| self.leases[index % self.leases.len()];
        let revision = |back: &i64| Revision(before.revision.0.saturating_add_signed(-back));
        match step {
            Step::Advance(millis) => Input::Advance(Duration::from_millis(*millis)),
            Step::Read(range) => Input::Read(range.clone()),
            Step::Commit(conditions, writes) => {
                let mut txn = Txn::new();
                for (key, condition) in conditions {
                    let entry = before.entries.iter().find(|entry| entry.key == *key);
                    let modified = entry.map_or(before.revision, |entry| entry.modified);
                    txn = match condition {
                        Condition::Absent => txn.absent(key.clone()),
                        Condition::Unchanged => txn.unchanged(key.clone(), modified),
                        Condition::Stale => txn.unchanged(key.clone(), Revision(modified.0 - 1)),
                    };
                }
                Input::Commit(writes.iter().fold(txn, |txn, write| match write {
                    Write::Put(key, value, index) => {
                        txn.put(key.clone(), vec![*value], index.as_ref().map(lease))
                    }
                    Write::Delete(key) => txn.delete(key.clone()),
                }))
            }
            Step::Grant(millis) => Input::Grant(Duration::from_millis(*millis)),
            Step::KeepAlive(index) => Input::KeepAlive(lease(index)),
            Step::Revoke(index) => Input::Revoke(lease(index)),
            Step::Compact(back) => Input::Compact(revision(back)),
            Step::Watch(range, None) => Input::Watch(range.clone(), Start::Snapshot),
            Step::Watch(range, Some(back)) => Input::Watch(range.clone(), Start::After(revision(back))),
            Step::Poll(index) => Input::Poll(index % self.run.watches.len().max(1)),
            Step::Close(index) => Input::Close(index % self.run.watches.len().max(1)),
        }
    }

    fn call(&mut self, input: &Input) -> Answer {
        let (store, now) = (&mut self.store, self.now);
        match input.clone() {
            Input::Advance(time) => {
                self.now += time;
                store.advance(self.now);
                Answer::Done
            }
            Input::Read(range) => Answer::Read(store.read(now, &range)),
            Input::Commit(txn) => Answer::Commit(store.commit(now, txn)),
            Input::Grant(ttl) => {
                let lease = store.grant(now, ttl);
                self.leases.extend(lease.iter().map(|lease| lease.id));
                Answer::Grant(lease)
            }
            Input::KeepAlive(lease) => Answer::KeepAlive(store.keep_alive(now, lease)),
            Input::Revoke(lease) => Answer::Revoke(store.revoke(now, lease)),
            Input::Compact(revision) => Answer::Compact(store.compact(revision)),
            Input::Watch(range, start) => Answer::Watch(self.watch(range, start)),
            Input::Poll(watch) => Answer::Poll(self.poll(watch)),
            Input::Close(watch) => {
                if let Some(watch) = self.run.watches.get_mut(watch) {
                    store.unwatch(watch.id);
                    watch.closed_at.get_or_insert(watch.batches.len());
                }
                Answer::Done
            }
        }
    }

    fn watch(&mut self, range: Range, start: Start) -> Result<Base> {
        let (id, base) = self.store.watch(self.now, range.clone(), start)?;
        self.run.watches.push(Watched {
            id,
            range,
            base: base.clone(),
            batches: Vec::new(),
            progress: Vec::new(),
            closed_at: None,
            failed: None,
            until: self.store.revision(),
        });
        Ok(base)
    }

    fn poll(&mut self, watch: usize) -> Result<Option<Batch>> {
        let Some(watch) = self.run.watches.get_mut(watch) else { return Ok(None) };
        let polled = self.store.poll(watch.id);
        match &polled {
            Ok(batch) => watch.batches.extend(batch.clone()),
            Err(error) => {
                watch.failed = Some(error.clone());
                watch.closed_at = Some(watch.batches.len());
            }
        }
        polled
    }
}

/// Enough cases to find what was ever found, few enough for every build; `PROPTEST_CASES` asks for more.
pub(crate) fn config() -> ProptestConfig {
    let asked = ProptestConfig::default();
    if std::env::var_os("PROPTEST_CASES").is_some() { asked } else { ProptestConfig { cases: 100, ..asked } }
}

/// Keys that try the borders of prefixes.
pub(crate) const KEYS: [&str; 6] = ["a/x", "a/y", "a/y:1", "ab/x", "b:1", "c"];

pub(crate) fn key(text: &str) -> Key {
    Key::new(text).unwrap()
}

pub(crate) fn a_key() -> impl Strategy<Value = Key> {
    prop::sample::select(&KEYS[..]).prop_map(key)
}

pub(crate) fn a_range() -> impl Strategy<Value = Range> {
    let prefix = prop::sample::select(&["a/", "a/y:", "ab/", "b:", "z/"][..]);
    prop_oneof![
        Just(Range::All),
        a_key().prop_map(Range::Key),
        prefix.prop_map(|text| Range::Prefix(Prefix::new(text).unwrap())),
    ]
}

pub(crate) fn a_step() -> impl Strategy<Value = Step> {
    let condition = prop_oneof![
        2 => Just(Condition::Unchanged),
        2 => Just(Condition::Absent),
        1 => Just(Condition::Stale)
    ];
    let lease = prop::option::weighted(0.6, 0_usize..8);
    let write = prop_oneof![
        3 => (a_key(), any::<u8>(), lease).prop_map(|(key, value, lease)| Write::Put(key, value, lease)),
        1 => a_key().prop_map(Write::Delete),
    ];
    let conditions = prop::collection::vec((a_key(), condition), 0..2);
    prop_oneof![
        3 => (0_u64..60).prop_map(Step::Advance),
        1 => a_range().prop_map(Step::Read),
        6 => (conditions, prop::collection::vec(write, 0..4)).prop_map(|(c, w)| Step::Commit(c, w)),
        2 => (1_u64..150).prop_map(Step::Grant),
        2 => (0_usize..8).prop_map(Step::KeepAlive),
        1 => (0_usize..8).prop_map(Step::Revoke),
        1 => (-1_i64..6).prop_map(Step::Compact),
        2 => (a_range(), prop::option::of(-1_i64..6)).prop_map(|(range, back)| Step::Watch(range, back)),
        4 => (0_usize..4).prop_map(Step::Poll),
        1 => (0_usize..4).prop_map(Step::Close),
    ]
}

pub(crate) fn steps() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(a_step(), 1..80)
}

pub(crate) fn a_world() -> impl Strategy<Value = World> {
    let millis = |choices: &'static [u64]| prop::sample::select(choices).prop_map(Duration::from_millis);
    let keeping = prop::sample::select(&[8_usize, 10_000][..]);
    let scanning = prop::sample::select(&[1_usize, 500][..]);
    let keys = prop::sample::select(&[2_usize, 128][..]);
    (millis(&[0, 40]), any::<bool>(), scanning, any::<bool>(), millis(&[1, 30]), keeping, keys).prop_map(
        |(granularity, half, expiries_per_scan, expiry_atomic, ttl_min, history_revisions_max, keys)| World {
            granularity,
            phase: if half { granularity / 2 } else { Duration::ZERO },
            expiries_per_scan,
            expiry_atomic,
            ttl_min,
            history_revisions_max,
            atomic_keys_max: keys,
            watch: WatchFidelity::EveryRevision,
        },
    )
}

/// A drawn run.
pub(crate) fn a_run() -> impl Strategy<Value = Run> {
    (a_world(), steps()).prop_map(|(world, steps)| Run::new(&world, &steps))
}

/// A drawn run, of a world that is first changed.
pub(crate) fn a_run_with(change: impl Fn(&mut World)) -> impl Strategy<Value = Run> {
    (a_world(), steps()).prop_map(move |(mut world, steps)| {
        change(&mut world);
        Run::new(&world, &steps)
    })
}

/// The keys that a batch deletes; it must do nothing else.
pub(crate) fn deleted(batch: &Batch) -> Vec<Key> {
    let delete = |change: &slipring_core::Change| match change {
        slipring_core::Change::Delete(key) => key.clone(),
        put => panic!("this is no delete: {put:?}"),
    };
    batch.changes.iter().map(delete).collect()
}

/// The leases that ended in a call.
pub(crate) fn ended(call: &Call) -> BTreeSet<LeaseId> {
    let after: BTreeSet<LeaseId> = call.after.leases.iter().copied().collect();
    call.before.leases.iter().copied().filter(|lease| !after.contains(lease)).collect()
}
