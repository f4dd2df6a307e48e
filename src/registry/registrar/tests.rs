use super::*;

mod property;

const CHECK: Duration = Duration::from_secs(10);
const LEASE: LeaseId = LeaseId(100);
const MILLI: Duration = Duration::from_millis(1);

/// A record that says all that its bytes depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Text(u8);

impl Record for Text {
    fn encode(&self, lease: LeaseId, epoch: u64) -> Bytes {
        format!("{} under {lease} in {epoch}", self.0).into()
    }
}

fn key(number: u8) -> Key {
    Key::new(format!("r/{number}")).unwrap()
}

fn anchor() -> Key {
    Key::new("a/1").unwrap()
}

fn registrar(now: Instant, atomic_keys_max: usize) -> Registrar<Text> {
    let options = Options::new(1, 77, anchor());
    let options = options.with_transactions(atomic_keys_max, true).with_check_interval(CHECK);
    Registrar::new(now, options, 5)
}

/// A registrar with a first lease that wants these keys.
fn wanting(now: Instant, atomic_keys_max: usize, keys: std::ops::Range<u8>) -> Registrar<Text> {
    let mut registrar = registrar(now, atomic_keys_max);
    registrar.handle_lease(now, LEASE, 1);
    keys.for_each(|number| registrar.set(key(number), Text(number)));
    registrar
}

/// Waits as the registrar asks until it wants to commit.
fn next_commit(registrar: &mut Registrar<Text>, now: &mut Instant) -> Txn {
    match next_operation(registrar, now) {
        Step::Commit(txn) => txn,
        other => panic!("no commit but {other:?}"),
    }
}

fn next_operation(registrar: &mut Registrar<Text>, now: &mut Instant) -> Step {
    loop {
        match registrar.poll(*now) {
            Step::Wait(until) => {
                assert!(until > *now, "a wait that does not wait is a hot loop");
                *now = until;
            }
            step => return step,
        }
    }
}

fn anchor_entry(txn: &Txn, modified: u64) -> Entry {
    match &txn.ops[0] {
        Op::Put { key, value, lease } => {
            assert_eq!(*key, anchor());
            let (key, value, lease) = (key.clone(), value.clone(), *lease);
            Entry { key, value, modified: Revision(modified), lease }
        }
        Op::Delete { .. } => panic!("the anchor comes first"),
    }
}

/// What the store should hold for the record of this number, under the first lease.
fn stored(number: u8) -> Entry {
    let value = Text(number).encode(LEASE, 1);
    Entry { key: key(number), value, modified: Revision(2), lease: Some(LEASE) }
}

fn unknown() -> Error {
    Error::unavailable("store", "cut", Effect::Unknown)
}

fn written(txn: &Txn) -> Vec<Key> {
    txn.ops.iter().map(Op::key).filter(|key| **key != anchor()).cloned().collect()
}

/// Each transaction holds as many records as the store takes beside the anchor, and is guarded by what the
/// one before left there.
#[test]
fn few_transactions_each_fenced_by_the_last() {
    let mut now = Instant::now();
    let mut registrar = wanting(now, 4, 0..5);
    let first = next_commit(&mut registrar, &mut now);
    first.check(4).unwrap();
    assert_eq!(first.guards, [Guard::Absent(anchor())]);
    assert_eq!(written(&first), [key(0), key(1), key(2)]);
    assert_eq!(registrar.poll(now), Step::Idle, "one operation at a time");
    registrar.handle_commit(now, Ok(Commit::Applied(Revision(9))));
    assert!(registrar.confirmed(&key(0)) && !registrar.confirmed(&key(3)));
    let second = next_commit(&mut registrar, &mut now);
    assert_eq!(second.guards, [Guard::Unchanged(anchor(), Revision(9))]);
    assert_eq!(written(&second), [key(3), key(4)]);
    registrar.handle_commit(now, Ok(Commit::Applied(Revision(10))));
    assert!(registrar.settled());
    assert!(matches!(registrar.poll(now), Step::Wait(_)));
}

