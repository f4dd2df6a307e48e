//! A registrar against a small store whose answers are lost, delayed, doubled, and tampered with.

use std::collections::BTreeSet;

use proptest::prelude::*;
use proptest::sample::Index;

use super::*;

/// How long the network can hold a transaction back, and how old a backup can be.
const DELAY_MAX: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, Copy)]
enum Fate {
    /// Done and answered.
    Well,
    /// It never leaves, and that is known.
    Fails,
    /// It is lost on the way.
    LostBefore,
    /// It is done, but its answer is lost.
    LostAfter,
    /// It is done later, perhaps.
    Delayed,
    /// It is done, and a copy of it is delayed.
    Doubled,
}

#[derive(Debug, Clone)]
enum Operation {
    Set(u8, u8),
    Remove(u8),
    /// The next step is taken, if it is an operation.
    Start,
    /// What is under way meets its fate.
    Finish(Fate),
    /// A delayed transaction arrives.
    Arrive(Index),
    /// The store ends the lease, and all earlier ones.
    Expire,
    /// The owner learns that its lease is lost.
    Lose,
    /// There is a new lease, whatever became of the old.
    Regain,
    Pass(u64),
    Tamper(Tampering),
}

#[derive(Debug, Clone)]
enum Tampering {
    /// Somebody deletes a record; the anchor is number 0.
    Delete(u8),
    /// Somebody writes a record without a lease; the anchor is number 0.
    Overwrite(u8),
    Save,
    Restore,
    Empty,
}

fn operation(tampering: bool) -> impl Strategy<Value = Operation> {
    let fate = prop_oneof![
        5 => Just(Fate::Well),
        1 => Just(Fate::Fails),
        1 => Just(Fate::LostBefore),
        1 => Just(Fate::LostAfter),
        2 => Just(Fate::Delayed),
        1 => Just(Fate::Doubled),
    ];
    let tamper = prop_oneof![
        (0..5_u8).prop_map(Tampering::Delete),
        (0..5_u8).prop_map(Tampering::Overwrite),
        Just(Tampering::Save),
        Just(Tampering::Restore),
        Just(Tampering::Empty),
    ];
    prop_oneof![
        4 => (1..5_u8, 0..3_u8).prop_map(|(key, value)| Operation::Set(key, value)),
        3 => (1..5_u8).prop_map(Operation::Remove),
        12 => Just(Operation::Start),
        12 => fate.prop_map(Operation::Finish),
        4 => any::<Index>().prop_map(Operation::Arrive),
        1 => Just(Operation::Expire),
        1 => Just(Operation::Lose),
        2 => Just(Operation::Regain),
        10 => (0..3_000_u64).prop_map(Operation::Pass),
        if tampering { 2 } else { 0 } => tamper.prop_map(Operation::Tamper),
    ]
}

#[derive(Debug, Clone, Default)]
struct Store {
    revision: u64,
    entries: BTreeMap<Key, Entry>,
    leases: BTreeSet<LeaseId>,
}

impl Store {
    fn commit(&mut self, txn: &Txn) -> Result<Commit> {
        let holds = txn.guards.iter().all(|guard| match guard {
            Guard::Absent(key) => !self.entries.contains_key(key),
            Guard::Unchanged(key, revision) => {
                self.entries.get(key).is_some_and(|entry| entry.modified == *revision)
            }
        });
        if !holds {
            return Ok(Commit::Refused);
        }
        for op in &txn.ops {
            if let Op::Put { lease: Some(lease), .. } = op
                && !self.leases.contains(lease)
            {
                return Err(Error::lease_lost(*lease));
            }
        }
        self.revision += 1;
        let modified = Revision(self.revision);
        for op in txn.ops.clone() {
            match op {
                Op::Put { key, value, lease } => {
                    self.entries.insert(key.clone(), Entry { key, value, modified, lease });
                }
                Op::Delete { key } => drop(self.entries.remove(&key)),
            }
        }
        Ok(Commit::Applied(modified))
    }

    fn expire(&mut self, until: LeaseId) {
        self.leases = self.leases.split_off(&LeaseId(until.0 + 1));
        self.entries.retain(|_, entry| entry.lease.is_none_or(|lease| lease > until));
        self.revision += 1;
    }
}

struct World {
    registrar: Registrar<Text>,
    now: Instant,
    store: Store,
    saved: Option<(Instant, Store)>,
    wanted: BTreeMap<Key, Text>,
    lease: LeaseId,
    epoch: u64,
    under_way: Option<Step>,
    delayed: Vec<(Instant, Txn)>,
    fencing: bool,
    /// Did somebody else ever write?
    tampered: bool,
    /// What the last applied transaction wrote to the anchor: epoch and sequence.
    mark: Option<(u64, u64)>,
}

