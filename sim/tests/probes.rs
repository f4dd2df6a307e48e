//! Rare situations are recognised, and counted over runs.
#![allow(clippy::unwrap_used, reason = "a test may")]

use std::time::Duration;

use slipring_core::{Base, Batch, Prefix};
use slipring_core::{
    Change, Commit, Effect, Entry, Fact, Key, Lease, LeaseId, Pattern, Range, Revision, Snapshot, Told, Txn,
};
use slipring_memory::store::StoreEvent;
use slipring_sim::history::{Call, Death, Event, Failure, Moment, TxnStep};
use slipring_sim::probes::{KNOWN, Probes};
use slipring_sim::{History, World, simulate};

const SECOND: Duration = Duration::from_secs(1);
const LEASE: Lease = Lease { id: LeaseId(1), ttl: Duration::from_secs(6) };

/// Events of node `n`, each a second after the one before.
fn met(events: impl IntoIterator<Item = Event>) -> Probes {
    let moments = events.into_iter().zip(0..).map(|(event, second)| {
        let at = second * SECOND;
        let event = match event {
            Event::Store { event, .. } => Event::Store { clock: at, event },
            event => event,
        };
        Moment { at, node: "n".into(), event }
    });
    Probes::of(&History::new(moments.collect()))
}

fn store(event: StoreEvent) -> Event {
    Event::Store { clock: Duration::ZERO, event }
}

fn wait(seconds: usize) -> impl Iterator<Item = Event> {
    std::iter::repeat_n(Event::Note("a second passes".to_owned()), seconds)
}

