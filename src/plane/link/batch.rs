use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use slipring_core::ByteStream;
use tokio::io::AsyncWrite;

use super::frame::{HEAD_BYTES, Head, Kind};

/// What is at least so long is written from where it lies; what is shorter is copied.
const LARGE_BYTES: usize = 16 * 1024;
/// So many pieces are handed to one write.
const PIECES_MAX: usize = 32;
/// More room than this is not kept for the next batch.
const KEPT_BYTES_MAX: usize = 512 * 1024;

/// Frames in the order in which they go out: small parts in one buffer, and large ones between them.
#[derive(Debug, Default)]
pub(super) struct Batch {
    small: Vec<u8>,
    /// Large parts, each with the length of the small ones before it.
    large: Vec<(usize, Bytes)>,
    bytes: usize,
    /// How much of the small parts was written.
    small_done: usize,
    /// How many of the large parts were written.
    large_done: usize,
    /// How much of the next large part was written.
    part_done: usize,
}

impl Batch {
    pub(super) fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// How many bytes it has, whether written or not.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Begins a frame with a body of this length, which is added next.
    pub(super) fn head(&mut self, kind: Kind, flags: u8, stream: u64, length: usize) {
        self.small.extend_from_slice(&Head::bytes(kind, flags, stream, length));
        self.bytes += HEAD_BYTES;
    }

    /// Adds a part that is short.
    pub(super) fn part(&mut self, part: &[u8]) {
        self.small.extend_from_slice(part);
        self.bytes += part.len();
    }

    /// Adds a part of any length.
    pub(super) fn payload(&mut self, payload: &Bytes) {
        if payload.len() < LARGE_BYTES {
            self.part(payload);
        } else {
            self.bytes += payload.len();
            self.large.push((self.small.len(), payload.clone()));
        }
    }

    /// Adds small parts by writing them.
    pub(super) fn write(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let before = self.small.len();
        write(&mut self.small);
        self.bytes += self.small.len() - before;
    }

    /// Writes what is left. Returns how much could be written, and how far it came: ready when nothing is
    /// left, which also makes the batch empty again.
    pub(super) fn poll_write(
        &mut self,
        stream: &mut Box<dyn ByteStream>,
        cx: &mut Context<'_>,
        written: &mut u64,
    ) -> Poll<io::Result<()>> {
        while self.is_left() {
            let n = if self.large.is_empty() {
                ready!(Pin::new(&mut *stream).poll_write(cx, &self.small[self.small_done..]))?
            } else {
                let mut pieces = [IoSlice::new(&[]); PIECES_MAX];
                let count = self.pieces(&mut pieces);
                ready!(Pin::new(&mut *stream).poll_write_vectored(cx, &pieces[..count]))?
            };
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            *written += n as u64;
            self.advance(n);
        }
        self.clear();
        Poll::Ready(Ok(()))
    }

    fn is_left(&self) -> bool {
        self.small_done < self.small.len() || self.large_done < self.large.len()
    }

    fn pieces<'a>(&'a self, pieces: &mut [IoSlice<'a>; PIECES_MAX]) -> usize {
        let (mut count, mut at, mut skipped) = (0, self.small_done, self.part_done);
        let mut add = |piece: &'a [u8]| {
            if !piece.is_empty() && count < PIECES_MAX {
                pieces[count] = IoSlice::new(piece);
                count += 1;
            }
        };
        for (after, part) in self.large[self.large_done..].iter().take(PIECES_MAX) {
            add(&self.small[at..*after]);
            add(&part[skipped..]);
            (at, skipped) = (*after, 0);
        }
        add(&self.small[at..]);
        count
    }

    fn advance(&mut self, mut n: usize) {
        loop {
            let next = self.large.get(self.large_done);
            let small_end = next.map_or(self.small.len(), |(after, _)| *after);
            let step = n.min(small_end - self.small_done);
            self.small_done += step;
            n -= step;
            let Some((_, part)) = next else { return };
            if self.small_done < small_end {
                return;
            }
            let step = n.min(part.len() - self.part_done);
            self.part_done += step;
            n -= step;
            if self.part_done < part.len() {
                return;
            }
            self.large[self.large_done].1 = Bytes::new();
            self.large_done += 1;
            self.part_done = 0;
        }
    }

    /// Makes it empty, as new; moderate room is kept.
    fn clear(&mut self) {
        let (mut small, mut large) = (std::mem::take(&mut self.small), std::mem::take(&mut self.large));
        small.clear();
        large.clear();
        if small.capacity() > KEPT_BYTES_MAX {
            small = Vec::new();
        }
        *self = Self { small, large, ..Self::default() };
    }

    /// Gives up the room that is kept; the batch is empty.
    pub(super) fn shrink(&mut self) {
        if self.is_empty() {
            *self = Self::default();
        }
    }
}