impl World {
    fn new(atomic_keys_max: usize) -> Self {
        let now = Instant::now();
        let mut world = Self {
            registrar: registrar(now, atomic_keys_max),
            now,
            store: Store::default(),
            saved: None,
            wanted: BTreeMap::new(),
            lease: LEASE,
            epoch: 0,
            under_way: None,
            delayed: Vec::new(),
            fencing: atomic_keys_max > 1,
            tampered: false,
            mark: None,
        };
        world.regain();
        world
    }

    fn apply(&mut self, operation: &Operation) {
        match operation {
            Operation::Set(number, value) => {
                self.wanted.insert(key(*number), Text(*value));
                self.registrar.set(key(*number), Text(*value));
            }
            Operation::Remove(number) => {
                self.wanted.remove(&key(*number));
                self.registrar.remove(&key(*number));
            }
            Operation::Start => self.start(),
            Operation::Finish(fate) => self.finish(*fate),
            Operation::Arrive(index) => {
                self.forget_delayed();
                if !self.delayed.is_empty() {
                    let (_, txn) = self.delayed.remove(index.index(self.delayed.len()));
                    drop(self.commit(&txn));
                }
            }
            Operation::Expire => self.store.expire(self.lease),
            Operation::Lose => self.registrar.handle_lease_lost(),
            Operation::Regain => self.regain(),
            Operation::Pass(millis) => self.now += Duration::from_millis(*millis),
            Operation::Tamper(tampering) => self.tamper(tampering),
        }
    }

    fn forget_delayed(&mut self) {
        self.delayed.retain(|(sent, _)| self.now < *sent + DELAY_MAX);
    }

    fn regain(&mut self) {
        self.lease = LeaseId(self.lease.0 + 1);
        self.epoch += 1;
        self.store.leases.insert(self.lease);
        self.registrar.handle_lease(self.now, self.lease, self.epoch);
    }

    fn tamper(&mut self, tampering: &Tampering) {
        let victim = |number: u8| if number == 0 { anchor() } else { key(number) };
        match tampering {
            Tampering::Save => return self.saved = Some((self.now, self.store.clone())),
            Tampering::Delete(number) => drop(self.store.entries.remove(&victim(*number))),
            Tampering::Overwrite(number) => {
                self.store.revision += 1;
                let (key, modified) = (victim(*number), Revision(self.store.revision));
                let entry = Entry { key: key.clone(), value: "mine".into(), modified, lease: None };
                self.store.entries.insert(key, entry);
            }
            Tampering::Restore => match self.saved.take_if(|(saved, _)| self.now < *saved + DELAY_MAX) {
                Some((_, store)) => self.store = store,
                None => return,
            },
            Tampering::Empty => self.store = Store { revision: 1, ..Store::default() },
        }
        self.tampered = true;
    }

    fn commit(&mut self, txn: &Txn) -> Result<Commit> {
        let answer = self.store.commit(txn);
        // A fence lasts as long as nobody else moves it.
        if self.fencing && !self.tampered && matches!(answer, Ok(Commit::Applied(_))) {
            let mark = Mark::decode(&anchor_entry(txn, 0).value).unwrap();
            let mark = Some((mark.epoch, mark.sequence));
            assert!(mark > self.mark, "L9: {mark:?} was applied after {:?}", self.mark);
            self.mark = mark;
        }
        answer
    }

    fn start(&mut self) {
        match self.registrar.poll(self.now) {
            Step::Wait(until) => assert!(until > self.now),
            Step::Idle => {}
            step => assert!(self.under_way.replace(step).is_none(), "two operations at once"),
        }
    }

    fn finish(&mut self, fate: Fate) {
        match self.under_way.take() {
            Some(Step::Commit(txn)) => {
                txn.check(self.registrar.options.atomic_keys_max).unwrap();
                let answer = self.fated(&txn, fate);
                self.registrar.handle_commit(self.now, answer);
            }
            Some(Step::Read(keys)) => {
                let found = keys.iter().filter_map(|key| self.store.entries.get(key)).cloned().collect();
                let down = Err(Error::unavailable("store", "down", Effect::None));
                self.registrar.handle_read(self.now, if let Fate::Well = fate { Ok(found) } else { down });
            }
            _ => self.stray(),
        }
    }

    /// Answers to nothing change nothing.
    fn stray(&mut self) {
        let settled = self.registrar.settled();
        self.registrar.handle_commit(self.now, Ok(Commit::Applied(Revision(1_000))));
        self.registrar.handle_read(self.now, Ok(vec![]));
        assert_eq!(self.registrar.settled(), settled);
    }

