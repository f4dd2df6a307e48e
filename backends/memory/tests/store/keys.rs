//! K: what the store promises of keys and transactions.

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;
use slipring_core::{Commit, Effect, Entry, Error, Guard, Key, Op, Prefix, Range, Revision, Start, Txn};
use slipring_memory::Profile;
use slipring_memory::store::Store;

use crate::model::{Model, is_in};
use crate::run::*;

/// Did the transaction leave something to be seen?
fn writes(txn: &Txn, before: &State) -> bool {
    txn.ops.iter().any(|op| match op {
        Op::Put { .. } => true,
        Op::Delete { key } => before.entries.iter().any(|entry| entry.key == *key),
    })
}

fn find<'s>(state: &'s State, key: &Key) -> Option<&'s Entry> {
    state.entries.iter().find(|entry| entry.key == *key)
}

proptest! {
    #![proptest_config(config())]

    /// K1: every answer, and the content after it, is that of a sequential model.
    #[test]
    fn k1_the_store_answers_as_the_model_does(world in a_world(), steps in steps()) {
        let run = Run::new(&world, &steps);
        let mut model = Model::new(world);
        for call in run.calls {
            let expected = model.answer(&call.input, &call.answer);
            prop_assert_eq!(&call.answer, &expected, "{:?}", call.input);
            prop_assert_eq!(model.revision(), call.after.revision, "{:?}", call.input);
            prop_assert_eq!(model.entries(), call.after.entries, "{:?}", call.input);
            prop_assert_eq!(model.leases(), call.after.leases, "{:?}", call.input);
        }
    }

    /// K2: a transaction that writes moves the revision by exactly one, from 1, and is told the new one.
    #[test]
    fn k2_each_write_is_one_revision(run in a_run()) {
        let mut expected = Revision(1);
        for call in &run.calls {
            prop_assert_eq!(call.before.revision, expected);
            expected = Revision(expected.0 + call.made.len() as u64);
            prop_assert_eq!(call.after.revision, expected);
            if let (Input::Commit(txn), Answer::Commit(Ok(Commit::Applied(revision)))) = (&call.input, &call.answer) {
                prop_assert_eq!(*revision, expected);
                prop_assert_eq!(call.made.len(), usize::from(writes(txn, &call.before)));
            }
        }
    }

    /// K3: reads, heartbeats, grants, watches, compactions and transactions that change nothing leave the
    /// revision and the content alone.
    #[test]
    fn k3_what_writes_nothing_is_no_revision(run in a_run()) {
        for call in &run.calls {
            let writes = match (&call.input, &call.answer) {
                (Input::Advance(_) | Input::Revoke(_), _) => true,
                (Input::Commit(txn), Answer::Commit(Ok(Commit::Applied(_)))) => writes(txn, &call.before),
                _ => false,
            };
            if !writes {
                prop_assert_eq!(call.before.revision, call.after.revision, "{:?}", call.input);
                prop_assert_eq!(&call.before.entries, &call.after.entries, "{:?}", call.input);
            }
        }
    }

    /// K4: what a transaction wrote stands at its revision, all of it; a key written twice is rejected.
    #[test]
    fn k4_a_transaction_is_one_revision(run in a_run()) {
        for call in &run.calls {
            let (Input::Commit(txn), Answer::Commit(answer)) = (&call.input, &call.answer) else { continue };
            let keys: BTreeSet<&Key> = txn.ops.iter().map(Op::key).collect();
            if keys.len() < txn.ops.len() {
                prop_assert!(matches!(answer, Err(Error::Invalid { .. })), "{answer:?}");
            }
            let Ok(Commit::Applied(revision)) = answer else { continue };
            for op in &txn.ops {
                let entry = find(&call.after, op.key());
                match op {
                    Op::Put { value, lease, .. } => {
                        let entry = entry.expect("it was put");
                        prop_assert_eq!((entry.modified, &entry.value, entry.lease), (*revision, value, *lease));
                    }
                    Op::Delete { .. } => prop_assert_eq!(entry, None),
                }
            }
        }
    }

    /// K5: a key that was deleted and made again is newer than all that it was before.
    #[test]
    fn k5_a_key_made_again_is_a_new_one(run in a_run()) {
        for call in &run.calls {
            for entry in &call.after.entries {
                match find(&call.before, &entry.key) {
                    Some(before) if before.modified == entry.modified => prop_assert_eq!(before, entry),
                    _ => prop_assert!(entry.modified > call.before.revision),
                }
            }
        }
    }

    /// K6: a revision that is forgotten, or not yet there, is refused with the oldest that is known.
    #[test]
    fn k6_only_known_history_can_be_asked_for(run in a_run()) {
        for call in &run.calls {
            let known = call.before.oldest..=call.before.revision;
            match (&call.input, &call.answer) {
                (Input::Watch(_, Start::After(revision)), Answer::Watch(answer)) => {
                    prop_assert_eq!(answer.is_ok(), known.contains(revision));
                    if let Err(error) = answer {
                        prop_assert_eq!(error, &Error::compacted(call.before.oldest));
                    }
                }
                (Input::Compact(revision), Answer::Compact(answer)) => {
                    prop_assert_eq!(answer.is_ok(), known.contains(revision) && *revision > call.before.oldest);
                }
                _ => {}
            }
        }
    }

    /// K7: a read gives exactly the entries of its range, in the order of their keys' bytes.
    #[test]
    fn k7_a_read_is_exactly_its_range(run in a_run()) {
        for call in &run.calls {
            let (Input::Read(range), Answer::Read(snapshot)) = (&call.input, &call.answer) else { continue };
            let inside = call.before.entries.iter().filter(|entry| is_in(range, entry.key.as_str()));
            prop_assert_eq!(&snapshot.entries, &inside.cloned().collect::<Vec<_>>());
            prop_assert_eq!(snapshot.revision, call.before.revision);
            let keys: Vec<&[u8]> = snapshot.entries.iter().map(|entry| entry.key.as_str().as_bytes()).collect();
            prop_assert!(keys.is_sorted_by(|a, b| a < b));
        }
    }

    /// K8: a transaction is applied if and only if every guard holds before it.
    #[test]
    fn k8_guards_decide(run in a_run()) {
        for call in &run.calls {
            let (Input::Commit(txn), Answer::Commit(Ok(answer))) = (&call.input, &call.answer) else { continue };
            let holds = txn.guards.iter().all(|guard| match guard {
                Guard::Absent(key) => find(&call.before, key).is_none(),
                Guard::Unchanged(key, revision) => {
                    find(&call.before, key).is_some_and(|entry| entry.modified == *revision)
                }
            });
            prop_assert_eq!(holds, *answer != Commit::Refused);
        }
    }

    /// K8: of any number that create a key, exactly the first wins, and again once the key is gone.
    #[test]
    fn k8_one_creation_wins(deletions in prop::collection::vec(any::<bool>(), 1..50)) {
        let mut store = Store::new(Profile::exact(), 1);
        let create = Txn::new().absent(key("a")).put(key("a"), "", None);
        let mut exists = false;
        for deletion in deletions {
            if deletion {
                let _ = store.commit(Duration::ZERO, Txn::new().delete(key("a"))).unwrap();
                exists = false;
            }
            let won = store.commit(Duration::ZERO, create.clone()).unwrap() != Commit::Refused;
            prop_assert_eq!(won, !exists);
            exists = true;
        }
    }

    /// K9: a call that fails has effect none, and none is what it has.
    #[test]
    fn k9_what_fails_changes_nothing(run in a_run()) {
        for call in &run.calls {
            let error = match &call.answer {
                Answer::Commit(answer) => answer.as_ref().err(),
                Answer::Grant(answer) => answer.as_ref().err(),
                Answer::KeepAlive(answer) => answer.as_ref().err(),
                Answer::Revoke(answer) => answer.as_ref().err(),
                Answer::Compact(answer) => answer.as_ref().err(),
                Answer::Watch(answer) => answer.as_ref().err(),
                Answer::Poll(answer) => answer.as_ref().err(),
                Answer::Done | Answer::Read(_) => None,
            };
            if let Some(error) = error {
                prop_assert_eq!(error.effect(), Effect::None);
                prop_assert_eq!(&call.before, &call.after);
            }
        }
    }
}