/// Without transactions each record is one plain write.
#[test]
fn a_store_that_cannot_fence_gets_plain_writes() {
    let mut now = Instant::now();
    let mut registrar = wanting(now, 1, 0..1);
    let txn = next_commit(&mut registrar, &mut now);
    txn.check(1).unwrap();
    assert_eq!((txn.guards.len(), written(&txn)), (0, vec![key(0)]));
    registrar.handle_commit(now, Err(unknown()));
    let again = next_commit(&mut registrar, &mut now);
    assert_eq!(again, txn);
    registrar.handle_commit(now, Ok(Commit::Applied(Revision(2))));
    assert!(registrar.settled());
}

/// The anchor tells whether a transaction with an unknown outcome was applied.
#[test]
fn k9_an_unknown_outcome_is_decided_by_the_anchor() {
    let mut now = Instant::now();
    for applied in [true, false] {
        let mut registrar = wanting(now, 4, 0..1);
        let txn = next_commit(&mut registrar, &mut now);
        registrar.handle_commit(now, Err(unknown()));
        assert_eq!(next_operation(&mut registrar, &mut now), Step::Read(vec![anchor()]));
        let entries = if applied { vec![anchor_entry(&txn, 5)] } else { vec![] };
        registrar.handle_read(now, Ok(entries));
        assert_eq!(registrar.settled(), applied);
        if !applied {
            let again = next_commit(&mut registrar, &mut now);
            assert_eq!(again.guards, txn.guards);
            assert_ne!(anchor_entry(&again, 0), anchor_entry(&txn, 0), "the delayed one will be told apart");
        }
    }
}

/// After a refusal by a delayed write of its own the registrar goes on from what that left.
#[test]
fn a_refusal_is_followed_by_a_look_at_the_anchor() {
    let mut now = Instant::now();
    let mut registrar = wanting(now, 4, 0..1);
    let delayed = next_commit(&mut registrar, &mut now);
    registrar.handle_commit(now, Err(unknown()));
    next_operation(&mut registrar, &mut now);
    registrar.handle_read(now, Ok(vec![]));
    next_commit(&mut registrar, &mut now);
    registrar.handle_commit(now, Ok(Commit::Refused));
    assert_eq!(next_operation(&mut registrar, &mut now), Step::Read(vec![anchor()]));
    registrar.handle_read(now, Ok(vec![anchor_entry(&delayed, 5)]));
    let again = next_commit(&mut registrar, &mut now);
    assert_eq!(again.guards, [Guard::Unchanged(anchor(), Revision(5))]);
    assert_eq!(written(&again), [key(0)]);
}

/// An anchor of somebody else keeps the registrar off until it is gone.
#[test]
fn f35_an_instance_id_in_use_twice_is_a_conflict() {
    let begun = Instant::now();
    let mut now = begun;
    let mut registrar = wanting(now, 4, 0..1);
    let txn = next_commit(&mut registrar, &mut now);
    registrar.handle_commit(now, Ok(Commit::Refused));
    next_operation(&mut registrar, &mut now);
    let mut theirs = anchor_entry(&txn, 5);
    theirs.value = Mark { instance: 1, nonce: 78, epoch: 1, sequence: 1 }.encode();
    registrar.handle_read(now, Ok(vec![theirs]));
    assert!(registrar.in_conflict());
    assert_eq!(next_operation(&mut registrar, &mut now), Step::Read(vec![anchor()]));
    assert!(now >= begun + CHECK);
    registrar.handle_read(now, Ok(vec![]));
    assert!(!registrar.in_conflict());
    assert_eq!(written(&next_commit(&mut registrar, &mut now)), [key(0)]);
}