fn stamped(epoch: u64) -> Entry {
    let value = format!(r#"{{"epoch":{epoch}}}"#).into();
    Entry { key: Key::new("a").unwrap(), value, modified: Revision(2), lease: None }
}

fn txn(step: TxnStep) -> Event {
    Event::Txn { request: 1, step }
}

fn told(told: Told) -> Event {
    Event::Fact(Fact::ViewRead { prefix: "p:".to_owned(), reader: 1, told })
}

/// A heartbeat comes after the time of its lease, which a new leader had made longer; at another store time.
#[test]
fn a_lease_is_saved_by_failover() {
    let begin = [store(StoreEvent::Granted(LEASE)), store(StoreEvent::Revived { by: SECOND })];
    let renewed = store(StoreEvent::Renewed(LEASE));
    assert_eq!(
        met(begin.clone().into_iter().chain(wait(4)).chain([renewed.clone()])).met("lease_saved_by_failover"),
        1
    );
    assert_eq!(met(begin.into_iter().chain(wait(3)).chain([renewed])).met("lease_saved_by_failover"), 0);
}

/// A lease is revoked that is gone.
#[test]
fn a_revocation_meets_an_expiry() {
    let answered =
        |code| Event::Answered { call: Call::Revoke, sent: Duration::ZERO, lease: Some(LEASE.id), code };
    assert_eq!(met([answered(Some("lease_lost"))]).met("revoke_met_expiry"), 1);
    assert_eq!(met([answered(None)]).met("revoke_met_expiry"), 0);
}

/// A write is applied when its node is dead, and when its caller has given up.
#[test]
fn a_write_outlives_its_sender() {
    let sent = txn(TxnStep::Sent(Txn::new()));
    let applied = txn(TxnStep::Executed(Ok(Commit::Applied(Revision(1)))));
    let died = Event::Died(Death::PowerLoss);
    let probes = met([sent.clone(), died.clone(), applied.clone()]);
    assert_eq!(probes.met("applied_after_node_died"), 1);
    assert_eq!(met([sent.clone(), applied.clone(), died]).met("applied_after_node_died"), 0);
    let gave_up = Event::GaveUp { call: Call::Commit, sent: Duration::ZERO, lease: None };
    assert_eq!(met([sent, gave_up, applied]).met("applied_after_caller_gave_up"), 1);
}

/// A write of an earlier epoch than the one that is there is refused.
#[test]
fn an_old_epoch_is_refused() {
    let refused = |epoch| {
        let there = Batch { revision: Revision(2), changes: vec![Change::Put(stamped(2))] };
        let Entry { key, value, lease, .. } = stamped(epoch);
        let sent = txn(TxnStep::Sent(Txn::new().absent(key.clone()).put(key, value, lease)));
        let refused = txn(TxnStep::Executed(Ok(Commit::Refused)));
        met([store(StoreEvent::Committed(there)), sent, refused])
    };
    assert_eq!(refused(1).met("old_epoch_refused"), 1);
    assert_eq!((refused(3).met("old_epoch_refused"), refused(3).met("write_refused")), (0, 1));
}

/// A write whose caller was told unknown was applied, or was not.
#[test]
fn unknown_is_both() {
    let unknown = txn(TxnStep::Answered(Err(Failure { code: "unavailable", effect: Effect::Unknown })));
    let sent = txn(TxnStep::Sent(Txn::new()));
    let applied = txn(TxnStep::Executed(Ok(Commit::Applied(Revision(1)))));
    assert_eq!(met([sent.clone(), applied, unknown.clone()]).met("applied_and_told_unknown"), 1);
    assert_eq!(met([sent, unknown]).met("lost_and_told_unknown"), 1);
}

/// A reader joins a view that has lost its watch of the store, and a reader is given the whole view again.
#[test]
fn readers_join_and_begin_anew() {
    let base = Base::Snapshot(Snapshot { revision: Revision(1), entries: Vec::new() });
    let range = Range::Prefix(Prefix::new("p:").unwrap());
    let begin = [
        Event::Fact(Fact::WatcherStarted { prefix: "p:".to_owned() }),
        Event::WatchOpened { watch: 1, range, base },
        Event::WatchEnded { watch: 1, code: "unavailable" },
    ];
    let probes = met(begin.into_iter().chain([told(Told::All(Vec::new()))]));
    assert_eq!((probes.met("joined_during_resync"), probes.met("reader_given_all_anew")), (1, 0));
    let probes = met([told(Told::All(Vec::new())), told(Told::Latest), told(Told::All(Vec::new()))]);
    assert_eq!((probes.met("joined_during_resync"), probes.met("reader_given_all_anew")), (0, 1));
}

/// A subscription that was cut is restored, and a slow one misses messages.
#[test]
fn subscriptions_suffer() {
    let subscribed = Event::Subscribed { line: 1, pattern: Pattern::new("a").unwrap(), queue: None };
    let probes = met([subscribed.clone(), Event::Unsubscribed { line: 1 }, subscribed]);
    assert_eq!(probes.met("subscription_restored"), 1);
    assert_eq!(met([Event::Lagged { line: 1, missed: 3 }]).met("messages_missed"), 1);
    assert_eq!(met([Event::Lagged { line: 1, missed: 0 }]).met("messages_missed"), 0);
}

/// Runs add up, programs add probes of their own, and what was expected and never met is named.
#[test]
fn probes_add_up() {
    let run = |own: &'static str| {
        let report = simulate(1, slipring_sim::Setup::new(), async |world: World| {
            world.node("n").sometimes(own);
            world.sometimes("always");
        });
        Probes::of(&report.history)
    };
    let mut all = Probes::new();
    for own in ["one", "two", "one"] {
        all.merge(&run(own));
    }
    assert_eq!((all.runs(), all.met("one"), all.met("two"), all.met("always")), (3, 2, 1, 3));
    assert_eq!(all.missing(["one", "three", "lease_expired"]), ["three", "lease_expired"]);
    assert_eq!(all.never().len(), KNOWN.len());
    let table = all.to_string();
    assert_eq!(table.lines().count(), KNOWN.len() + 3);
    assert!(table.contains("       2 one\n"), "{table}");
}

/// Each known situation has a name of its own and says what it is.
#[test]
fn situations_have_names() {
    let names: std::collections::BTreeSet<_> = KNOWN.iter().map(|(name, _)| name).collect();
    assert!(names.len() == KNOWN.len() && names.len() >= 40);
    assert!(KNOWN.iter().all(|(name, what)| !what.is_empty() && name.len() < 40));
}