/// A prefix ends at a boundary: what merely begins with the same letters is not in it.
#[test]
fn k7_a_prefix_does_not_match_a_longer_name() {
    let mut store = Store::new(Profile::exact(), 1);
    for text in KEYS {
        let _ = store.commit(Duration::ZERO, Txn::new().put(key(text), "", None)).unwrap();
    }
    let snapshot = store.read(Duration::ZERO, &Range::Prefix(Prefix::new("a/").unwrap()));
    let keys: Vec<&str> = snapshot.entries.iter().map(|entry| entry.key.as_str()).collect();
    assert_eq!(keys, ["a/x", "a/y", "a/y:1"]);
}

/// What is above a limit that was declared is refused, with the limit, and nothing happens.
#[test]
fn limits_are_kept() {
    let exact = Profile::exact();
    let discovery = exact.discovery.with_atomic_keys_max(1).with_value_bytes_max(3).with_resume(false);
    let mut store = Store::new(exact.with_discovery(discovery), 1);
    let two_keys = Txn::new().absent(key("a")).put(key("b"), "", None);
    let error = store.commit(Duration::ZERO, two_keys).unwrap_err();
    assert!(matches!(error, Error::Unsupported { .. }), "{error}");
    let error = store.commit(Duration::ZERO, Txn::new().put(key("a"), "four", None)).unwrap_err();
    assert_eq!(error, Error::payload_too_large(3, 4));
    let error = store.watch(Duration::ZERO, Range::All, Start::After(Revision(1))).unwrap_err();
    assert!(matches!(error, Error::Unsupported { .. }), "{error}");
    assert_eq!(store.revision(), Revision(1));
    assert_eq!(store.watches(), 0);
}
