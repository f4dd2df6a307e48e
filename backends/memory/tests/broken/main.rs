//! The kit finds what it is for: each of these backends is broken in one way, and a case notices, for that
//! reason; the same case passes where nothing is broken.

#![expect(clippy::unwrap_used, reason = "this is test code, its wrappers too")]

use std::sync::Arc;

use slipring_conformance::{Action, CASES, Case, Fixture, Need, Outcome, Suite};
use slipring_core::{Discovery, Environment, Messaging, Result, async_trait};
use slipring_memory::Profile;

/// Makes the list of the faults along with their names.
macro_rules! faults {
    ($(#[$doc:meta])* $name:ident { $($fault:ident),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum $name {
            $($fault),+
        }

        impl $name {
            pub(crate) const ALL: &[Self] = &[$(Self::$fault),+];
        }
    };
}

mod broker;
mod store;
#[path = "../world/mod.rs"]
mod world;

use broker::{BrokenBroker, BrokerFault};
use store::{BrokenStore, StoreFault};
use world::WorldFixture;

#[derive(Debug, Clone, Copy)]
enum Fault {
    Store(StoreFault),
    Broker(BrokerFault),
}

/// A world with something broken between it and its users.
#[derive(Debug)]
struct BrokenWorld {
    world: Arc<WorldFixture>,
    fault: Fault,
    /// The one handle of those that should have one each.
    shared: Option<Arc<dyn Messaging>>,
}

#[async_trait]
impl Fixture for BrokenWorld {
    fn environment(&self) -> Arc<dyn Environment> {
        self.world.environment()
    }

    async fn discovery(&self) -> Result<Option<Arc<dyn Discovery>>> {
        let inner = self.world.discovery().await?;
        let Fault::Store(fault) = self.fault else { return Ok(inner) };
        Ok(inner.map(|inner| Arc::new(BrokenStore::new(inner, fault)) as Arc<dyn Discovery>))
    }

    async fn messaging(&self) -> Result<Option<Arc<dyn Messaging>>> {
        let inner = match &self.shared {
            Some(shared) => Some(shared.clone()),
            None => self.world.messaging().await?,
        };
        let Fault::Broker(fault) = self.fault else { return Ok(inner) };
        Ok(inner.map(|inner| Arc::new(BrokenBroker::new(inner, fault)) as Arc<dyn Messaging>))
    }

    fn can(&self, action: Action) -> bool {
        self.world.can(action)
    }

    async fn act(&self, action: Action) -> Result<()> {
        self.world.act(action).await
    }
}

impl BrokenWorld {
    async fn new(fault: Fault) -> Self {
        let world = WorldFixture::of(Profile::exact());
        let shared = match fault {
            Fault::Broker(BrokerFault::CloseClosesAll) => world.messaging().await.unwrap(),
            _ => None,
        };
        Self { world, fault, shared }
    }
}

/// Checks that the case passes on a sound world, and fails on the broken one with this in its reason.
async fn caught(fault: Fault, name: &str, expected: &str) {
    let suite = Suite::new().only(|case| case.name == name);
    let sound = WorldFixture::of(Profile::exact());
    assert_eq!(suite.clone().run(sound).await.passed(), [name], "on a sound world");
    let report = suite.run(Arc::new(BrokenWorld::new(fault).await)).await;
    let Outcome::Failed { reason } = &report.cases[0].outcome else { panic!("not caught: {report}") };
    assert!(reason.contains(expected), "caught for another reason than {expected:?}: {report}");
}

async fn store(fault: StoreFault, name: &str, expected: &str) {
    caught(Fault::Store(fault), name, expected).await;
}

async fn broker(fault: BrokerFault, name: &str, expected: &str) {
    caught(Fault::Broker(fault), name, expected).await;
}

/// A watch that loses deletions is caught.
#[tokio::test(start_paused = true)]
async fn lost_deletions() {
    store(StoreFault::LosesDeletions, "w3_deletions_are_shown", "in vain for a change").await;
}

/// A watch that loses what happens between its snapshot and its first event is caught.
#[tokio::test(start_paused = true)]
async fn gap_after_the_base() {
    store(StoreFault::GapAfterBase, "w13_handoff_under_writers", "base and events together").await;
}

