use std::sync::Arc;

use tokio::time::Instant;

use super::Sink;
use super::assembly::ItemAssembly;
use super::frame::ITEM_COST_BYTES;
use super::reason::Violation;

/// A stream whose items this end takes.
#[derive(Debug)]
pub(super) struct Taking {
    pub(super) sink: Arc<dyn Sink>,
    /// What the peer may still send.
    pub(super) credit: i64,
    /// How many items came.
    pub(super) items: u64,
    /// The request was handed to the wire once so many bytes were.
    pub(super) leaves_at: u64,
    /// When its sink is woken.
    pub(super) wake_at: Option<Instant>,
    /// The delivery of this read that is its own.
    pub(super) delivery: (u64, usize),
    pub(super) assembly: Option<Box<ItemAssembly>>,
}

impl Taking {
    /// Items are numbered from 0: what is missing, or comes again, is noticed.
    pub(super) fn check_next(&self, number: u32) -> Result<(), Violation> {
        if number == self.items as u32 { Ok(()) } else { Err(Violation::Count) }
    }

    /// An item uses credit up. One may always go while there is some, however long it is.
    pub(super) fn charge(&mut self, bytes: usize) -> Result<(), Violation> {
        if self.assembly.is_some() {
            return Err(Violation::Chunk);
        }
        if self.credit <= 0 {
            return Err(Violation::NoCredit);
        }
        self.credit -= cost(bytes);
        self.items += 1;
        Ok(())
    }
}

/// What an item costs.
pub(super) fn cost(bytes: usize) -> i64 {
    (bytes + ITEM_COST_BYTES) as i64
}
