//! The kit as its users meet it: a fixture, one run, and a report.

use std::sync::Arc;

use notebook::Notebook;
use slipring_conformance::{Action, Fixture, Need, Suite};
use slipring_core::{Discovery, Environment, Result, SystemEnvironment, async_trait};

#[derive(Debug, Default)]
struct NotebookFixture(Notebook);

#[async_trait]
impl Fixture for NotebookFixture {
    fn environment(&self) -> Arc<dyn Environment> {
        Arc::new(SystemEnvironment::new())
    }

    async fn discovery(&self) -> Result<Option<Arc<dyn Discovery>>> {
        Ok(Some(Arc::new(self.0.clone())))
    }

    fn can(&self, action: Action) -> bool {
        matches!(action, Action::Stop | Action::Start | Action::Cut)
    }

    async fn act(&self, action: Action) -> Result<()> {
        match action {
            Action::Stop => self.0.close(),
            Action::Start => self.0.open(),
            Action::Cut => self.0.cut(),
            other => unreachable!("{other:?} is not claimed"),
        }
        Ok(())
    }
}

/// The notebook keeps what it promises; what it does not promise is skipped, and every skip is known.
#[tokio::test(start_paused = true)]
async fn the_notebook_passes() {
    let of_a_store = Suite::new().only(|case| case.needs.contains(&Need::Discovery));
    let report = of_a_store.run(Arc::new(NotebookFixture::default())).await;
    std::fs::write(concat!(env!("CARGO_TARGET_TMPDIR"), "/notebook.json"), report.to_json()).unwrap();
    report.assert_passed(SKIPS);
}

/// What the notebook does not declare.
const SKIPS: &[&str] = &[
    // read: Linearizable
    "k1_acknowledged_writes_are_read",
    // atomic_keys_max
    "snapshot_is_of_one_revision",
    "k4_transaction_is_one_revision",
    "writes_are_fenced_by_another_key",
    "refused_changes_nothing",
    "large_value_refuses_the_whole",
    "missing_deletion_is_no_obstacle",
    "unknown_lease_refuses_the_whole",
    "w4_transactions_are_shown_whole",
    "w7_transactions_are_filtered",
    // expiry_atomic
    "l3_expiry_is_one_revision",
    "l3_revoke_is_one_revision",
    // watch: EveryRevision
    "w3_every_write_is_shown",
    "watches_are_independent",
    // resume
    "w5_resumable",
    "future_revision_is_compacted",
    "w11_compaction_is_told",
    "k9_writes_at_a_stop_happen_at_most_once",
    "k9_writes_at_a_cut_happen_at_most_once",
    "w5_resumable_after_a_restart",
    "w5_cuts_leave_no_gap",
    // a fixture that can Pause
    "paused_store_is_noticed",
    "w6_silence_of_a_paused_store_is_bounded",
    "l1_pause_ends_no_lease_early",
    "l9_heartbeat_after_a_long_pause_is_decided",
    // a fixture that can Compact
    "w11_compacted_while_cut_off",
];
