//! The table of cases. Each function proves one promise of the contracts; its documentation says which.

pub mod broker_faults;
pub mod handles;
pub mod keys;
pub mod lease_faults;
pub mod leases;
pub mod publish;
pub mod queues;
pub mod requests;
pub mod revisions;
pub mod services;
pub mod store_faults;
pub mod streams;
pub mod transactions;
pub mod watch_faults;
pub mod watches;

use crate::Case;
use crate::Need::*;

const COMPACT: crate::Need = Action(crate::Action::Compact);
const STOP: crate::Need = Action(crate::Action::Stop);
const PAUSE: crate::Need = Action(crate::Action::Pause);
const CUT: crate::Need = Action(crate::Action::Cut);

/// Makes the table, and the macro that makes a test of each row, so that the two cannot differ.
macro_rules! table {
    // `$d` is a dollar sign, for the macro inside this macro.
    ($d:tt $($group:ident needs $whole:ident { $($name:ident: [$($need:expr),*] $($alone:ident)?,)+ })+) => {
        /// All cases.
        pub const CASES: &[Case] = &[$($(
            Case::new(stringify!($name), stringify!($group), &[$whole, $($need),*], |trial| {
                Box::pin($group::$name(trial))
            })$(.$alone())?,
        )+)+];

        /// Makes a plain test of each case, named after it.
        ///
        /// ```
        /// # use std::sync::Arc;
        /// # use slipring_core::Environment;
        /// # #[derive(Debug)]
        /// # struct MyFixture;
        /// # impl MyFixture { async fn start() -> Self { Self } }
        /// # impl slipring_conformance::Fixture for MyFixture {
        /// #     fn environment(&self) -> Arc<dyn Environment> { unreachable!("nothing is run") }
        /// # }
        /// slipring_conformance::tests! {
        ///     // Paused; or Real, for a server outside this process.
        ///     clock: Real,
        ///     fixture: async || Arc::new(MyFixture::start().await),
        ///     // Exactly the cases that are skipped.
        ///     skips: ["w5_resumable"],
        /// }
        /// # fn main() {}
        /// ```
        #[macro_export]
        macro_rules! tests {
            (clock: $d clock:ident, fixture: $d fixture:expr, skips: $d skips:expr $d (,)?) => {$($(
                #[doc = concat!("The case `", stringify!($group), "::", stringify!($name), "`.")]
                #[test]
                fn $name() {
                    let clock = $d crate::Clock::$d clock;
                    $d crate::test_case(stringify!($name), clock, &$d skips, $d fixture);
                }
            )+)+};
        }
    };
}

