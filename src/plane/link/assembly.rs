use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use slipring_core::Headers;

use super::reason::Violation;

/// A request whose payload arrives in chunks.
#[derive(Debug)]
pub(super) struct Opening {
    pub(super) target: Arc<str>,
    pub(super) deadline: Duration,
    pub(super) headers: Headers,
    pub(super) assembly: Assembly,
}

/// An item that arrives in chunks.
#[derive(Debug)]
pub(super) struct ItemAssembly {
    pub(super) last: bool,
    pub(super) load: u64,
    pub(super) assembly: Assembly,
}

/// A message that arrives in chunks.
#[derive(Debug)]
pub(super) struct Assembly {
    total: usize,
    data: BytesMut,
}

/// What a chunk did to its message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Added {
    /// There is more to come.
    More,
    /// It is whole.
    Whole(Bytes),
    /// There is no room for it.
    Refused,
}

impl Assembly {
    /// Room that is made at first, and at least each time after.
    const STEP_BYTES: usize = 256 * 1024;

    pub(super) fn new(total: usize) -> Self {
        Self { total, data: BytesMut::new() }
    }

    /// What it counts for: nothing until its first chunk is there.
    pub(super) fn charged(&self) -> usize {
        if self.data.is_empty() { 0 } else { self.total }
    }

    /// Adds the chunk that begins at this offset, which is the next one. `assembling` is what all together count for, which may be at most `max`.
    pub(super) fn add(
        &mut self,
        offset: u32,
        chunk: &[u8],
        assembling: &mut usize,
        max: usize,
    ) -> Result<Added, Violation> {
        if offset as usize != self.data.len() {
            return Err(Violation::Chunk);
        }
        if self.data.is_empty() {
            if assembling.saturating_add(self.total) > max {
                return Ok(Added::Refused);
            }
            *assembling += self.total;
        }
        let left = self.total - self.data.len();
        if chunk.len() > left {
            return Err(Violation::Chunk);
        }
        if self.data.capacity() - self.data.len() < chunk.len() {
            self.data.reserve(left.min(self.data.len().max(Self::STEP_BYTES)).max(chunk.len()));
        }
        self.data.extend_from_slice(chunk);
        if chunk.len() < left {
            return Ok(Added::More);
        }
        *assembling -= self.total;
        Ok(Added::Whole(std::mem::take(&mut self.data).freeze()))
    }
}
