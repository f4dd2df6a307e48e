//! L: what the store promises of leases.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;
use slipring_core::{Change, Error, Key, LeaseId, Range, Revision, Txn};
use slipring_memory::Profile;
use slipring_memory::store::{Saved, Store};

use crate::run::*;

/// The end of each lease that is not removed, after each call.
fn ends(run: &Run) -> Vec<BTreeMap<LeaseId, Duration>> {
    let mut ends = BTreeMap::new();
    let mut ttls = BTreeMap::new();
    let after = |call: &Call| {
        match (&call.input, &call.answer) {
            (_, Answer::Grant(Ok(lease))) => {
                ttls.insert(lease.id, lease.ttl);
                ends.insert(lease.id, call.now + lease.ttl);
            }
            (Input::KeepAlive(lease), Answer::KeepAlive(Ok(ttl))) => {
                assert_eq!(ttls[lease], *ttl);
                ends.insert(*lease, call.now + *ttl);
            }
            _ => {}
        }
        ends.clone()
    };
    run.calls.iter().map(after).collect()
}

fn attached(state: &State, lease: LeaseId) -> Vec<Key> {
    let of_lease = state.entries.iter().filter(|entry| entry.lease == Some(lease));
    of_lease.map(|entry| entry.key.clone()).collect()
}