table! { $
    handles needs Discovery {
        store_declares_what_it_can: [],
        store_works_behind_pointers: [],
    }
    handles needs Messaging {
        broker_declares_what_it_can: [],
        broker_works_behind_pointers: [],
        flushed_is_with_the_broker: [],
        flush_of_nothing_resolves: [],
        close_delivers_what_was_published: [],
        close_ends_its_subscriptions: [],
        closed_is_unavailable: [],
        close_disturbs_no_other: [],
    }
    keys needs Discovery {
        snapshot_is_in_key_order: [],
        prefix_ends_where_a_name_ends: [],
        key_range_is_one_key: [],
        all_is_everything: [],
        absent_reads_as_empty: [],
        empty_value_is_a_value: [],
        values_are_bytes: [],
        odd_names_are_kept_apart: [],
        value_limit_is_exact: [],
        last_write_wins: [],
        delete_removes_one_key: [],
        many_entries_are_read_whole: [],
        k1_acknowledged_writes_are_read: [Linearizable],
        k11_reads_never_go_back: [],
        snapshot_is_of_one_revision: [AtomicKeys(2)],
    }
    revisions needs Discovery {
        k2_changes_move_forward: [],
        k4_transaction_is_one_revision: [AtomicKeys(3)],
        k3_no_ops_do_not_move: [] alone,
        k3_refused_does_not_move: [] alone,
        k3_leases_do_not_move: [] alone,
        k3_readers_do_not_move: [] alone,
    }
    transactions needs Discovery {
        absent_guard: [],
        unchanged_guard: [],
        deletions_are_guarded: [],
        writes_are_fenced_by_another_key: [AtomicKeys(2)],
        refused_changes_nothing: [AtomicKeys(2)],
        k8_create_race_has_one_winner: [],
        k8_compare_and_set_loses_nothing: [],
        k4_key_twice_is_invalid: [],
        atomic_keys_limit_is_exact: [],
        large_value_refuses_the_whole: [AtomicKeys(2)],
        missing_deletion_is_no_obstacle: [AtomicKeys(2)],
        unknown_lease_is_lost: [],
        unknown_lease_refuses_the_whole: [AtomicKeys(2)],
    }
    leases needs Discovery {
        l8_ttl_is_at_least_what_was_asked: [],
        l9_lease_ids_are_fresh: [],
        zero_ttl_is_invalid: [],
        entries_name_their_lease: [],
        l1_never_early: [],
        l1_readers_find_it_to_the_end: [],
        l1_heartbeats_extend: [],
        l3_expiry_takes_its_keys_alone: [],
        l3_expiry_is_one_revision: [ExpiryAtomic],
        l3_revoke_is_one_revision: [ExpiryAtomic],
        many_leases_end_together: [],
        l5_revoke_ends_it_once: [],
        revoke_knows_its_leases: [],
        leases_are_known_to_all_handles: [],
        l5_heartbeat_of_the_dead_is_lost: [],
        l5_heartbeat_at_the_end_is_decided: [],
        l9_expired_is_never_revived: [],
        l4_put_without_lease_detaches: [],
        l4_detached_survives_expiry: [],
        l4_put_with_other_lease_moves: [],
        l4_deletion_detaches: [],
        refused_attaches_nothing: [],
    }
    watches needs Discovery {
        empty_range_has_an_empty_base: [],
        w13_base_then_what_follows: [],
        w13_handoff_under_writers: [],
        w3_every_write_is_shown: [EveryRevision],
        w3_deletions_are_shown: [],
        no_ops_are_not_shown: [],
        w4_transactions_are_shown_whole: [AtomicKeys(3)],
        w7_transactions_are_filtered: [AtomicKeys(2)],
        w7_prefix_ends_where_a_name_ends: [],
        w7_key_range_is_one_key: [],
        all_is_watched: [],
        w5_resumable: [Resume, EveryRevision],
        resume_is_declared_or_refused: [],
        future_revision_is_compacted: [Resume],
        w11_compaction_is_told: [Resume, COMPACT],
        w6_silence_is_bounded: [],
        w6_progress_is_true: [],
        dropping_a_watch_disturbs_no_other: [],
        watches_are_independent: [EveryRevision],
        sw4_slow_reader_is_isolated: [],
        expiry_is_shown_as_deletion: [],
        new_lease_is_an_update: [],
    }
    publish needs Messaging {
        m3_subscribed_means_routed: [],
        m3_nothing_from_before: [],
        m2_one_publisher_is_in_order: [],
        m2_each_publisher_is_in_order: [],
        m4_everybody_gets_a_copy: [],
        nobody_needs_to_listen: [],
        messages_arrive_whole: [],
        headers_arrive: [Headers],
        m11_payload_limit_is_exact: [],
        m11_headers_count: [Headers],
        odd_subjects_are_kept_apart: [],
        dropping_unsubscribes_alone: [],
        dropping_ends_the_interest: [NoResponders],
        m12_stop_yields_what_was_accepted: [],
        m12_stop_ends_the_stream: [],
        m10_loss_is_counted_exactly: [],
        m5_wildcards_are_declared_or_refused: [],
        m5_wildcards_are_exact: [Wildcards],
        m4_overlapping_patterns_get_one_each: [Wildcards],
    }
    queues needs Messaging {
        queue_groups_are_declared_or_refused: [],
        m4_one_member_gets_each: [QueueGroups],
        m4_single_member_gets_all: [QueueGroups],
        m4_groups_are_independent: [QueueGroups],
        m4_never_a_former_member: [QueueGroups],
        m4_one_name_is_one_group: [QueueGroups, Wildcards],
        m8_one_member_answers: [QueueGroups],
    }
    requests needs Messaging {
        request_gets_its_reply: [],
        requests_carry_all: [Headers],
        m6_first_reply_wins: [],
        several_responders_one_reply: [],
        m6_late_reply_is_dropped: [],
        m6_concurrent_requests_do_not_cross: [],
        m7_nobody_there: [],
        m7_no_responders_arrives_at_the_inbox: [NoResponders],
        deadline_is_never_early: [],
        own_reply_is_replaced: [],
        dropped_requests_leave_nothing: [],
        waiting_requests_block_nobody: [],
    }
    services needs Messaging {
        service_is_found: [],
        instances_are_found: [],
        unknown_service_has_no_instances: [],
        micro_protocol_is_answered: [],
        all_services_answer: [],
        requests_are_counted: [],
        endpoints_are_listed: [],
        drain_waits_for_what_is_in_flight: [],
        instances_share_requests: [QueueGroups],
    }
    streams needs Messaging {
        stream_of_answers_is_whole: [],
        streams_do_not_mix: [],
        end_of_a_reader_is_noticed: [NoResponders],
    }
    store_faults needs Discovery {
        k10_acknowledged_writes_survive_a_restart: [STOP],
        k9_writes_at_a_stop_happen_at_most_once: [STOP, Resume, EveryRevision],
        k9_writes_at_a_cut_happen_at_most_once: [CUT, Resume, EveryRevision],
        k8_create_race_over_a_cut: [CUT],
        stopped_store_refuses: [STOP],
        paused_store_is_noticed: [PAUSE],
    }
    watch_faults needs Discovery {
        stop_ends_a_watch_with_an_error: [STOP],
        w5_resumable_after_a_restart: [STOP, Resume, EveryRevision],
        w5_cuts_leave_no_gap: [CUT, Resume, EveryRevision],
        w6_silence_of_a_paused_store_is_bounded: [PAUSE],
        w11_compacted_while_cut_off: [CUT, COMPACT, Resume],
    }
    lease_faults needs Discovery {
        l1_restart_ends_no_lease_early: [STOP],
        l1_pause_ends_no_lease_early: [PAUSE],
        l9_heartbeat_after_a_long_pause_is_decided: [PAUSE],
        l9_lease_ids_are_fresh_after_a_restart: [STOP],
        leases_go_on_after_a_restart: [STOP],
        cut_ends_no_lease: [CUT],
    }
    broker_faults needs Messaging {
        m9_restored_after_a_restart: [STOP],
        m9_gaps_are_told: [CUT],
        m4_members_are_restored_as_members: [CUT, QueueGroups],
        m12_stop_ends_the_stream_without_a_broker: [STOP],
        stopped_broker_refuses: [STOP],
        paused_broker_is_noticed: [PAUSE],
        requests_in_flight_at_a_stop_end: [STOP],
        requests_in_flight_at_a_cut_end: [CUT],
        close_without_a_broker_keeps_its_grace: [STOP],
        close_of_a_silent_broker_keeps_its_grace: [PAUSE],
        services_are_back_after_a_restart: [STOP],
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Tests and reports name a case by its name alone, so no two cases share one.
    #[test]
    fn names_are_unique() {
        let names: BTreeSet<_> = CASES.iter().map(|case| case.name).collect();
        assert_eq!(names.len(), CASES.len());
        assert!(CASES.len() >= 90, "{}", CASES.len());
    }
}
