//! What real etcd was measured to do and its users do not expect.

use std::time::Duration;

use slipring_core::{Change, Commit, Error, LeaseId, Range, Revision, Start, Txn};
use slipring_memory::Profile;
use slipring_memory::store::{Store, WatchId};

use crate::run::{deleted, key};

const GRANTED: Duration = Duration::from_secs(2);
/// After the end of a lease granted for two seconds at 0.1 s, and before the look at 2.5 s.
const WINDOW: Duration = Duration::from_millis(2_300);
const REMOVED: Duration = Duration::from_millis(2_500);

/// A store like etcd's, which looks for ended leases at every full half second; a lease granted at 0.1 s,
/// and a watch of everything.
fn etcd() -> (Store, LeaseId, WatchId) {
    let mut store = Store::new(Profile::etcd(), 1);
    let lease = store.grant(Duration::from_millis(100), GRANTED).unwrap();
    let (watch, _) = store.watch(Duration::from_millis(100), Range::All, Start::Snapshot).unwrap();
    (store, lease.id, watch)
}

fn put(store: &mut Store, now: Duration, text: &str, lease: Option<LeaseId>) -> Revision {
    match store.commit(now, Txn::new().put(key(text), "", lease)).unwrap() {
        Commit::Applied(revision) => revision,
        Commit::Refused => panic!("there was no guard"),
    }
}

/// A put under a lease past its end is acknowledged, and deleted with the lease half a second later.
#[test]
fn etcd_put_on_expired_lease_is_acked_then_deleted() {
    let (mut store, lease, watch) = etcd();
    assert_eq!(put(&mut store, WINDOW, "a", Some(lease)), Revision(2));
    store.advance(REMOVED);
    let seen: Vec<Revision> = std::iter::from_fn(|| store.poll(watch).unwrap()).map(|b| b.revision).collect();
    assert_eq!(seen, [Revision(2), Revision(3)]);
    assert!(store.read(REMOVED, &Range::All).entries.is_empty());
}

/// A heartbeat between a lease's end and its removal never rescues it.
#[test]
fn etcd_heartbeat_in_the_expiry_window_does_not_rescue() {
    let (mut store, lease, _) = etcd();
    assert_eq!(store.keep_alive(WINDOW, lease), Err(Error::lease_lost(lease)));
    assert_eq!(store.leases().len(), 1);
    store.advance(REMOVED);
    assert!(store.leases().is_empty());
}

/// The end itself is past: a heartbeat at that very moment is too late.
#[test]
fn etcd_heartbeat_at_the_very_end_is_too_late() {
    let (mut store, lease, _) = etcd();
    let end = Duration::from_millis(2_100);
    assert_eq!(store.clone().keep_alive(end - Duration::from_nanos(1), lease), Ok(GRANTED));
    assert_eq!(store.keep_alive(end, lease), Err(Error::lease_lost(lease)));
}

/// A key that moves to a fresh lease within the window survives the old one, without a delete event.
#[test]
fn etcd_key_moved_to_a_fresh_lease_in_the_expiry_window_survives() {
    let (mut store, lease, watch) = etcd();
    put(&mut store, Duration::from_secs(1), "a", Some(lease));
    let fresh = store.grant(WINDOW, GRANTED).unwrap();
    put(&mut store, WINDOW, "a", Some(fresh.id));
    store.advance(REMOVED);
    let changes = std::iter::from_fn(|| store.poll(watch).unwrap()).flat_map(|batch| batch.changes);
    assert!(changes.into_iter().all(|change| matches!(change, Change::Put(_))));
    assert_eq!(store.read(REMOVED, &Range::All).entries[0].lease, Some(fresh.id));
}

/// Leases below two seconds are raised to it.
#[test]
fn etcd_grants_no_lease_below_its_floor() {
    let (mut store, ..) = etcd();
    let lease = store.grant(WINDOW, Duration::from_secs(1)).unwrap();
    assert_eq!(lease.ttl, Duration::from_secs(2));
}

/// Leases are granted in whole seconds: a part of one is raised to it.
#[test]
fn etcd_grants_whole_seconds() {
    let (mut store, ..) = etcd();
    let mut granted = |millis| store.grant(WINDOW, Duration::from_millis(millis)).unwrap().ttl;
    assert_eq!([3_000, 3_001, 60_999].map(&mut granted), [3, 4, 61].map(Duration::from_secs));
}

/// Wherever the looks fall, a lease ends up to half a second late and never early.
#[test]
fn etcd_expiry_is_up_to_half_a_second_late() {
    let mut late = Vec::new();
    for seed in (0..8).map(|eighth| eighth << 61) {
        let mut store = Store::new(Profile::etcd(), seed);
        store.grant(Duration::ZERO, GRANTED).unwrap();
        late.push((store.next_deadline().unwrap() - GRANTED).as_micros());
    }
    assert_eq!(late, [0, 62_500, 125_000, 187_500, 250_000, 312_500, 375_000, 437_500]);
}