proptest! {
    #![proptest_config(config())]

    /// L1: while time passes, no lease is removed before its end.
    #[test]
    fn l1_no_lease_ends_early(run in a_run()) {
        for (call, ends) in run.calls.iter().zip(ends(&run)) {
            if matches!(call.input, Input::Revoke(_)) {
                continue;
            }
            for lease in ended(call) {
                prop_assert!(ends[&lease] <= call.now, "{lease} ended before {:?}", ends[&lease]);
            }
        }
    }

    /// L2: a lease is removed at the first look after its end: at once if the store is exact, and within the
    /// granularity if it is not.
    #[test]
    fn l2_no_lease_ends_late(world in a_world(), steps in steps()) {
        let world = World { expiries_per_scan: 500, ..world };
        let run = Run::new(&world, &steps);
        for (call, ends) in run.calls.iter().zip(ends(&run)) {
            for lease in &call.after.leases {
                let last_look = if world.granularity.is_zero() {
                    call.now
                } else {
                    let since = call.now.saturating_sub(world.phase).as_millis() as u32;
                    let looks = since / world.granularity.as_millis() as u32;
                    world.phase + world.granularity * looks
                };
                let looked = call.now >= world.phase;
                prop_assert!(!looked || ends[lease] > last_look, "{lease} is there at {:?}", call.now);
                prop_assert!(ends[lease] + world.granularity > call.now);
            }
        }
    }

    /// L2: one look removes no more leases than it may, and the rest follows look by look.
    #[test]
    fn l2_a_pile_of_ends_is_worked_off(leases in 1_usize..30, per_scan in 1_usize..10) {
        let every = Duration::from_millis(500);
        let profile = Profile::etcd().with_expiries_per_scan(per_scan);
        let mut store = Store::new(profile, 1);
        for _ in 0..leases {
            store.grant(Duration::ZERO, Duration::from_secs(2)).unwrap();
        }
        let mut left = leases;
        let mut now = Duration::from_secs(2);
        while left > 0 {
            prop_assert_eq!(store.next_deadline(), Some(now));
            store.advance(now);
            left = left.saturating_sub(per_scan);
            prop_assert_eq!(store.leases().len(), left);
            now += every;
        }
        prop_assert_eq!(store.next_deadline(), None);
    }

    /// L3: a lease that ends takes exactly its keys with it, in their order and at one revision; without
    /// keys there is no revision.
    #[test]
    fn l3_a_lease_ends_at_one_revision(run in a_run_with(|world| world.expiry_atomic = true)) {
        for call in &run.calls {
            if !matches!(call.input, Input::Advance(_) | Input::Revoke(_)) {
                prop_assert!(ended(call).is_empty());
                continue;
            }
            let of_leases = ended(call).into_iter().map(|lease| attached(&call.before, lease));
            let mut expected: Vec<Vec<Key>> = of_leases.filter(|keys| !keys.is_empty()).collect();
            let mut made: Vec<Vec<Key>> = call.made.iter().map(deleted).collect();
            expected.sort();
            made.sort();
            prop_assert_eq!(made, expected);
        }
    }

    /// L3: where expiry is not atomic, the same keys go one by one.
    #[test]
    fn l3_a_weak_store_deletes_key_by_key(run in a_run_with(|world| world.expiry_atomic = false)) {
        for call in run.calls.iter().filter(|call| matches!(call.input, Input::Advance(_) | Input::Revoke(_))) {
            let of_leases = ended(call).into_iter().flat_map(|lease| attached(&call.before, lease));
            let expected: BTreeSet<Key> = of_leases.collect();
            prop_assert!(call.made.iter().all(|batch| batch.changes.len() == 1));
            prop_assert_eq!(call.made.iter().flat_map(deleted).collect::<BTreeSet<Key>>(), expected);
        }
    }

    /// L4: a put decides anew which lease a key has: the key goes with that one and with no other.
    #[test]
    fn l4_a_put_moves_or_detaches(run in a_run()) {
        for call in run.calls.iter().filter(|call| !matches!(call.input, Input::Commit(_))) {
            let ended = ended(call);
            for entry in &call.before.entries {
                let goes = entry.lease.is_some_and(|lease| ended.contains(&lease));
                prop_assert_eq!(!goes, call.after.entries.contains(entry), "{:?}", entry);
            }
        }
    }

    /// L5: what is asked of a lease that is gone is answered with `LeaseLost`, and of one that is there never.
    #[test]
    fn l5_a_lease_that_is_gone_stays_gone(run in a_run()) {
        for (call, ends) in run.calls.iter().zip(ends(&run)) {
            let exists = |lease: &LeaseId| call.before.leases.contains(lease);
            match (&call.input, &call.answer) {
                (Input::Revoke(lease), Answer::Revoke(answer)) => {
                    prop_assert_eq!(answer.clone(), exists(lease).then_some(()).ok_or(Error::lease_lost(*lease)));
                    prop_assert!(!call.after.leases.contains(lease));
                }
                (Input::KeepAlive(lease), Answer::KeepAlive(answer)) => {
                    let alive = exists(lease) && (answer.is_ok() || call.now < ends[lease]);
                    prop_assert_eq!(answer.is_ok(), alive);
                    prop_assert!(answer.is_ok() || answer == &Err(Error::lease_lost(*lease)));
                }
                (Input::Commit(_), Answer::Commit(Err(Error::LeaseLost { lease, .. }))) => {
                    prop_assert!(!exists(lease));
                }
                (Input::Commit(_), Answer::Commit(Ok(_))) => {
                    let leases = call.after.entries.iter().filter_map(|entry| entry.lease);
                    prop_assert!(leases.into_iter().all(|lease| exists(&lease)));
                }
                _ => {}
            }
        }
    }

    /// L6: a heartbeat that succeeds comes before its lease's end, and so before the deletion of its keys.
    #[test]
    fn l6_no_heartbeat_succeeds_after_the_end(run in a_run()) {
        let mut ends_before = BTreeMap::new();
        for (call, ends) in run.calls.iter().zip(ends(&run)) {
            if let (Input::KeepAlive(lease), Answer::KeepAlive(Ok(_))) = (&call.input, &call.answer) {
                prop_assert!(call.now < ends_before[lease]);
                prop_assert!(call.after.leases.contains(lease));
                prop_assert_eq!(&call.before.entries, &call.after.entries);
            }
            ends_before = ends;
        }
    }

    /// L7: a store that is restored gives every lease at least the time that it had left.
    #[test]
    fn l7_a_restore_shortens_no_lease(world in a_world(), waited in 0_u64..100, down in 0_u64..1000) {
        let (waited, down) = (Duration::from_millis(waited), Duration::from_millis(down));
        let mut store = world.store();
        let lease = store.grant(Duration::ZERO, Duration::from_millis(101)).unwrap();
        store.advance(waited);
        let saved = store.export();
        let restored = waited + down;
        store.import(restored, saved);
        prop_assert_eq!(store.keep_alive(restored + lease.ttl - Duration::from_nanos(1), lease.id), Ok(lease.ttl));
    }

    /// L8: a lease is granted for at least what was asked, and for at least the floor.
    #[test]
    fn l8_a_grant_is_not_shorter_than_asked(world in a_world(), steps in steps()) {
        let run = Run::new(&world, &steps);
        for call in &run.calls {
            let (Input::Grant(asked), Answer::Grant(Ok(lease))) = (&call.input, &call.answer) else { continue };
            prop_assert_eq!(lease.ttl, (*asked).max(world.ttl_min));
        }
    }

    /// L9: no lease id comes twice, not even after the store is emptied; none is 0 or above 2^53.
    #[test]
    fn l9_lease_ids_are_fresh(seed: u64, grants in prop::collection::vec(any::<bool>(), 1..100)) {
        let mut store = Store::new(Profile::exact(), seed);
        let mut seen = BTreeSet::new();
        for emptied in grants {
            if emptied {
                store.import(Duration::ZERO, Saved::empty());
            }
            let id = store.grant(Duration::ZERO, Duration::from_secs(1)).unwrap().id;
            prop_assert!(id.0 > 0 && id.0 < 1 << 53);
            prop_assert!(seen.insert(id), "{id} came twice");
        }
    }

    /// L9: once a lease's keys are deleted with it, no later key has that lease.
    #[test]
    fn l9_no_key_rises_from_the_dead(run in a_run()) {
        let mut gone: BTreeSet<LeaseId> = BTreeSet::new();
        for call in &run.calls {
            if matches!(call.input, Input::Advance(_) | Input::Revoke(_)) {
                gone.extend(ended(call));
            }
            for change in call.made.iter().flat_map(|batch| &batch.changes) {
                if let Change::Put(entry) = change {
                    prop_assert!(entry.lease.is_none_or(|lease| !gone.contains(&lease)));
                }
            }
            prop_assert!(call.after.leases.iter().all(|lease| !gone.contains(lease)));
        }
    }
}

