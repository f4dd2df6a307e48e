//! What waits to be written to one client.

use std::sync::Arc;

use bytes::BytesMut;
use tokio::sync::Notify;

/// Bytes for a client, as many as are allowed. Beyond that it is [lost](Self::is_lost): its connection is to be
/// closed, as nats-server does with slow consumers.
#[derive(Debug)]
pub(crate) struct Outbox {
    waiting: BytesMut,
    /// Taken, and not written yet.
    taken_bytes: usize,
    bytes_max: usize,
    is_lost: bool,
    signals: Arc<Signals>,
}

/// What whoever writes waits for.
#[derive(Debug, Default)]
pub(crate) struct Signals {
    /// Something is there.
    pub(crate) filled: Notify,
    /// The client is lost.
    pub(crate) lost: Notify,
}

impl Outbox {
    /// So much is taken at once.
    const CHUNK_BYTES_MAX: usize = 64 * 1024;

    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { waiting: BytesMut::new(), taken_bytes: 0, bytes_max, is_lost: false, signals: Arc::default() }
    }

    /// What whoever writes waits for.
    pub(crate) fn signals(&self) -> Arc<Signals> {
        self.signals.clone()
    }

    /// Adds these, one after the other.
    pub(crate) fn push(&mut self, parts: &[&[u8]]) {
        let more: usize = parts.iter().map(|part| part.len()).sum();
        if self.is_lost || self.pending_bytes() + more > self.bytes_max {
            self.is_lost = true;
            self.waiting = BytesMut::new();
            self.signals.lost.notify_one();
        } else {
            parts.iter().for_each(|part| self.waiting.extend_from_slice(part));
            self.signals.filled.notify_one();
        }
    }

    /// What is to be written next; nothing if it is empty. What was taken before is written.
    pub(crate) fn take(&mut self) -> BytesMut {
        let bytes = self.waiting.len().min(Self::CHUNK_BYTES_MAX);
        self.taken_bytes = bytes;
        if bytes == self.waiting.len() {
            // Its memory goes with it.
            return std::mem::take(&mut self.waiting);
        }
        self.waiting.split_to(bytes)
    }

    /// Does it not read?
    pub(crate) fn is_lost(&self) -> bool {
        self.is_lost
    }

    /// Is so much waiting that whoever sends more should wait a little?
    pub(crate) fn is_behind(&self) -> bool {
        self.pending_bytes() > self.bytes_max / 2
    }

    fn pending_bytes(&self) -> usize {
        self.waiting.len() + self.taken_bytes
    }
}
