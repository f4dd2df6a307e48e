//! Broken stores, each caught by the case that is about what it breaks.

use crate::store;
use crate::store::StoreFault;

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

/// A lease that keeps a key which was deleted and created anew is caught.
#[tokio::test(start_paused = true)]
async fn deletion_keeps_the_lease() {
    store(StoreFault::DeletionKeepsLease, "l4_deletion_detaches", "the key created anew").await;
}
