use slipring_core::{Bytes, LeaseId, Snapshot};

use super::*;

mod property;

const SILENCE: Duration = Duration::from_secs(5);
const RECONCILE: Duration = Duration::from_secs(60);
const MILLI: Duration = Duration::from_millis(1);

fn mirror(now: Instant) -> Mirror {
    Mirror::new(now, Options::new(SILENCE).with_reconcile(RECONCILE), 7)
}

fn key(number: u8) -> Key {
    Key::new(format!("k/{number}")).unwrap()
}

fn entry(number: u8, value: u8, modified: u64) -> Entry {
    let value = Bytes::from(vec![value]);
    Entry { key: key(number), value, modified: Revision(modified), lease: Some(LeaseId(1)) }
}

fn put(number: u8, value: u8, modified: u64) -> Change {
    Change::Put(entry(number, value, modified))
}

fn batch(revision: u64, changes: impl Into<Vec<Change>>) -> Batch {
    Batch { revision: Revision(revision), changes: changes.into() }
}

fn snapshot(revision: u64, entries: impl Into<Vec<Entry>>) -> Base {
    Base::Snapshot(Snapshot { revision: Revision(revision), entries: entries.into() })
}

fn unavailable() -> Error {
    Error::unavailable("store", "down", Effect::None)
}

/// A mirror that is live at revision 3 with the keys 1 and 2.
fn live(now: Instant) -> Mirror {
    let mut mirror = mirror(now);
    assert_eq!(mirror.poll(now), Step::Open(Start::Snapshot));
    let changes = mirror.handle_watch(now, snapshot(3, [entry(1, 1, 2), entry(2, 2, 3)]));
    assert_eq!(changes, [put(1, 1, 2), put(2, 2, 3)]);
    mirror
}

/// Waits as the mirror asks until it opens a watch, and returns from where and when.
fn next_open(mirror: &mut Mirror, mut now: Instant) -> (Start, Instant) {
    loop {
        match mirror.poll(now) {
            Step::Open(start) => return (start, now),
            Step::Wait(until) => {
                assert!(until > now, "a wait that does not wait is a hot loop");
                now = until;
            }
        }
    }
}

/// A snapshot and the batches after it give the store's state at every revision.
#[test]
fn w13_snapshot_and_events_join_without_a_seam() {
    let now = Instant::now();
    let mut mirror = live(now);
    assert_eq!(mirror.handle_batch(now, batch(4, [put(3, 1, 4), Change::Delete(key(1))])).len(), 2);
    assert_eq!(*mirror.state(), State::Live(Revision(4)));
    assert_eq!(mirror.entries().keys().cloned().collect::<Vec<_>>(), [key(2), key(3)]);
}

/// An update under the same key is a change (U12566), and what changes nothing is none (D27).
#[test]
fn d27_only_real_changes_are_told() {
    let now = Instant::now();
    let mut mirror = live(now);
    assert_eq!(mirror.handle_batch(now, batch(4, [put(1, 9, 4)])), [put(1, 9, 4)]);
    assert_eq!(mirror.handle_batch(now, batch(5, [Change::Delete(key(7))])), []);
    assert_eq!(mirror.handle_batch(now, batch(9, [])), []);
    assert_eq!(*mirror.state(), State::Live(Revision(9)), "progress moves the revision");
    assert_eq!(mirror.handle_batch(now, batch(9, [])), [], "and may repeat it");
    assert_eq!(*mirror.state(), State::Live(Revision(9)));
}

/// A broken watch keeps the last entries and says since when and why; the next one tells what is different.
#[test]
fn d07_a_broken_watch_is_stale_and_not_empty() {
    let now = Instant::now();
    let mut mirror = live(now);
    mirror.handle_end(now + MILLI, unavailable());
    assert_eq!(*mirror.state(), State::Stale { since: now, cause: unavailable() });
    assert_eq!(mirror.entries().len(), 2);
    let (start, at) = next_open(&mut mirror, now + MILLI);
    assert_eq!(start, Start::Snapshot);
    assert!(at >= now + 50 * MILLI);
    assert_eq!(mirror.handle_watch(at, snapshot(4, [entry(1, 1, 2), entry(2, 2, 3)])), []);
    assert_eq!(*mirror.state(), State::Live(Revision(4)));
}

/// A compacted watch is noticed, and a snapshot follows at once.
#[test]
fn d05_a_compacted_watch_is_noticed() {
    let now = Instant::now();
    let mut mirror = live(now);
    mirror.handle_end(now, Error::compacted(Revision(9)));
    assert!(matches!(mirror.state(), State::Stale { .. }));
    assert_eq!(mirror.poll(now), Step::Open(Start::Snapshot));
}

/// A snapshot after a gap is compared with what is held: no phantom, no noise.
#[test]
fn sw5_a_snapshot_after_compaction_leaves_no_phantom() {
    let now = Instant::now();
    let mut mirror = live(now);
    mirror.handle_end(now, Error::compacted(Revision(9)));
    assert_eq!(mirror.poll(now), Step::Open(Start::Snapshot));
    let changes = mirror.handle_watch(now, snapshot(9, [entry(2, 2, 3), entry(3, 1, 8)]));
    assert_eq!(changes, [put(3, 1, 8), Change::Delete(key(1))]);
}