/// The put of an unknown lease applies nothing of its transaction.
#[test]
fn etcd_put_with_an_unknown_lease_applies_nothing() {
    let (mut store, ..) = etcd();
    let txn = Txn::new().put(key("a"), "", None).put(key("b"), "", Some(LeaseId(7)));
    assert_eq!(store.commit(WINDOW, txn), Err(Error::lease_lost(LeaseId(7))));
    assert_eq!(store.revision(), Revision(1));
}

/// Values that are allowed one by one may be too large together.
#[test]
fn etcd_takes_one_and_a_half_mebibytes_in_all() {
    let (mut store, ..) = etcd();
    let txn = Txn::new().put(key("a"), vec![0; 1 << 20], None);
    assert!(matches!(store.commit(WINDOW, txn.clone()), Ok(Commit::Applied(_))));
    let both = txn.put(key("b"), vec![0; 1 << 20], None);
    let limit = Profile::etcd().txn_bytes_max;
    assert_eq!(store.commit(WINDOW, both), Err(Error::payload_too_large(limit, (2 << 20) + 2)));
}

/// A guard that fails is answered before a lease is looked for: losing the race is no error.
#[test]
fn etcd_a_failed_guard_hides_an_unknown_lease() {
    let (mut store, ..) = etcd();
    let txn = Txn::new().unchanged(key("a"), Revision(1)).put(key("a"), "", Some(LeaseId(7)));
    assert_eq!(store.commit(WINDOW, txn), Ok(Commit::Refused));
}

/// To put the same value again is a new revision, with an event.
#[test]
fn etcd_identical_put_is_a_new_revision() {
    let (mut store, _, watch) = etcd();
    put(&mut store, WINDOW, "a", None);
    assert_eq!(put(&mut store, WINDOW, "a", None), Revision(3));
    assert_eq!(std::iter::from_fn(|| store.poll(watch).unwrap()).count(), 2);
}

/// A put without a lease detaches the key, silently: it survives the lease.
#[test]
fn etcd_put_without_a_lease_detaches() {
    let (mut store, lease, _) = etcd();
    let now = Duration::from_secs(1);
    put(&mut store, now, "a", Some(lease));
    put(&mut store, now, "a", None);
    store.revoke(now, lease).unwrap();
    assert_eq!(store.read(now, &Range::All).entries.len(), 1);
    assert_eq!(store.revision(), Revision(3), "a lease without keys leaves no revision");
}

/// A deleted key forgets its lease: made again without one, it survives.
#[test]
fn etcd_deleted_key_forgets_its_lease() {
    let (mut store, lease, _) = etcd();
    let now = Duration::from_secs(1);
    put(&mut store, now, "a", Some(lease));
    let _ = store.commit(now, Txn::new().delete(key("a"))).unwrap();
    put(&mut store, now, "a", None);
    store.revoke(now, lease).unwrap();
    assert_eq!(store.read(now, &Range::All).entries.len(), 1);
}

/// Events of a transaction come in the order of its operations, those of a revoked lease in key order.
#[test]
fn etcd_events_are_in_operation_order_and_revoked_keys_sorted() {
    let (mut store, lease, watch) = etcd();
    let now = Duration::from_secs(1);
    let keys = ["z", "a", "m"];
    let txn = keys.iter().fold(Txn::new(), |txn, text| txn.put(key(text), "", Some(lease)));
    let _ = store.commit(now, txn).unwrap();
    store.revoke(now, lease).unwrap();
    let written = store.poll(watch).unwrap().unwrap();
    assert!(written.changes.iter().map(|change| change.key().as_str()).eq(keys));
    let revoked = store.poll(watch).unwrap().unwrap();
    assert_eq!(revoked.revision, Revision(3));
    assert_eq!(deleted(&revoked), [key("a"), key("m"), key("z")]);
}

/// A watch may start after the revision of a compaction, not after the one before it; and what is forgotten
/// cannot be forgotten again.
#[test]
fn etcd_history_begins_after_the_compacted_revision() {
    let (mut store, ..) = etcd();
    for _ in 0..5 {
        put(&mut store, WINDOW, "a", None);
    }
    store.compact(Revision(4)).unwrap();
    assert_eq!(store.compact(Revision(4)), Err(Error::compacted(Revision(4))));
    let (watch, _) = store.watch(WINDOW, Range::All, Start::After(Revision(4))).unwrap();
    assert_eq!(store.poll(watch).unwrap().unwrap().revision, Revision(5));
    let earlier = store.watch(WINDOW, Range::All, Start::After(Revision(3)));
    assert_eq!(earlier, Err(Error::compacted(Revision(4))));
}

/// A compaction does not concern a watch that has all; one whose reader is slow is cancelled by it.
#[test]
fn etcd_compaction_cancels_the_slow_watch_only() {
    let (mut store, _, slow) = etcd();
    let (quick, _) = store.watch(WINDOW, Range::All, Start::Snapshot).unwrap();
    for _ in 0..3 {
        put(&mut store, WINDOW, "a", None);
    }
    while store.poll(quick).unwrap().is_some() {}
    store.compact(store.revision()).unwrap();
    put(&mut store, WINDOW, "a", None);
    assert_eq!(store.poll(quick).unwrap().unwrap().revision, Revision(5));
    assert_eq!(store.poll(slow), Err(Error::compacted(Revision(4))));
}
