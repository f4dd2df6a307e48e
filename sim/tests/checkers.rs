//! Each checker rejects a history that all the others accept, and a history that keeps its promises is accepted
//! by all.
#![allow(clippy::unwrap_used, reason = "a test may")]

use std::time::Duration;

use slipring_core::{Base, Batch, Change, Entry, Key, Lease, LeaseId, Range, Revision, Snapshot};
use slipring_memory::Profile;
use slipring_memory::store::{LeaseEnd, StoreEvent};
use slipring_sim::History;
use slipring_sim::check::{INVARIANTS, check};
use slipring_sim::history::{Event, Moment};

const TTL: Duration = Duration::from_secs(6);
const LEASE: Lease = Lease { id: LeaseId(1), ttl: TTL };

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A history of these events, each a second after the one before.
fn history(events: impl IntoIterator<Item = Event>) -> History {
    let moments = events.into_iter().zip(0..).map(|(event, second)| {
        let event = match event {
            Event::Store { event, .. } => Event::Store { clock: at(second), event },
            event => event,
        };
        Moment { at: at(second), node: "n".into(), event }
    });
    History::new(moments.collect())
}

#[track_caller]
fn assert_broken(events: impl IntoIterator<Item = Event>, invariants: &[&str]) {
    let violations = check(&history(events), &Profile::etcd());
    let found: Vec<_> = violations.iter().map(|violation| violation.invariant).collect();
    assert_eq!(found, invariants, "{violations:?}");
}

fn store(event: StoreEvent) -> Event {
    Event::Store { clock: Duration::ZERO, event }
}

fn change(revision: u64, key: &str) -> Change {
    let key = Key::new(key).unwrap();
    Change::Put(Entry { key, value: "".into(), modified: Revision(revision), lease: None })
}

fn batch<const N: usize>(revision: u64, keys: [&str; N]) -> Batch {
    let changes = keys.map(|key| change(revision, key)).into();
    Batch { revision: Revision(revision), changes }
}

fn commit<const N: usize>(revision: u64, keys: [&str; N]) -> Event {
    store(StoreEvent::Committed(batch(revision, keys)))
}

fn expired() -> Event {
    store(StoreEvent::Ended { lease: LEASE.id, end: LeaseEnd::Expired })
}

/// A watch of everything, from these entries on.
fn opened<const N: usize>(revision: u64, keys: [(u64, &str); N]) -> Event {
    let entries = keys.map(|(revision, key)| match change(revision, key) {
        Change::Put(entry) => entry,
        Change::Delete(_) => unreachable!("it is a put"),
    });
    let base = Base::Snapshot(Snapshot { revision: Revision(revision), entries: entries.into() });
    Event::WatchOpened { watch: 1, range: Range::All, base }
}

fn shown<const N: usize>(revision: u64, keys: [&str; N]) -> Event {
    Event::WatchDelivered { watch: 1, batch: batch(revision, keys) }
}

fn wait(seconds: usize) -> impl Iterator<Item = Event> {
    std::iter::repeat_n(Event::Note("a second passes".to_owned()), seconds)
}

/// What keeps all promises: a lease that is renewed and then expires, one that is revoked, a watch that begins
/// with what was there and shows everything, also over progress, and one that is given a replaced store's.
#[test]
fn a_good_history_is_accepted() {
    let events =
        [commit(2, ["a"]), opened(2, [(2, "a")]), commit(3, ["b", "c"]), shown(3, ["b", "c"]), shown(3, [])];
    let leases = [
        store(StoreEvent::Granted(LEASE)),
        store(StoreEvent::Renewed(LEASE)),
        store(StoreEvent::Revived { by: TTL }),
    ];
    let content = Snapshot { revision: Revision(2), entries: Vec::new() };
    let replaced = store(StoreEvent::Replaced { content, leases: vec![LEASE] });
    let under_way = [commit(4, ["d"]), replaced, shown(4, ["d"]), commit(3, ["e"])];
    let anew = [opened(2, []), shown(3, ["e"])];
    let all = events.into_iter().chain(leases).chain(under_way).chain(anew).chain(wait(1)).chain([expired()]);
    assert_broken(all, &[]);
}

/// K2: a revision that is left out, one that comes twice, and one in which nothing happens.
#[test]
fn k2_revisions_are_counted() {
    assert_broken([commit(2, ["a"]), commit(4, ["a"])], &["K2"]);
    assert_broken([commit(2, ["a"]), commit(2, ["a"])], &["K2"]);
    assert_broken([commit(2, [])], &["K2"]);
}