/// A watch that shows again what its base holds is caught.
#[tokio::test(start_paused = true)]
async fn overlap_with_the_base() {
    store(StoreFault::OverlapsBase, "w13_base_then_what_follows", "the watch was at").await;
}

/// A watch that reorders is caught.
#[tokio::test(start_paused = true)]
async fn reordered_events() {
    store(StoreFault::Reorders, "w3_every_write_is_shown", "the next event").await;
}

/// A watch that shows a transaction in parts is caught.
#[tokio::test(start_paused = true)]
async fn split_batches() {
    store(StoreFault::SplitsBatches, "w4_transactions_are_shown_whole", "the batch").await;
}

/// A watch that is silent about a revision beyond the store's is caught.
#[tokio::test(start_paused = true)]
async fn silence_about_the_future() {
    store(StoreFault::SilentAboutFuture, "future_revision_is_compacted", "in vain").await;
}

/// D05: a watch that hides that its history was compacted is caught.
#[tokio::test(start_paused = true)]
async fn d05_hidden_compaction() {
    store(StoreFault::HidesCompaction, "w11_compaction_is_told", "in vain").await;
}

/// A watch that never says how far it is, is caught.
#[tokio::test(start_paused = true)]
async fn no_progress() {
    store(StoreFault::NoProgress, "w6_silence_is_bounded", "no item in").await;
}

/// U1592: a watch that ends without an error is caught.
#[tokio::test(start_paused = true)]
async fn u1592_silent_end() {
    store(StoreFault::EndsSilently, "w3_every_write_is_shown", "ended silently").await;
}

/// U11144: a prefix that also matches longer names is caught, by a read and by a watch.
#[tokio::test(start_paused = true)]
async fn u11144_prefix_without_boundary() {
    store(StoreFault::NoBoundary, "prefix_ends_where_a_name_ends", "the keys below a/b/").await;
    store(StoreFault::NoBoundary, "w7_prefix_ends_where_a_name_ends", "the watch of").await;
}

/// A snapshot that is not in key order is caught.
#[tokio::test(start_paused = true)]
async fn snapshot_out_of_order() {
    store(StoreFault::OutOfOrder, "snapshot_is_in_key_order", "the keys of the snapshot").await;
}

/// A read that returns the first page alone is caught.
#[tokio::test(start_paused = true)]
async fn first_page_only() {
    store(StoreFault::FirstPageOnly, "many_entries_are_read_whole", "not exactly the").await;
}

/// A transaction that is executed in parts is caught, by its revision and by who reads meanwhile.
#[tokio::test(start_paused = true)]
async fn split_transaction() {
    store(StoreFault::SplitsTransactions, "k4_transaction_is_one_revision", "the three entries").await;
    store(StoreFault::SplitsTransactions, "snapshot_is_of_one_revision", "seen in part").await;
}

/// D13: guards that are not checked are caught.
#[tokio::test(start_paused = true)]
async fn d13_unchecked_guards() {
    store(StoreFault::IgnoresGuards, "k8_create_race_has_one_winner", "the number of winners").await;
}

/// D13: reporting success while the store keeps the old value is caught.
#[tokio::test(start_paused = true)]
async fn d13_refusal_reported_as_success() {
    store(StoreFault::RefusalIsSuccess, "absent_guard", "although the key exists").await;
}

/// Writing without the lease that is lost, instead of refusing, is caught.
#[tokio::test(start_paused = true)]
async fn lost_lease_ignored() {
    store(StoreFault::IgnoresLostLease, "unknown_lease_is_lost", "expected the error \"lease_lost\"").await;
}

/// A value over the declared limit that is taken is caught.
#[tokio::test(start_paused = true)]
async fn unchecked_value_limit() {
    store(StoreFault::LimitsUnchecked, "value_limit_is_exact", "expected the error").await;
    store(StoreFault::LimitsUnchecked, "atomic_keys_limit_is_exact", "expected the error").await;
}

/// A lease that is secretly kept alive is caught.
#[tokio::test(start_paused = true)]
async fn lease_never_ends() {
    store(StoreFault::NeverExpires, "l1_never_early", "in vain for a change").await;
}

/// A lease that ends before its time is caught.
#[tokio::test(start_paused = true)]
async fn lease_ends_early() {
    store(StoreFault::ExpiresEarly, "l1_never_early", "granted for 500ms, ended after 250ms").await;
    store(StoreFault::ExpiresEarly, "l1_readers_find_it_to_the_end", "but gone after").await;
}

