//! A mirror against a small store that loses, repeats, reorders, forgets and goes back in time.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Operation {
    /// The store changes: puts (with a value) and deletions at one revision.
    Write(Vec<(u8, Option<u8>)>),
    Compact,
    /// The store's state is saved, to be restored.
    Save,
    /// An older state, or none at all, takes the place of the store.
    Restore {
        emptied: bool,
    },
    /// The next step is done; what it asks of the store succeeds or not.
    Step {
        fails: Option<usize>,
    },
    /// The open watch delivers what is next.
    Deliver,
    /// It delivers everything that is left merged into one batch.
    Merge,
    /// It says how far it has come.
    Progress,
    /// It ends.
    End(usize),
    /// It loses what is next, without a word.
    Lose,
    /// It delivers again what came before.
    Repeat,
    /// It delivers the second next before the next.
    Swap,
    /// An answer arrives that nobody asked for.
    Stray(bool),
    Pass(u64),
}

fn operation() -> impl Strategy<Value = Operation> {
    let write = prop::collection::vec((0..5_u8, prop::option::weighted(0.6, 0..3_u8)), 1..4);
    prop_oneof![
        8 => write.prop_map(Operation::Write),
        1 => Just(Operation::Compact),
        1 => Just(Operation::Save),
        1 => any::<bool>().prop_map(|emptied| Operation::Restore { emptied }),
        8 => prop::option::weighted(0.2, 0..5_usize).prop_map(|fails| Operation::Step { fails }),
        8 => Just(Operation::Deliver),
        2 => Just(Operation::Merge),
        2 => Just(Operation::Progress),
        1 => (0..4_usize).prop_map(Operation::End),
        1 => Just(Operation::Lose),
        1 => Just(Operation::Repeat),
        1 => Just(Operation::Swap),
        1 => any::<bool>().prop_map(Operation::Stray),
        6 => (0..3_000_u64).prop_map(Operation::Pass),
    ]
}

const NO_ANSWER: usize = 4;

fn failure(number: usize) -> Error {
    match number {
        0 => unavailable(),
        1 => Error::compacted(Revision(1)),
        2 => Error::lagged(1),
        _ => Error::unauthorized("store", "the token ran out"),
    }
}

type Entries = BTreeMap<Key, Entry>;

/// What a store remembers: each revision with its changes and the entries after it.
#[derive(Debug, Clone, Default)]
struct Store {
    revision: u64,
    compacted: u64,
    entries: Entries,
    history: Vec<(Batch, Entries)>,
}

impl Store {
    fn write(&mut self, writes: &[(u8, Option<u8>)]) {
        let revision = self.revision + 1;
        let writes: BTreeMap<u8, Option<u8>> = writes.iter().copied().collect();
        let mut changes = Vec::new();
        for (number, value) in writes {
            match value {
                Some(value) => {
                    changes.push(put(number, value, revision));
                    self.entries.insert(key(number), entry(number, value, revision));
                }
                None if self.entries.remove(&key(number)).is_some() => {
                    changes.push(Change::Delete(key(number)));
                }
                None => {}
            }
        }
        if !changes.is_empty() {
            self.revision = revision;
            self.history.push((batch(revision, changes), self.entries.clone()));
        }
    }

    fn after(&self, revision: u64) -> VecDeque<Batch> {
        let newer = self.history.iter().filter(|(batch, _)| batch.revision.0 > revision);
        newer.map(|(batch, _)| batch.clone()).collect()
    }

    fn entries_at(&self, revision: u64) -> Entries {
        let until = self.history.iter().take_while(|(batch, _)| batch.revision.0 <= revision);
        until.last().map(|(_, entries)| entries.clone()).unwrap_or_default()
    }
}

struct World {
    mirror: Mirror,
    now: Instant,
    store: Store,
    saved: Store,
    /// How far the open watch has come.
    cursor: Option<u64>,
    last: Option<Batch>,
    /// The sum of all changes told.
    told: Entries,
    /// Was nothing lost or invented in silence since the last snapshot?
    honest: bool,
}

impl World {
    fn new() -> Self {
        let now = Instant::now();
        Self {
            mirror: mirror(now),
            now,
            store: Store::default(),
            saved: Store::default(),
            cursor: None,
            last: None,
            told: Entries::new(),
            honest: true,
        }
    }

    fn apply(&mut self, operation: &Operation) {
        match operation {
            Operation::Write(writes) => self.store.write(writes),
            Operation::Compact => self.store.compacted = self.store.revision,
            Operation::Save => self.saved = self.store.clone(),
            Operation::Restore { emptied } => {
                self.store = if *emptied { Store::default() } else { self.saved.clone() };
                self.honest = false;
            }
            Operation::Step { fails: Some(NO_ANSWER) } => {
                if let Step::Open(_) = self.mirror.poll(self.now) {
                    self.cursor = None;
                }
            }
            Operation::Step { fails } => drop(self.step(fails.map(failure))),
            Operation::Deliver => self.deliver(0),
            Operation::Merge => self.merge(),
            Operation::Progress => self.progress(),
            Operation::End(number) => self.end(failure(*number)),
            Operation::Lose => {
                if let Some(next) = self.pending(0) {
                    self.cursor = Some(next.revision.0);
                    self.honest = false;
                }
            }
            Operation::Repeat => {
                if let (Some(last), Some(_)) = (self.last.clone(), self.cursor) {
                    self.honest = false;
                    self.hand_in(last);
                }
            }
            Operation::Swap => {
                if let (Some(next), Some(_)) = (self.pending(0), self.pending(1)) {
                    self.honest = false;
                    self.deliver(1);
                    self.hand_in(next);
                }
            }
            Operation::Stray(base) => self.stray(*base),
            Operation::Pass(millis) => self.now += Duration::from_millis(*millis),
        }
    }