/// After a loss everything moves to the new lease, at a random time within the spread, with a new epoch.
#[test]
fn u3493_lease_loss_heals() {
    let mut delays = Vec::new();
    for seed in 0..20 {
        let begun = Instant::now();
        let mut now = begun;
        let options = Options::new(1, 77, anchor()).with_transactions(4, true);
        let mut registrar = Registrar::new(now, options, seed);
        registrar.handle_lease(now, LEASE, 1);
        registrar.set(key(0), Text(0));
        next_commit(&mut registrar, &mut now);
        registrar.handle_commit(now, Ok(Commit::Applied(Revision(2))));
        registrar.handle_lease_lost();
        assert!(!registrar.confirmed(&key(0)));
        assert_eq!(registrar.poll(now), Step::Idle, "nothing can be written without a lease");
        registrar.handle_lease(now, LeaseId(101), 2);
        let txn = next_commit(&mut registrar, &mut now);
        let value = Text(0).encode(LeaseId(101), 2);
        assert_eq!(txn.ops[1], Op::Put { key: key(0), value, lease: Some(LeaseId(101)) });
        assert!(now <= begun + 500 * MILLI);
        delays.push(now - begun);
    }
    assert!(delays.iter().max().unwrap() > &(250 * MILLI) && delays.iter().min().unwrap() < &(250 * MILLI));
}

/// F39: a write that finds its lease gone is tried again, after a pause, as long as the lease is not said to be
/// lost: a store that was emptied and put back may have it again, and no heartbeat may have seen it gone.
#[test]
fn f39_a_write_that_finds_its_lease_gone_is_tried_again() {
    let mut now = Instant::now();
    let mut registrar = wanting(now, 4, 0..1);
    let lost = next_commit(&mut registrar, &mut now);
    registrar.handle_commit(now, Err(Error::lease_lost(LEASE)));
    assert!(matches!(registrar.poll(now), Step::Wait(_)), "it pauses");
    let again = next_commit(&mut registrar, &mut now);
    assert_eq!(again.ops[1], lost.ops[1]);
    registrar.handle_commit(now, Ok(Commit::Applied(Revision(5))));
    assert!(registrar.confirmed(&key(0)));
}

/// What is removed while its write is under way, or in doubt, ends up deleted.
#[test]
fn removing_wins_over_a_write_under_way() {
    let mut now = Instant::now();
    for outcome in [Ok(Commit::Applied(Revision(5))), Err(unknown())] {
        let mut registrar = wanting(now, 4, 0..1);
        let txn = next_commit(&mut registrar, &mut now);
        registrar.remove(&key(0));
        assert!(!registrar.withdrawn(&key(0)));
        registrar.handle_commit(now, outcome);
        let mut step = next_operation(&mut registrar, &mut now);
        if let Step::Read(_) = step {
            registrar.handle_read(now, Ok(vec![anchor_entry(&txn, 5)]));
            step = next_operation(&mut registrar, &mut now);
        }
        let Step::Commit(deletion) = step else { panic!("no commit but {step:?}") };
        assert_eq!(deletion.ops[1], Op::Delete { key: key(0) });
        registrar.handle_commit(now, Ok(Commit::Applied(Revision(6))));
        assert!(registrar.withdrawn(&key(0)));
    }
}

/// What was never written is removed without a word to the store.
#[test]
fn removing_before_any_write_writes_nothing() {
    let now = Instant::now();
    let mut registrar = wanting(now, 4, 0..1);
    registrar.remove(&key(0));
    assert!(registrar.withdrawn(&key(0)) && registrar.settled());
    assert_eq!(registrar.poll(now), Step::Idle);
}

/// The same record again writes nothing; another one under the same key does (U12566).
#[test]
fn d27_the_same_record_again_is_no_change() {
    let mut now = Instant::now();
    let mut registrar = wanting(now, 4, 0..1);
    next_commit(&mut registrar, &mut now);
    registrar.handle_commit(now, Ok(Commit::Applied(Revision(2))));
    registrar.set(key(0), Text(0));
    assert!(registrar.confirmed(&key(0)));
    registrar.set(key(0), Text(9));
    assert!(!registrar.confirmed(&key(0)));
}