/// A time to live that is none, or longer than a store can count, is refused.
#[test]
fn l8_a_ttl_has_limits() {
    let mut store = Store::new(Profile::exact(), 1);
    for ttl in [Duration::ZERO, Store::TTL_MAX + Duration::from_nanos(1), Duration::MAX] {
        let error = store.grant(Duration::ZERO, ttl).unwrap_err();
        assert!(matches!(error, Error::Invalid { .. }), "{error}");
    }
    assert!(store.leases().is_empty());
    assert_eq!(store.grant(Duration::ZERO, Store::TTL_MAX).unwrap().ttl, Store::TTL_MAX);
}

/// What the next deadline names is enough: to look only then misses no end.
#[test]
fn deadlines_are_all_that_has_to_be_looked_at() {
    let mut store = Store::new(Profile::exact(), 1);
    for (millis, text) in [(30, "a"), (10, "b"), (20, "c")] {
        let lease = store.grant(Duration::ZERO, Duration::from_millis(millis)).unwrap();
        let _ = store.commit(Duration::ZERO, Txn::new().put(key(text), "", Some(lease.id))).unwrap();
    }
    let mut left = Vec::new();
    while let Some(deadline) = store.next_deadline() {
        store.advance(deadline);
        left.push((deadline.as_millis(), store.read(deadline, &Range::All).entries.len()));
    }
    assert_eq!(left, [(10, 2), (20, 1), (30, 0)]);
    assert_eq!(store.revision(), Revision(7));
}

/// L9: a lease under an id of the caller's is granted as any other; the id is taken until the lease is removed,
/// also while it waits for that, with nothing left of its time.
#[test]
fn l9_an_id_is_taken_until_its_lease_is_removed() {
    let (ttl, id) = (Duration::from_secs(5), LeaseId(7));
    let mut store = Store::new(Profile::etcd(), u64::MAX / 2);
    assert_eq!(store.lease(id), None);
    assert!(matches!(store.grant_as(Duration::ZERO, id, Duration::ZERO), Err(Error::Invalid { .. })));
    let lease = store.grant_as(Duration::ZERO, id, ttl - Duration::from_millis(1)).unwrap();
    assert_eq!((lease.id, lease.ttl), (id, ttl), "it is rounded up");
    let removed = store.next_deadline().unwrap();
    assert!(removed > ttl, "{removed:?}");
    for (now, left) in [(Duration::ZERO, ttl), (ttl / 2, ttl / 2), (ttl, Duration::ZERO)] {
        assert_eq!(store.grant_as(now, id, ttl).unwrap_err().code(), "already_exists");
        assert_eq!(store.lease(id), Some((lease, left)));
    }
    assert!(store.grant_as(removed, id, ttl).is_ok());
}