/// A silent watch counts as dead.
#[test]
fn f39_silence_is_not_taken_for_peace() {
    let now = Instant::now();
    let mut mirror = live(now);
    assert_eq!(mirror.poll(now), Step::Wait(now + SILENCE));
    assert!(matches!(mirror.poll(now + SILENCE), Step::Wait(_)));
    assert!(matches!(mirror.state(), State::Stale { since, .. } if *since == now));
    assert_eq!(next_open(&mut mirror, now + SILENCE).0, Start::Snapshot);
}

/// A store that is put back, and comes past the revision that was seen last before its watch is opened again, is
/// not taken for the one before: however the watch ended, what only the old history had is gone from the view.
#[test]
fn f39_histories_are_not_mixed() {
    let now = Instant::now();
    let silence = |mirror: &mut Mirror| assert!(matches!(mirror.poll(now + SILENCE), Step::Wait(_)));
    let a_break = |mirror: &mut Mirror| mirror.handle_end(now + SILENCE, unavailable());
    for ends in [&silence as &dyn Fn(&mut Mirror), &a_break] {
        let mut mirror = live(now);
        ends(&mut mirror);
        let (start, at) = next_open(&mut mirror, now + SILENCE);
        assert_eq!(start, Start::Snapshot);
        // Put back to revision 2, it wrote the key 3 where the old one had written the key 2.
        let changes = mirror.handle_watch(at, snapshot(4, [entry(1, 1, 2), entry(3, 1, 3)]));
        assert_eq!(changes, [put(3, 1, 3), Change::Delete(key(2))]);
    }
}

/// Revisions that go back, and changes at a revision seen before, lead to a snapshot at once; so does a base that
/// is none.
#[test]
fn f39_another_history_leads_to_a_snapshot() {
    let now = Instant::now();
    for bad in [batch(2, []), batch(3, [put(1, 5, 3)]), batch(1, [put(1, 5, 1)])] {
        let mut mirror = live(now);
        assert_eq!(mirror.handle_batch(now, bad), []);
        assert_eq!(mirror.poll(now), Step::Open(Start::Snapshot));
    }
    let mut mirror = live(now);
    mirror.handle_end(now, unavailable());
    let (_, later) = next_open(&mut mirror, now);
    assert_eq!(mirror.handle_watch(later, Base::Resumed(Revision(3))), []);
    assert_eq!(next_open(&mut mirror, later).0, Start::Snapshot);
}

/// Before the first snapshot a failure is a cause, and a permanent one a failed state that still recovers.
#[test]
fn a_permanent_error_is_shown_and_tried_again_slowly() {
    let now = Instant::now();
    let mut mirror = mirror(now);
    assert_eq!(mirror.poll(now), Step::Open(Start::Snapshot));
    mirror.handle_end(now, unavailable());
    assert_eq!(*mirror.state(), State::Syncing { cause: Some(unavailable()) });
    let (_, now) = next_open(&mut mirror, now);
    mirror.handle_end(now, Error::unauthorized("store", "no"));
    assert_eq!(*mirror.state(), State::Failed("unauthorized"));
    let (start, later) = next_open(&mut mirror, now);
    assert_eq!(start, Start::Snapshot);
    assert!(later >= now + PAUSE_PERMANENT);
    mirror.handle_watch(later, snapshot(1, []));
    assert_eq!(*mirror.state(), State::Live(Revision(1)));
}

/// A healthy watch is compared with a fresh snapshot now and then, and stays live meanwhile.
#[test]
fn a_slow_comparison_finds_what_a_server_lost() {
    let mut now = Instant::now();
    let mut mirror = live(now);
    let begun = now;
    let start = loop {
        mirror.handle_batch(now, batch(3, []));
        match mirror.poll(now) {
            Step::Open(start) => break start,
            Step::Wait(until) => now = until.min(now + SILENCE / 2),
        }
    };
    assert_eq!(start, Start::Snapshot);
    assert!(now > begun + RECONCILE * 8 / 10 && now <= begun + RECONCILE);
    assert_eq!(*mirror.state(), State::Live(Revision(3)));
    assert_eq!(mirror.handle_watch(now, snapshot(3, [entry(2, 2, 3)])), [Change::Delete(key(1))]);
}

/// Watches that end as soon as they are open are opened ever more slowly, whatever they end with.
#[test]
fn flapping_watches_do_not_become_a_hot_loop() {
    for cause in [unavailable(), Error::compacted(Revision(1)), Error::lagged(3)] {
        let begun = Instant::now();
        let (mut mirror, mut now, mut opened) = (mirror(begun), begun, 0);
        while now < begun + Duration::from_secs(60) {
            let (_, at) = next_open(&mut mirror, now);
            (now, opened) = (at, opened + 1);
            mirror.handle_watch(now, snapshot(3, []));
            mirror.handle_end(now, cause.clone());
        }
        assert!((40..=70).contains(&opened), "{opened} with {cause}");
    }
}

/// Many entries, cold and one by one, cost one change each.
#[test]
fn ten_thousand_entries_cost_ten_thousand_changes() {
    let now = Instant::now();
    let many = |from: u64| {
        (0..10_000).map(move |number| Entry {
            key: Key::new(format!("k/{number:05}")).unwrap(),
            value: Bytes::new(),
            modified: Revision(from + number),
            lease: None,
        })
    };
    let mut mirror = mirror(now);
    mirror.poll(now);
    let cold = mirror.handle_watch(now, snapshot(10_000, many(1).collect::<Vec<_>>()));
    assert_eq!(cold.len(), 10_000);
    for entry in many(10_001) {
        let changes = mirror.handle_batch(now, batch(entry.modified.0, [Change::Put(entry.clone())]));
        assert_eq!(changes, [Change::Put(entry)]);
    }
}