/// A record deleted, overwritten or moved behind its owner's back is back within a check.
#[test]
fn f40_a_record_lost_behind_its_owners_back_returns() {
    let mut now = Instant::now();
    let mut registrar = wanting(now, 4, 0..3);
    let txn = next_commit(&mut registrar, &mut now);
    registrar.handle_commit(now, Ok(Commit::Applied(Revision(2))));
    let begun = now;
    let asked = vec![anchor(), key(0), key(1), key(2)];
    assert_eq!(next_operation(&mut registrar, &mut now), Step::Read(asked));
    assert!(now <= begun + CHECK);
    let moved = Entry { lease: Some(LeaseId(9)), ..stored(1) };
    registrar.handle_read(now, Ok(vec![anchor_entry(&txn, 2), stored(0), moved]));
    assert_eq!(written(&next_commit(&mut registrar, &mut now)), [key(1), key(2)]);
    registrar.handle_commit(now, Ok(Commit::Applied(Revision(3))));
    next_operation(&mut registrar, &mut now);
    let overwritten = Entry { value: "mine".into(), ..stored(2) };
    registrar.handle_read(now, Ok(vec![anchor_entry(&txn, 3), stored(0), stored(1), overwritten]));
    assert_eq!(written(&next_commit(&mut registrar, &mut now)), [key(2)]);
}

/// A removed record that a delayed write or a restored store brings back is removed again; it is not watched
/// for ever.
#[test]
fn f39_a_removed_record_that_comes_back_is_removed_again() {
    let mut now = Instant::now();
    let mut registrar = wanting(now, 4, 0..1);
    next_commit(&mut registrar, &mut now);
    registrar.handle_commit(now, Ok(Commit::Applied(Revision(2))));
    registrar.remove(&key(0));
    next_commit(&mut registrar, &mut now);
    registrar.handle_commit(now, Ok(Commit::Applied(Revision(3))));
    assert!(registrar.withdrawn(&key(0)));
    assert_eq!(next_operation(&mut registrar, &mut now), Step::Read(vec![anchor(), key(0)]));
    registrar.handle_read(now, Ok(vec![stored(0)]));
    assert!(!registrar.withdrawn(&key(0)));
    let txn = next_commit(&mut registrar, &mut now);
    assert_eq!(txn.ops[1..], [Op::Delete { key: key(0) }]);
    registrar.handle_commit(now, Ok(Commit::Applied(Revision(4))));
    for _ in 0..CHECKS_AFTER_REMOVAL {
        assert_eq!(next_operation(&mut registrar, &mut now), Step::Read(vec![anchor(), key(0)]));
        registrar.handle_read(now, Ok(vec![]));
    }
    assert_eq!(registrar.poll(now + CHECK), Step::Idle);
}

/// One record that the store will not take keeps no other from being registered, and is tried again.
#[test]
fn a_rejected_record_harms_no_other() {
    let mut now = Instant::now();
    let mut registrar = wanting(now, 9, 0..8);
    let begun = now;
    while (0..8).any(|number| number != 5 && !registrar.confirmed(&key(number))) {
        let txn = next_commit(&mut registrar, &mut now);
        let poisoned = written(&txn).contains(&key(5));
        let refusal = Err(Error::payload_too_large(1, 2));
        registrar.handle_commit(now, if poisoned { refusal } else { Ok(Commit::Applied(Revision(2))) });
    }
    assert!(now < begun + CHECK);
    assert!(!registrar.settled());
    let Step::Read(_) = next_operation(&mut registrar, &mut now) else { panic!("no check") };
    registrar.handle_read(now, Ok((0..8).filter(|number| *number != 5).map(stored).collect()));
    assert_eq!(written(&next_commit(&mut registrar, &mut now)), [key(5)]);
}

/// A store that is down is asked ever more slowly; one that refuses the credentials, slowly at once.
#[test]
fn failures_do_not_become_a_hot_loop() {
    let down = Error::unavailable("store", "down", Effect::None);
    for (error, most) in [(down, 70), (unknown(), 70), (Error::unauthorized("store", "no"), 7)] {
        let begun = Instant::now();
        let (mut now, mut asked) = (begun, 0);
        let mut registrar = wanting(now, 4, 0..1);
        while now < begun + Duration::from_secs(60) {
            match next_operation(&mut registrar, &mut now) {
                Step::Commit(_) => registrar.handle_commit(now, Err(error.clone())),
                _ => registrar.handle_read(now, Err(error.clone())),
            }
            asked += 1;
        }
        assert!(asked <= most, "{asked} with {error}");
    }
}