/// A heartbeat that is answered but not executed is caught.
#[tokio::test(start_paused = true)]
async fn heartbeat_without_effect() {
    store(StoreFault::HeartbeatIdle, "l1_heartbeats_extend", "gone in spite of heartbeat").await;
}

/// A heartbeat that claims to have revived a lost lease is caught.
#[tokio::test(start_paused = true)]
async fn heartbeat_revives() {
    store(StoreFault::HeartbeatRevives, "l9_expired_is_never_revived", "expected the error").await;
}

/// A heartbeat that moves the store is caught.
#[tokio::test(start_paused = true)]
async fn heartbeat_moves_the_store() {
    store(StoreFault::HeartbeatMoves, "k3_leases_do_not_move", "moved the revision, 50 times of 50").await;
}

/// A put without a lease that keeps the lease is caught.
#[tokio::test(start_paused = true)]
async fn put_keeps_the_lease() {
    store(StoreFault::PutKeepsLease, "l4_put_without_lease_detaches", "the lease of the key").await;
}

/// Revoking that leaves the keys to expire is caught.
#[tokio::test(start_paused = true)]
async fn revoke_leaves_the_keys() {
    store(StoreFault::RevokeLeavesKeys, "l5_revoke_ends_it_once", "the keys that are left").await;
}

/// A read that goes back in time, or misses what was acknowledged, is caught.
#[tokio::test(start_paused = true)]
async fn reads_of_the_past() {
    store(StoreFault::ReadsOld, "k11_reads_never_go_back", ", then at ").await;
    store(StoreFault::ReadsOld, "k1_acknowledged_writes_are_read", "what the other handle reads").await;
}

/// D25: names that collide in the store are caught.
#[tokio::test(start_paused = true)]
async fn d25_colliding_names() {
    store(StoreFault::FoldsCase, "odd_names_are_kept_apart", "the value under").await;
}

/// Values that are taken for text are caught.
#[tokio::test(start_paused = true)]
async fn values_as_text() {
    store(StoreFault::TextOnly, "values_are_bytes", "the value").await;
}

/// An empty value that is taken for an absence is caught.
#[tokio::test(start_paused = true)]
async fn empty_value_as_absence() {
    store(StoreFault::EmptyIsAbsent, "empty_value_is_a_value", "the entry with the empty value").await;
}

/// Progress that claims more than was delivered is caught.
#[tokio::test(start_paused = true)]
async fn false_progress() {
    store(StoreFault::FalseProgress, "w6_progress_is_true", "without the write at").await;
}

/// A new watch that silences the others is caught.
#[tokio::test(start_paused = true)]
async fn last_watch_only() {
    store(StoreFault::LastWatchOnly, "dropping_a_watch_disturbs_no_other", "in vain for a change").await;
    store(StoreFault::LastWatchOnly, "watches_are_independent", "in vain for a change").await;
}

/// A lease id that is granted twice is caught.
#[tokio::test(start_paused = true)]
async fn lease_id_granted_twice() {
    store(StoreFault::OneLeaseForAll, "l9_lease_ids_are_fresh", "was granted twice").await;
}

/// A lease granted for less than was asked is caught.
#[tokio::test(start_paused = true)]
async fn lease_granted_for_less() {
    store(StoreFault::ShorterTtl, "l8_ttl_is_at_least_what_was_asked", "asked for").await;
}

/// A lease of no time that is granted is caught.
#[tokio::test(start_paused = true)]
async fn lease_of_no_time() {
    store(StoreFault::TakesZeroTtl, "zero_ttl_is_invalid", "expected the error \"invalid\"").await;
}

/// A queue group whose members all get the message is caught.
#[tokio::test(start_paused = true)]
async fn queue_group_delivers_to_all() {
    broker(BrokerFault::QueueToAll, "m4_one_member_gets_each", "once, got").await;
}

/// A broker that takes what it declares not to do is caught.
#[tokio::test(start_paused = true)]
async fn undeclared_is_taken() {
    broker(BrokerFault::TakesUndeclared, "queue_groups_are_declared_or_refused", "expected the error").await;
    broker(BrokerFault::TakesUndeclared, "m5_wildcards_are_declared_or_refused", "expected the error").await;
}

