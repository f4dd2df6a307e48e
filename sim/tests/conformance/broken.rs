//! The kit finds what it is for, also while a server is away: each of these backends is broken in one way, and
//! a case notices, for that reason.

use std::collections::BTreeSet;
use std::sync::Arc;

use slipring_conformance::{Action, CASES, Fixture, Outcome, Suite};
use slipring_core::{Discovery, Environment, Messaging, Result, async_trait};

use crate::broken_broker::{BrokenBroker, BrokerFault};
use crate::broken_store::{BrokenStore, StoreFault};
use crate::linked::Linked;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// Comes back with nothing of what it had acknowledged.
    Forgets,
    /// Its leases end when it is started, resumed, or a connection ends.
    EndsLeases,
    /// At a cut the reply to the next write is lost as well: this is no fault of the store.
    LosesReplies,
    /// Calls over a network have no bound, and watches none either.
    Unbounded,
    Store(StoreFault),
    Broker(BrokerFault),
}

use BrokerFault::*;
use Fault::*;
use StoreFault::*;

/// Who is caught by which case, and what its reason says.
const CAUGHT: &[(Fault, &str, &str)] = &[
    (Forgets, "k10_acknowledged_writes_survive_a_restart", "the entries after a restart"),
    (Store(RetriesBlindly), "k9_writes_at_a_cut_happen_at_most_once", "the revisions of"),
    (Store(DoubtIsNone), "k9_writes_at_a_cut_happen_at_most_once", "happened 1 times after"),
    (Store(WritesTwice), "k9_writes_at_a_stop_happen_at_most_once", "the revisions of"),
    (Store(RetriesBlindly), "k8_create_race_over_a_cut", "was told that it lost, but it is there"),
    (Store(QueuesWrites), "stopped_store_refuses", "what is there"),
    (Store(WaitsForTheServer), "stopped_store_refuses", "in vain for calls to a stopped store"),
    (Store(AlwaysDoubts), "stopped_store_refuses", "in vain for calls to a stopped store"),
    (Unbounded, "paused_store_is_noticed", "in vain for calls to a server that stands still"),
    (Store(LateIsNone), "paused_store_is_noticed", "a write with effect none has happened"),
    (Store(HidesTheEnd), "stop_ends_a_watch_with_an_error", "in vain for the watch of"),
    (Store(EndsSilently), "stop_ends_a_watch_with_an_error", "the watch ended silently"),
    (Store(GoesOnFromNow), "w5_resumable_after_a_restart", "the revisions that the watch goes on with"),
    (Store(SkipsTheOutage), "w5_cuts_leave_no_gap", "the revisions that the watch showed"),
    (Unbounded, "w6_silence_of_a_paused_store_is_bounded", "in vain for the watch of"),
    (Store(HidesCompaction), "w11_compacted_while_cut_off", "in vain"),
    (EndsLeases, "l1_restart_ends_no_lease_early", "gone"),
    (EndsLeases, "l1_pause_ends_no_lease_early", "gone"),
    (EndsLeases, "leases_go_on_after_a_restart", "lease_lost"),
    (EndsLeases, "cut_ends_no_lease", "the lease of the key"),
    (Store(Revives), "l9_heartbeat_after_a_long_pause_is_decided", "a heartbeat gave"),
    (Store(ReusesLeaseIds), "l9_lease_ids_are_fresh_after_a_restart", "was granted before the restart"),
    (Broker(LosesSubscriptions), "m9_restored_after_a_restart", "in vain for \"after\" to arrive"),
    (Broker(HidesLoss), "m9_restored_after_a_restart", "what the subscription goes on with"),
    (Broker(EndsAtLoss), "m9_restored_after_a_restart", "the subscription ended"),
    (Broker(HidesLoss), "m9_gaps_are_told", "missing without a word"),
    (Broker(RestoresTwice), "m9_gaps_are_told", "out of order, or twice"),
    (Broker(LeavesTheGroup), "m4_members_are_restored_as_members", "once, got"),
    (Broker(QueuesPublishes), "stopped_broker_refuses", "refused and delivered all the same"),
    (Unbounded, "paused_broker_is_noticed", "in vain for calls to a broker that stands still"),
    (Broker(HangsInFlight), "requests_in_flight_at_a_stop_end", "in vain for a request to end"),
    (Broker(InFlightIsNone), "requests_in_flight_at_a_cut_end", "the effect of a request"),
    (Broker(CloseWaits), "close_without_a_broker_keeps_its_grace", "in vain for a handle to be closed"),
    (Broker(CloseWaits), "close_of_a_silent_broker_keeps_its_grace", "in vain for a handle to be closed"),
    (Broker(StopWaits), "m12_stop_ends_the_stream_without_a_broker", "in vain for a stopped subscription"),
    (Broker(LosesSubscriptions), "services_are_back_after_a_restart", "in vain for the service"),
];

