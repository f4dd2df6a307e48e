//! Bugs that can be switched on, one at a time, to see whether a simulation finds them: each is small, could have
//! been made by anybody, and was made by somebody. No part of the public interface.

macro_rules! mutations {
    ($($variant:ident, $name:literal, $what:literal;)*) => {
        /// A bug.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Mutation {
            $(#[doc = $what] $variant,)*
        }

        impl Mutation {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// Its name, in `snake_case`.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// What it does wrong.
            pub const fn what(self) -> &'static str {
                match self { $(Self::$variant => $what,)* }
            }
        }
    };
}

mutations! {
    // The store: leases.
    LeaseEndsEarly, "lease_ends_early", "a lease ends a tenth before its time";
    RenewalIsShort, "renewal_is_short", "a heartbeat gives half of the time";
    RenewedLeaseNeverEnds, "renewed_lease_never_ends", "a lease that was renewed once is not looked at any more";
    ElectionForgetsRenewal, "election_forgets_renewal", "a new leader does not give the leases their time again";
    ExpiryLeavesKeys, "expiry_leaves_keys", "a lease that expires takes only the first of its keys along";
    ExpirySplitsRevision, "expiry_splits_revision", "the keys of an ended lease go at a revision each";
    DeadLeaseIsRenewed, "dead_lease_is_renewed", "a heartbeat rescues a lease that is past its end";
    DeadLeaseIsAccepted, "dead_lease_is_accepted", "a put under a lease that is gone is taken";
    LeaseIdReturns, "lease_id_returns", "the id of a lease is given again after its end";
    PutKeepsOldLease, "put_keeps_old_lease", "a key that is put without its lease, or with another, still goes with the old one";
    // The store: transactions.
    CreateOverwrites, "create_overwrites", "creating a key that exists replaces it";
    GuardIsStale, "guard_is_stale", "a guard on a revision holds for later ones too";
    RefusedTxnCounts, "refused_txn_counts", "a refused transaction takes a revision";
    IdleDeleteCounts, "idle_delete_counts", "deleting what is not there takes a revision";
    TxnIsSplit, "txn_is_split", "the writes of a transaction get a revision each";
    TxnHalfApplied, "txn_half_applied", "a transaction of several writes loses its last one";
    // The store: watches.
    SnapshotMissesNewest, "snapshot_misses_newest", "a snapshot leaves out what the newest revision wrote";
    ResumeSkipsOne, "resume_skips_one", "a resumed watch leaves out the first revision";
    ResumeRepeatsOne, "resume_repeats_one", "a resumed watch repeats the last revision";
    CompactionIsSilent, "compaction_is_silent", "a watch behind the compaction goes on without a word";
    DeletionsAreNotTold, "deletions_are_not_told", "watches are not told of what is deleted";
    SlowWatchSkips, "slow_watch_skips", "a watch that is behind is given the newest revision only";
    // The bus.
    FanOutMissesOne, "fan_out_misses_one", "of several subscribers the last gets nothing";
    GroupGetsAll, "group_gets_all", "every member of a queue group gets each message";
    MessageTwice, "message_twice", "a message is delivered twice";
    NewestFirst, "newest_first", "a waiting message is overtaken by the next";
    NobodyIsNotTold, "nobody_is_not_told", "a request to nobody is not answered with no responders";
    LossIsNotCounted, "loss_is_not_counted", "a slow subscriber is not told of what it missed";
    // The keeper of the lease.
    DeadlineFromAnswer, "deadline_from_answer", "a lease is believed in from the answer to a heartbeat on, not from its sending";
    NoMargin, "no_margin", "a lease is believed in to the last moment";
    BeatsAreSlow, "beats_are_slow", "heartbeats come late: after nine tenths of the time";
    LossIsIgnored, "loss_is_ignored", "a heartbeat that is told that its lease is gone goes on";
    LossIsFinal, "loss_is_final", "a lost lease is not replaced";
    LateGrantIsHeld, "late_grant_is_held", "a lease that is granted after its end is held";
    // The registrar.
    NotRegisteredAgain, "not_registered_again", "records do not move to a new lease";
    RecordsHaveNoLease, "records_have_no_lease", "a record does not end with the lease of its owner";
    WritesAreNotFenced, "writes_are_not_fenced", "a delayed write of an earlier epoch is applied";
    DoubtIsSuccess, "doubt_is_success", "a write whose outcome is unknown counts as done";
    ChecksAreBlind, "checks_are_blind", "a record that was deleted behind its owner's back stays away";
    WithdrawalIsAssumed, "withdrawal_is_assumed", "a record counts as gone before the store has said so";
    // The mirror and the shared watcher.
    ResyncKeepsGhosts, "resync_keeps_ghosts", "what went during an outage stays in the view";
    BreakEmptiesView, "break_empties_view", "a broken watch empties the view";
    SilenceIsIgnored, "silence_is_ignored", "a watch that fell silent is not opened again";
    BrokenWatchIsLeft, "broken_watch_is_left", "a watch that ended is not opened again";
    MirrorSkipsOne, "mirror_skips_one", "a shared watch goes on one revision too late";
    IdentityIsIgnored, "identity_is_ignored", "a store that was replaced is taken for the old one";
    WatchPerClient, "watch_per_client", "each client opens a watch of its own";
    // Clients and servings.
    UnknownIsRetried, "unknown_is_retried", "a call that may have been executed is sent again";
    DeadlineIsForgotten, "deadline_is_forgotten", "a call waits for its answer beyond its deadline";
    GoneIsCalled, "gone_is_called", "a removed instance is still called";
    FenceIsOpen, "fence_is_open", "an exclusive owner serves without its lease";
    DrainIsSkipped, "drain_is_skipped", "a stop cancels the requests in flight";
    CallIsLeaked, "call_is_leaked", "a call that ended stays in the table";
}

/// The bug that is switched on, if one is; without the feature `_mutants` none can be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Mutated {
    #[cfg(feature = "_mutants")]
    by: Option<Mutation>,
}

impl Mutated {
    /// With this bug.
    #[cfg(feature = "_mutants")]
    pub const fn by(mutation: Mutation) -> Self {
        Self { by: Some(mutation) }
    }

    /// Is it this bug?
    #[inline]
    pub fn is(self, mutation: Mutation) -> bool {
        #[cfg(feature = "_mutants")]
        return self.by == Some(mutation);
        #[cfg(not(feature = "_mutants"))]
        {
            let _ = mutation;
            false
        }
    }
}