/// A request that waits out its deadline although nobody is there is caught.
#[tokio::test(start_paused = true)]
async fn no_responders_swallowed() {
    broker(BrokerFault::SwallowsNoResponders, "m7_nobody_there", "expected the error").await;
    let inbox = "m7_no_responders_arrives_at_the_inbox";
    broker(BrokerFault::SwallowsNoResponders, inbox, "in vain for the broker's answer").await;
    let stream = "end_of_a_reader_is_noticed";
    broker(BrokerFault::SwallowsNoResponders, stream, "in vain for the writer to be told").await;
}

/// U9734: a payload limit that is not checked is caught.
#[tokio::test(start_paused = true)]
async fn u9734_unchecked_payload_limit() {
    broker(BrokerFault::LimitUnchecked, "m11_payload_limit_is_exact", "expected the error").await;
}

/// A payload limit that forgets the headers is caught.
#[tokio::test(start_paused = true)]
async fn headers_not_counted() {
    broker(BrokerFault::HeadersUncounted, "m11_headers_count", "expected the error").await;
}

/// Headers that are dropped are caught.
#[tokio::test(start_paused = true)]
async fn dropped_headers() {
    broker(BrokerFault::DropsHeaders, "headers_arrive", "the headers").await;
}

/// Stopping that loses what was accepted is caught.
#[tokio::test(start_paused = true)]
async fn stop_loses_messages() {
    broker(BrokerFault::StopLoses, "m12_stop_yields_what_was_accepted", "expected the messages 0..100").await;
}

/// A subscription that is not yet routed to when it resolves is caught.
#[tokio::test(start_paused = true)]
async fn subscribes_late() {
    broker(BrokerFault::SubscribesLate, "m3_subscribed_means_routed", "in vain for the message").await;
}

/// Loss that is not told is caught.
#[tokio::test(start_paused = true)]
async fn hidden_loss() {
    broker(BrokerFault::HidesLoss, "m10_loss_is_counted_exactly", "in vain for a message or a count").await;
}

/// Delivery out of order is caught.
#[tokio::test(start_paused = true)]
async fn reordered_messages() {
    broker(BrokerFault::Reorders, "m2_one_publisher_is_in_order", "in order, got").await;
    broker(BrokerFault::Reorders, "stream_of_answers_is_whole", "the next item").await;
}

/// Delivering twice is caught.
#[tokio::test(start_paused = true)]
async fn duplicated_messages() {
    broker(BrokerFault::Duplicates, "m2_one_publisher_is_in_order", "in order, got").await;
    broker(BrokerFault::Duplicates, "streams_do_not_mix", "the next item").await;
}

/// A `*` that matches several tokens is caught.
#[tokio::test(start_paused = true)]
async fn greedy_wildcard() {
    broker(BrokerFault::GreedyWildcard, "m5_wildcards_are_exact", "the subjects that match \"*\"").await;
}

/// Replies that are handed to the wrong request are caught.
#[tokio::test(start_paused = true)]
async fn crossed_replies() {
    broker(BrokerFault::CrossesReplies, "m6_concurrent_requests_do_not_cross", "the reply to request").await;
}

/// A request that gives up before its time is caught.
#[tokio::test(start_paused = true)]
async fn early_deadline() {
    broker(BrokerFault::GivesUpEarly, "deadline_is_never_early", "ended after").await;
}

/// A timeout that claims that nothing was executed is caught.
#[tokio::test(start_paused = true)]
async fn deadline_with_a_wrong_effect() {
    broker(BrokerFault::DeadlineWithoutEffect, "deadline_is_never_early", "the effect of a request").await;
}

/// Closing one handle that closes the connection of all is caught.
#[tokio::test(start_paused = true)]
async fn close_closes_all() {
    broker(BrokerFault::CloseClosesAll, "close_disturbs_no_other", "the stream ended before the request")
        .await;
}

/// A closed handle that goes on working is caught.
#[tokio::test(start_paused = true)]
async fn close_without_effect() {
    broker(BrokerFault::CloseIdle, "closed_is_unavailable", "expected the error \"unavailable\"").await;
}