/// Something broken between a world behind a link and its users.
#[derive(Debug)]
struct BrokenLinked {
    linked: Linked,
    fault: Fault,
}

#[async_trait]
impl Fixture for BrokenLinked {
    fn environment(&self) -> Arc<dyn Environment> {
        self.linked.environment()
    }

    async fn discovery(&self) -> Result<Option<Arc<dyn Discovery>>> {
        if self.fault == Unbounded {
            return Ok(Some(self.linked.unbounded_discovery()));
        }
        let inner = self.linked.discovery().await?;
        let Store(fault) = self.fault else { return Ok(inner) };
        let broken =
            |inner| Arc::new(BrokenStore::new(inner, fault, self.environment())) as Arc<dyn Discovery>;
        Ok(inner.map(broken))
    }

    async fn messaging(&self) -> Result<Option<Arc<dyn Messaging>>> {
        if self.fault == Unbounded {
            return Ok(Some(self.linked.unbounded_messaging()));
        }
        let inner = self.linked.messaging().await?;
        let Broker(fault) = self.fault else { return Ok(inner) };
        let (link, environment) = (self.linked.link.clone(), self.environment());
        let broken =
            |inner| Arc::new(BrokenBroker::new(inner, fault, link, environment)) as Arc<dyn Messaging>;
        Ok(inner.map(broken))
    }

    fn can(&self, action: Action) -> bool {
        self.linked.can(action)
    }

    async fn act(&self, action: Action) -> Result<()> {
        self.linked.act(action).await?;
        match (self.fault, action) {
            (Forgets, Action::Start) => self.linked.world.empty(),
            (EndsLeases, Action::Start | Action::Resume | Action::Cut) => {
                for lease in self.linked.world.leases() {
                    self.linked.world.discovery().revoke(lease).await?;
                }
            }
            // The next write is executed, and its caller does not learn of it.
            (LosesReplies | Store(RetriesBlindly | DoubtIsNone), Action::Cut) => {
                self.linked.link.lose_next_reply()
            }
            _ => {}
        }
        Ok(())
    }
}

/// Each of them fails the case that is named, for the reason that is named. (That the cases pass where nothing
/// is broken is a test of its own.)
#[tokio::test(start_paused = true)]
async fn each_is_caught() {
    let mut wrong = Vec::new();
    for &(fault, name, expected) in CAUGHT {
        let suite = Suite::new().only(|case| case.name == name);
        let report = suite.run(Arc::new(BrokenLinked { linked: Linked::new(), fault })).await;
        let outcome = &report.cases[0].outcome;
        if !matches!(outcome, Outcome::Failed { reason } if reason.contains(expected)) {
            wrong.push(format!("{fault:?}: {name}: expected {expected:?}, got {outcome:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A lost reply alone fails nobody who tells that the outcome is unknown.
#[tokio::test(start_paused = true)]
async fn lost_replies_break_nothing() {
    let cuts = Suite::new().only(|case| case.actions().any(|action| action == Action::Cut));
    cuts.run(Arc::new(BrokenLinked { linked: Linked::new(), fault: LosesReplies })).await.assert_passed(&[]);
}

/// A case that fails while the server is away, or stands still, leaves it to the others as it found it.
#[tokio::test(start_paused = true)]
async fn a_failed_case_leaves_the_server_to_others() {
    for (fault, failing) in
        [(Store(AlwaysDoubts), "stopped_store_refuses"), (Unbounded, "paused_store_is_noticed")]
    {
        let after = "l9_lease_ids_are_fresh_after_a_restart";
        let suite = Suite::new().only(|case| [failing, after].contains(&case.name));
        let report = suite.run(Arc::new(BrokenLinked { linked: Linked::new(), fault })).await;
        assert_eq!((report.failed(), report.passed()), (vec![failing], vec![after]), "{report}");
    }
}

/// Each case that takes the server away is failed by somebody.
#[test]
fn each_case_catches_somebody() {
    let takes_away = |action: Action| action != Action::Compact;
    let cases = CASES.iter().filter(|case| case.actions().any(takes_away)).map(|case| case.name);
    let catching = CAUGHT.iter().map(|(_, name, _)| *name);
    assert_eq!(cases.collect::<BTreeSet<_>>(), catching.collect::<BTreeSet<_>>());
}