    fn fated(&mut self, txn: &Txn, fate: Fate) -> Result<Commit> {
        match fate {
            Fate::Well => self.commit(txn),
            Fate::Fails => Err(Error::unavailable("store", "down", Effect::None)),
            Fate::LostBefore => Err(unknown()),
            Fate::LostAfter => self.commit(txn).and(Err(unknown())),
            Fate::Delayed => {
                self.delayed.push((self.now, txn.clone()));
                Err(unknown())
            }
            Fate::Doubled => {
                self.delayed.push((self.now, txn.clone()));
                self.commit(txn)
            }
        }
    }

    fn check(&self) {
        for key in (1..5).map(key) {
            let (stored, wanted) = (self.store.entries.get(&key), self.wanted.get(&key));
            let (confirmed, withdrawn) = (self.registrar.confirmed(&key), self.registrar.withdrawn(&key));
            assert!(if wanted.is_some() { !withdrawn } else { !confirmed });
            // What these say of the store rests on the fence and on the lease.
            if !self.fencing || self.tampered || !self.store.leases.contains(&self.lease) {
                continue;
            }
            assert!(!withdrawn || stored.is_none(), "{key} came back");
            if confirmed {
                let value = wanted.map(|record| record.encode(self.lease, self.epoch));
                assert_eq!(stored.map(|entry| entry.value.clone()), value, "{key} is not as confirmed");
            }
        }
    }

    /// The faults are over: what is delayed arrives, a lease is held and no other lives, nobody else writes.
    fn heal(&mut self) {
        self.forget_delayed();
        for (_, txn) in std::mem::take(&mut self.delayed) {
            drop(self.commit(&txn));
        }
        if self.store.entries.get(&anchor()).is_some_and(|entry| entry.lease.is_none()) {
            self.store.entries.remove(&anchor());
        }
        self.finish(Fate::Well);
        let held = self.registrar.held.is_some_and(|held| held.lease == self.lease);
        if held && self.store.leases.contains(&self.lease) {
            self.store.expire(LeaseId(self.lease.0 - 1));
        } else {
            self.store.expire(self.lease);
            self.regain();
        }
    }

    /// Runs without faults for this long and returns how many transactions it took.
    fn run(&mut self, time: Duration) -> usize {
        let (until, mut commits, mut steps) = (self.now + time, 0, 0);
        while self.now < until {
            match self.registrar.poll(self.now) {
                Step::Wait(at) => self.now = at,
                Step::Idle => self.now = until,
                step => {
                    commits += usize::from(matches!(step, Step::Commit(_)));
                    self.under_way = Some(step);
                    self.finish(Fate::Well);
                }
            }
            self.check();
            steps += 1;
            assert!(steps < 1_000, "a hot loop");
        }
        commits
    }

    /// The store holds what is wanted, under the lease of now. What others wrote under keys that were never
    /// ours is left alone.
    fn check_rest(&self) {
        let as_wanted = |record: &Text| (record.encode(self.lease, self.epoch), Some(self.lease));
        let wanted = self.wanted.iter().map(|(key, record)| (key.clone(), as_wanted(record)));
        let records =
            self.store.entries.values().filter(|entry| entry.key != anchor() && entry.lease.is_some());
        let stored = records.map(|entry| (entry.key.clone(), (entry.value.clone(), entry.lease)));
        assert_eq!(stored.collect::<BTreeMap<_, _>>(), wanted.collect());
        assert!(self.registrar.settled());
    }
}

fn run(atomic_keys_max: usize, operations: &[Operation]) {
    let mut world = World::new(atomic_keys_max);
    for operation in operations {
        world.apply(operation);
        world.check();
    }
    world.heal();
    world.run(CHECK * 6);
    world.check_rest();
    assert_eq!(world.run(CHECK * 12), 0, "writes at rest");
    world.check_rest();
}

proptest! {
    /// With lost, delayed and doubled writes, and leases lost on either side: no write of an earlier epoch or
    /// moment is applied after a later one (L9), what is confirmed is there, what is withdrawn stays away,
    /// and once the faults heal the store holds exactly what is wanted and is left alone (L12).
    #[test]
    fn l9_no_write_overtakes_a_later_one(
        atomic_keys_max in 2..5_usize,
        operations in prop::collection::vec(operation(false), 1..200),
    ) {
        run(atomic_keys_max, &operations);
    }

    /// It ends as well when others delete, overwrite, restore and empty, and on a store that cannot fence.
    #[test]
    fn l12_after_any_tampering_the_store_is_as_wanted(
        atomic_keys_max in 1..5_usize,
        operations in prop::collection::vec(operation(true), 1..200),
    ) {
        run(atomic_keys_max, &operations);
    }
}