/// A case that panics is a failure with the panic's message, and the others are run.
#[tokio::test(start_paused = true)]
async fn a_panic_is_a_failure() {
    let names = ["snapshot_is_in_key_order", "messages_arrive_whole"];
    let fault = Fault::Store(StoreFault::Panics);
    let world = BrokenWorld { world: WorldFixture::of(Profile::exact()), fault, shared: None };
    let report = Suite::new().only(|case| names.contains(&case.name)).run(Arc::new(world)).await;
    let expected = Outcome::Failed { reason: "a panic: a store that panics".to_owned() };
    assert_eq!(report.cases[0].outcome, expected, "{report}");
    assert_eq!(report.passed(), [names[1]], "{report}");
}

/// A case that hangs is a failure that says how long it was given.
#[tokio::test(start_paused = true)]
async fn a_hang_is_a_failure() {
    store(StoreFault::Hangs, "snapshot_is_in_key_order", "not done after 120s").await;
}

/// A declaration that makes no sense is caught.
#[tokio::test(start_paused = true)]
async fn senseless_declaration() {
    store(StoreFault::DeclaresNothing, "store_declares_what_it_can", "atomic_keys_max is 0").await;
    broker(BrokerFault::DeclaresNothing, "broker_declares_what_it_can", "payloads of 0 bytes").await;
}

/// A write that is acknowledged and not executed is caught.
#[tokio::test(start_paused = true)]
async fn lost_writes() {
    store(StoreFault::LosesPuts, "store_works_behind_pointers", "the value").await;
}

/// A key that is taken for a prefix is caught, by a read and by a watch.
#[tokio::test(start_paused = true)]
async fn key_taken_for_a_prefix() {
    store(StoreFault::KeyIsPrefix, "key_range_is_one_key", "expected").await;
    store(StoreFault::KeyIsPrefix, "w7_key_range_is_one_key", "the watch of").await;
}

/// A key that does not exist and is read as an empty value is caught.
#[tokio::test(start_paused = true)]
async fn absent_read_as_empty_value() {
    store(StoreFault::AbsentIsEmpty, "absent_reads_as_empty", "expected").await;
}

/// Reading that moves the store is caught.
#[tokio::test(start_paused = true)]
async fn reads_move_the_store() {
    store(StoreFault::ReadsMove, "k3_readers_do_not_move", "moved the revision").await;
}

/// A transaction that is refused because there was nothing to delete is caught.
#[tokio::test(start_paused = true)]
async fn missing_deletion_refuses() {
    store(StoreFault::MissingRefuses, "missing_deletion_is_no_obstacle", "it was refused").await;
}

/// A flush that waits for something to flush is caught.
#[tokio::test(start_paused = true)]
async fn flush_waits_for_a_message() {
    broker(BrokerFault::FlushWaits, "flush_of_nothing_resolves", "in vain for an empty flush").await;
}

/// A publish that fails because nobody listens is caught.
#[tokio::test(start_paused = true)]
async fn publish_needs_a_reader() {
    broker(BrokerFault::PublishNeedsReaders, "nobody_needs_to_listen", "no_responders").await;
}

/// A lease that keeps a key which was deleted and created anew is caught.
#[tokio::test(start_paused = true)]
async fn deletion_keeps_the_lease() {
    store(StoreFault::DeletionKeepsLease, "l4_deletion_detaches", "the key created anew").await;
}

/// There is no case that cannot fail: each is failed by a backend that does something, and does it wrong. (Those
/// that take the server away have their own, behind a link of the simulator.)
#[tokio::test(start_paused = true)]
async fn each_case_catches_somebody() {
    let works = |fault: &&StoreFault| !matches!(fault, StoreFault::Panics | StoreFault::Hangs);
    let stores = StoreFault::ALL.iter().filter(works).map(|fault| Fault::Store(*fault)).collect();
    let brokers = BrokerFault::ALL.iter().map(|fault| Fault::Broker(*fault)).collect();
    for (half, faults) in [(Need::Discovery, stores), (Need::Messaging, brokers)] {
        let faults: Vec<_> = faults;
        for case in CASES.iter().filter(|case| case.needs.contains(&half)).filter(is_played_here) {
            let mut caught = false;
            for fault in &faults {
                let suite = Suite::new().only(|other| other.name == case.name);
                caught = !suite.run(Arc::new(BrokenWorld::new(*fault).await)).await.failed().is_empty();
                if caught {
                    break;
                }
            }
            assert!(caught, "failed by nobody: {}", case.name);
        }
    }
}

fn is_played_here(case: &&Case) -> bool {
    case.actions().all(|action| action == Action::Compact)
}