    /// Does what the mirror asks for, if it asks for anything.
    fn step(&mut self, failure: Option<Error>) -> Step {
        let step = self.mirror.poll(self.now);
        let Step::Open(start) = step else { return step };
        (self.cursor, self.last) = (None, None);
        assert_eq!(start, Start::Snapshot, "the store may have been put back since");
        if let Some(error) = failure {
            self.mirror.handle_end(self.now, error);
        } else {
            (self.cursor, self.honest) = (Some(self.store.revision), true);
            let entries: Vec<_> = self.store.entries.values().cloned().collect();
            let changes = self.mirror.handle_watch(self.now, snapshot(self.store.revision, entries));
            self.tell(changes);
        }
        step
    }

    fn pending(&self, nth: usize) -> Option<Batch> {
        self.store.after(self.cursor?).get(nth).cloned()
    }

    fn deliver(&mut self, nth: usize) {
        match self.cursor {
            Some(cursor) if cursor < self.store.compacted => self.end(Error::compacted(Revision(1))),
            _ => {
                if let Some(next) = self.pending(nth) {
                    self.hand_in(next);
                }
            }
        }
    }

    fn merge(&mut self) {
        let Some(cursor) = self.cursor.filter(|cursor| *cursor >= self.store.compacted) else { return };
        let all = self.store.after(cursor);
        let changes = all.iter().flat_map(|batch| &batch.changes);
        let merged: BTreeMap<&Key, &Change> = changes.map(|change| (change.key(), change)).collect();
        if let Some(last) = all.back() {
            self.hand_in(batch(last.revision.0, merged.into_values().cloned().collect::<Vec<_>>()));
        }
    }

    fn progress(&mut self) {
        // As far as this watch knows: a restored store has its old watches stay silent.
        if self.cursor == Some(self.store.revision) {
            self.hand_in(batch(self.store.revision, []));
        }
    }

    fn end(&mut self, cause: Error) {
        if self.cursor.take().is_some() {
            self.mirror.handle_end(self.now, cause);
        }
    }

    fn hand_in(&mut self, batch: Batch) {
        self.cursor = self.cursor.max(Some(batch.revision.0));
        if !batch.changes.is_empty() {
            self.last = Some(batch.clone());
        }
        let changes = self.mirror.handle_batch(self.now, batch);
        self.tell(changes);
    }

    /// Only what fits no watch may be ignored, so nothing may come of it.
    fn stray(&mut self, base: bool) {
        match (base, self.cursor) {
            (false, None) => {
                let changes = self.mirror.handle_batch(self.now, batch(1_000, [put(9, 9, 1_000)]));
                assert_eq!(changes, []);
            }
            (_, Some(_)) => {
                let changes = self.mirror.handle_watch(self.now, snapshot(1_000, [entry(9, 9, 1_000)]));
                assert_eq!(changes, []);
            }
            (_, None) => self.mirror.handle_end(self.now, unavailable()),
        }
    }

    fn tell(&mut self, changes: Vec<Change>) {
        for change in changes {
            let real = match change {
                Change::Put(entry) => self.told.insert(entry.key.clone(), entry.clone()) != Some(entry),
                Change::Delete(key) => self.told.remove(&key).is_some(),
            };
            assert!(real, "a change that changes nothing");
        }
    }

    fn check(&self) {
        assert_eq!(&self.told, self.mirror.entries());
        if let (State::Live(revision), true) = (self.mirror.state(), self.honest) {
            assert_eq!(&self.told, &self.store.entries_at(revision.0), "at revision {revision}");
        }
    }

    /// No more faults and no more writes, for long enough that a comparison comes round.
    fn rest(&mut self) {
        let until = self.now + RECONCILE * 12 / 10 + PAUSE_PERMANENT * 2;
        let mut opened = 0;
        while self.now < until {
            match self.step(None) {
                Step::Open(_) => {
                    opened += 1;
                    assert!(opened <= 30, "{opened} watches opened at rest");
                }
                Step::Wait(at) => {
                    self.now = at.min(self.now + SILENCE / 2);
                    while self.cursor.is_some() && self.pending(0).is_some() {
                        self.deliver(0);
                    }
                    self.progress();
                }
            }
            self.check();
        }
        assert_eq!(*self.mirror.state(), State::Live(Revision(self.store.revision)));
        assert_eq!(self.mirror.entries(), &self.store.entries);
    }
}

proptest! {
    /// Through every kind of gap, doubling, compaction, restoration and silence: the changes always add up to
    /// the entries (SW5), a live view is a replay of the store up to its revision (SW1), and at rest it is
    /// the store.
    #[test]
    fn sw1_a_live_view_is_a_replay(operations in prop::collection::vec(operation(), 1..150)) {
        let mut world = World::new();
        for operation in &operations {
            world.apply(operation);
            world.check();
        }
        world.rest();
    }
}
