//! Frames on a byte stream: a length in four bytes, and as many bytes.

use std::sync::{Mutex, MutexGuard};

use bytes::{Buf, Bytes, BytesMut};
use slipring_core::ByteStream;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use super::{BEAT_INTERVAL, FRAME_BYTES_MAX, Wire};

/// Why a connection is over.
pub(super) type Cause = String;

/// The frames that arrive.
pub(super) struct Incoming {
    stream: ReadHalf<Box<dyn ByteStream>>,
    read: BytesMut,
}

impl Incoming {
    pub(super) fn new(stream: ReadHalf<Box<dyn ByteStream>>) -> Self {
        Self { stream, read: BytesMut::new() }
    }

    /// The next frame. Cancel-safe.
    pub(super) async fn next<T: Wire>(&mut self) -> Result<T, Cause> {
        loop {
            if let Some(mut frame) = self.take()? {
                let value = T::read(&mut frame).map_err(|malformed| format!("a bad {}", malformed.what))?;
                return if frame.is_empty() { Ok(value) } else { Err("a frame is too long".to_owned()) };
            }
            match self.stream.read_buf(&mut self.read).await {
                Ok(0) => return Err("the connection was closed".to_owned()),
                Ok(_) => {}
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    /// A whole frame, if one has arrived. Its length is checked before it is waited for.
    fn take(&mut self) -> Result<Option<Bytes>, Cause> {
        let Some(head) = self.read.first_chunk::<4>() else { return Ok(None) };
        let length = usize::try_from(u32::from_be_bytes(*head)).unwrap_or(usize::MAX);
        if length > FRAME_BYTES_MAX {
            return Err(format!("a frame of {length} bytes"));
        }
        if self.read.len() < 4 + length {
            return Ok(None);
        }
        self.read.advance(4);
        Ok(Some(self.read.split_to(length).freeze()))
    }
}

/// The frames that leave, while they wait.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    waiting: Mutex<Waiting>,
    filled: Notify,
    emptied: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    bytes: Vec<u8>,
    /// All that were added for this connection.
    frames: u64,
}

/// With so many bytes waiting, the next frame waits for room.
const OUTBOX_BYTES_MAX: usize = 1024 * 1024;

impl Outbox {
    /// Adds a frame, whether or not there is room. One that is too long for the far side is left out, and that is
    /// the answer.
    #[must_use]
    pub(super) fn push(&self, frame: &impl Wire) -> bool {
        let mut waiting = self.waiting();
        let start = waiting.bytes.len();
        waiting.bytes.extend([0; 4]);
        frame.write(&mut waiting.bytes);
        let length = waiting.bytes.len() - start - 4;
        if length > FRAME_BYTES_MAX {
            waiting.bytes.truncate(start);
            return false;
        }
        let head = u32::try_from(length).expect("it is no longer than a frame may be");
        waiting.bytes[start..start + 4].copy_from_slice(&head.to_be_bytes());
        waiting.frames += 1;
        drop(waiting);
        self.filled.notify_one();
        true
    }

    /// How many frames were added for this connection.
    pub(super) fn frames(&self) -> u64 {
        self.waiting().frames
    }

    /// Is there room for a frame?
    pub(super) fn has_room(&self) -> bool {
        self.waiting().bytes.len() < OUTBOX_BYTES_MAX
    }

    /// Waits for room.
    pub(super) async fn room(&self) {
        loop {
            let emptied = self.emptied.notified();
            if self.has_room() {
                return;
            }
            emptied.await;
        }
    }

    /// Throws away what waits: the connection is over.
    pub(super) fn clear(&self) {
        *self.waiting() = Waiting::default();
        self.emptied.notify_waiters();
    }

    /// Writes what there is, and beats.
    pub(super) async fn drain<T: Wire>(
        &self,
        mut stream: WriteHalf<Box<dyn ByteStream>>,
        beat: impl Fn() -> T,
    ) -> Result<(), Cause> {
        let mut next_beat = Instant::now() + BEAT_INTERVAL;
        loop {
            let bytes = std::mem::take(&mut self.waiting().bytes);
            if !bytes.is_empty() {
                self.emptied.notify_waiters();
                stream.write_all(&bytes).await.map_err(|error| error.to_string())?;
            } else {
                // Whether it was filled, or it is time to beat, is looked at next.
                let _ = timeout_at(next_beat, self.filled.notified()).await;
            }
            if Instant::now() >= next_beat {
                next_beat = Instant::now() + BEAT_INTERVAL;
                let _fits = self.push(&beat());
            }
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().expect("no code panics while it holds the lock")
    }
}
