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

impl Opening {
    /// What a header takes beside its text, about.
    const HEADER_BYTES: usize = 64;

    /// What it takes beside its payload, about.
    pub(super) fn bytes(&self) -> usize {
        let headers: usize =
            self.headers.iter().map(|(name, value)| Self::HEADER_BYTES + name.len() + value.len()).sum();
        size_of::<Self>() + self.target.len() + headers
    }
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

    /// Adds the chunk that begins at this offset, which is the next one. `assembling` is what all together count
    /// for, which may be at most `max`.
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
        let left = self.total - self.data.len();
        if chunk.len() > left {
            return Err(Violation::Chunk);
        }
        if self.data.is_empty() {
            if assembling.saturating_add(self.total) > max {
                return Ok(Added::Refused);
            }
            *assembling += self.total;
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Room for a message is made as it comes, not as it is announced; over the bound nothing is kept of it.
    #[test]
    fn room_is_made_as_a_message_comes() {
        let (mut assembly, mut assembling) = (Assembly::new(1 << 30), 0);
        assert_eq!(assembly.add(0, &[1; 100], &mut assembling, 1 << 30), Ok(Added::More));
        assert_eq!((assembling, assembly.charged()), (1 << 30, 1 << 30));
        assert!(assembly.data.capacity() <= Assembly::STEP_BYTES, "{}", assembly.data.capacity());
        let mut refused = Assembly::new(2);
        assert_eq!(refused.add(0, &[1], &mut assembling, 1 << 30), Ok(Added::Refused));
        assert_eq!((assembling, refused.data.capacity()), (1 << 30, 0));
        assert_eq!(assembly.add(0, &[1], &mut assembling, 1 << 30), Err(Violation::Chunk));
    }
}