/// L1: a lease that ends before its time, counted from its last renewal.
#[test]
fn l1_no_lease_ends_early() {
    let [granted, renewed] = [StoreEvent::Granted(LEASE), StoreEvent::Renewed(LEASE)].map(store);
    assert_broken([granted.clone()].into_iter().chain(wait(5)).chain([expired()]), &[]);
    assert_broken([granted.clone()].into_iter().chain(wait(4)).chain([expired()]), &["L1"]);
    assert_broken([granted.clone(), renewed].into_iter().chain(wait(4)).chain([expired()]), &["L1"]);
    let revived = store(StoreEvent::Revived { by: at(1) });
    assert_broken([granted, revived].into_iter().chain(wait(5)).chain([expired()]), &["L1"]);
}

/// L2: a lease that ends long after its time, or is still there then.
#[test]
fn l2_no_lease_stays() {
    let granted = store(StoreEvent::Granted(LEASE));
    assert_broken([granted.clone()].into_iter().chain(wait(6)).chain([expired()]), &["L2"]);
    assert_broken([granted].into_iter().chain(wait(8)).chain([commit(2, ["a"])]), &["L2"]);
}

/// W1: a watch that goes back, and one that shows what was before its beginning.
#[test]
fn w1_a_watch_goes_forward() {
    let commits = [commit(2, ["a"]), commit(3, ["b"])];
    let back = [opened(1, []), shown(2, ["a"]), shown(3, ["b"]), shown(2, ["a"])];
    assert_broken(commits.clone().into_iter().chain(back), &["W1"]);
    assert_broken(commits.into_iter().chain([opened(2, [(2, "a")]), shown(2, ["a"])]), &["W1"]);
}

/// W2: a watch that shows a revision twice.
#[test]
fn w2_a_watch_repeats_nothing() {
    assert_broken([opened(1, []), commit(2, ["a"]), shown(2, ["a"]), shown(2, ["a"])], &["W2"]);
}

/// W3: a watch that leaves out a revision, before another or before progress; not one that has nothing to do
/// with its range.
#[test]
fn w3_a_watch_leaves_out_nothing() {
    let begin = [opened(1, []), commit(2, ["a"]), commit(3, ["b"])];
    assert_broken(begin.clone().into_iter().chain([shown(3, ["b"])]), &["W3"]);
    assert_broken(begin.clone().into_iter().chain([shown(3, [])]), &["W3"]);
    let range = Range::Key(Key::new("b").unwrap());
    let resumed = Event::WatchOpened { watch: 1, range, base: Base::Resumed(Revision(1)) };
    assert_broken(begin.into_iter().skip(1).chain([resumed, shown(3, ["b"])]), &[]);
}

/// W4: a watch that shows a part of a revision, or what was never committed.
#[test]
fn w4_a_watch_shows_revisions_whole() {
    let begin = [opened(1, []), commit(2, ["a", "b"])];
    assert_broken(begin.clone().into_iter().chain([shown(2, ["a"])]), &["W4"]);
    assert_broken(begin.clone().into_iter().chain([shown(2, ["b", "a"])]), &["W4"]);
    assert_broken(begin.into_iter().chain([shown(2, ["a", "b"]), shown(3, ["c"])]), &["W4"]);
}

/// W13: a watch that begins with a key too few, with one too many, or at a revision that was never there.
#[test]
fn w13_a_watch_begins_with_the_store() {
    assert_broken([commit(2, ["a"]), opened(2, [])], &["W13"]);
    assert_broken([commit(2, ["a"]), opened(1, [(2, "a")])], &["W13"]);
    assert_broken([opened(3, [])], &["W13"]);
}

/// Each invariant that is checked has a test above that rejects a history, and says in words what it promises.
#[test]
fn a_violation_explains_itself() {
    let violations = check(&history([commit(4, ["a"])]), &Profile::etcd());
    let expected = "K2 (each commit is the next revision, and changes something) at 0ns: revision 4 was committed after 1";
    assert_eq!(violations[0].to_string(), expected);
    assert_eq!(INVARIANTS.map(|(name, _)| name), ["K2", "L1", "L2", "W1", "W2", "W3", "W4", "W13"]);
}
