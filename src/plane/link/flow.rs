use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use slipring_core::{Effect, Error, Result};

use super::frame::{BODY_BYTES_MAX, ITEM_COST_BYTES, Kind};
use super::shared::Shared;
use super::streams::AnswerState;
use crate::plane::wire::encode_failure;

/// The answers of one request, from the answering side.
///
/// Dropped before its end it sends a reset: the asking end sees an interrupted stream.
pub(crate) struct Outflow {
    shared: Arc<Shared>,
    state: Arc<AnswerState>,
}

impl Outflow {
    pub(super) fn new(shared: Arc<Shared>, state: Arc<AnswerState>) -> Self {
        Self { shared, state }
    }

    /// Sends items, in order; after the last nothing follows. Never waits: what there is no credit for is kept
    /// here until there is, so whoever has many waits for [`room`](Self::room) first.
    ///
    /// # Errors
    /// `PayloadTooLarge` if one of them is too long, in which case none is sent and the stream is open still;
    /// `Cancelled` or `Unavailable` if nobody takes them any more.
    pub(crate) fn items(&self, items: &[Bytes], last: bool, load: u64) -> Result<()> {
        let max = self.shared.message_bytes_max();
        if let Some(long) = items.iter().find(|item| item.len() > max) {
            return Err(Error::payload_too_large(max, long.len()));
        }
        if items.is_empty() && last {
            return self.end(load);
        }
        self.check_open()?;
        if last {
            self.state.over.store(true, Ordering::Release);
        }
        self.shared.answer(|streams| streams.items(self.state.number, items, last, clamp(load)))
    }

    /// Ends the stream; the end carries the number of items.
    ///
    /// # Errors
    /// `Cancelled` or `Unavailable` if nobody takes it any more.
    pub(crate) fn end(&self, load: u64) -> Result<()> {
        self.check_open()?;
        self.state.over.store(true, Ordering::Release);
        self.shared.answer(|streams| streams.end(self.state.number, clamp(load)))
    }

    /// Ends the stream with an error. After its end, and when nobody takes it, that is no-op.
    pub(crate) fn fail(&self, error: &Error, load: u64) {
        if self.check_open().is_err() {
            return;
        }
        self.state.over.store(true, Ordering::Release);
        let body = failure(error, load);
        // If the link is about to be closed, that is told instead.
        let _ = self.shared.answer(|streams| streams.fail(self.state.number, body));
    }

    /// May more be sent: is there credit, and is less queued for the wire than its bound?
    pub(crate) fn has_room(&self) -> bool {
        self.state.room.load(Ordering::Acquire) && self.shared.has_room()
    }

    /// Waits until there is room. Cancel-safe.
    ///
    /// # Errors
    /// `Cancelled` or `Unavailable` if nobody takes the answers any more.
    pub(crate) async fn room(&self) -> Result<()> {
        loop {
            self.check_open()?;
            if self.has_room() {
                return Ok(());
            }
            let mut credit = pin!(self.state.room_changed.notified());
            let mut wire = pin!(self.shared.room_changed.notified());
            credit.as_mut().enable();
            wire.as_mut().enable();
            // What changed before they listened is seen now.
            self.check_open()?;
            if self.state.room.load(Ordering::Acquire) && self.shared.has_room_or_tells() {
                return Ok(());
            }
            tokio::select! {
                biased;
                () = credit => {}
                () = wire => {}
            }
        }
    }

    /// Was it cancelled by the asking end, or is the link gone?
    pub(crate) fn is_closed(&self) -> bool {
        self.state.gone.load(Ordering::Acquire)
    }

    /// Whoever takes the answers.
    pub(crate) fn taker(&self) -> Taker {
        Taker(self.state.clone())
    }

    fn check_open(&self) -> Result<()> {
        if self.state.over.load(Ordering::Acquire) {
            return Err(Error::cancelled("the stream, which has ended,", Effect::Applied));
        }
        if !self.is_closed() {
            return Ok(());
        }
        let closing = self.shared.streams().closing;
        Err(match closing {
            Some(reason) => self.shared.gone(reason),
            None => Error::cancelled("the stream", Effect::Unknown),
        })
    }
}

/// Tells whether anybody still takes the answers of a request.
pub(crate) struct Taker(Arc<AnswerState>);

impl Taker {
    /// Was the request cancelled by the asking end, or is the link gone?
    pub(crate) fn is_gone(&self) -> bool {
        self.0.gone.load(Ordering::Acquire)
    }

    /// Waits until it is. Cancel-safe.
    pub(crate) async fn gone(&self) {
        while !self.is_gone() {
            let mut went = pin!(self.0.went.notified());
            went.as_mut().enable();
            if !self.is_gone() {
                went.await;
            }
        }
    }
}

impl Drop for Outflow {
    fn drop(&mut self) {
        if self.state.over.load(Ordering::Acquire) || self.is_closed() {
            return;
        }
        // If the link is about to be closed, that is told instead.
        let _ = self.shared.answer(|streams| {
            if streams.stop_answering(self.state.number).is_some() {
                streams.totals.resets_sent += 1;
                streams.batch.head(Kind::Reset, 0, self.state.number, 0);
            }
        });
    }
}

impl fmt::Debug for Outflow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outflow").field("stream", &self.state.number).finish_non_exhaustive()
    }
}

/// Loads are small; a larger one is shown as the largest.
fn clamp(load: u64) -> u32 {
    u32::try_from(load).unwrap_or(u32::MAX)
}

/// The body of a failure: the load, and the error.
pub(super) fn failure(error: &Error, load: u64) -> Bytes {
    let mut body = clamp(load).to_le_bytes().to_vec();
    let mut encoded = encode_failure(error);
    if body.len() + encoded.len() > BODY_BYTES_MAX {
        // Its words are too many for a frame: some of them are left out.
        const CHARS_MAX: usize = 8 * 1024;
        let words: String = error.to_string().chars().take(CHARS_MAX).collect();
        encoded = encode_failure(&Error::fault(error.code(), words).raise(error.effect()));
    }
    body.append(&mut encoded);
    body.into()
}

/// The asking side's hold on a stream. Dropped before the end it sends a cancel.
pub(crate) struct Inflow {
    shared: Arc<Shared>,
    stream: u64,
    window: u32,
    /// What was consumed and not given back yet.
    consumed: AtomicU64,
    ended: AtomicBool,
}

impl Inflow {
    pub(super) fn new(shared: Arc<Shared>, stream: u64, window: u32) -> Self {
        Self { shared, stream, window, consumed: AtomicU64::new(0), ended: AtomicBool::new(false) }
    }

    /// Gives credit back: for so many bytes, of so many items. The other end is told at half a window.
    pub(crate) fn consumed(&self, bytes: usize, items: usize) {
        let cost = (bytes + items * ITEM_COST_BYTES) as u64;
        let total = self.consumed.fetch_add(cost, Ordering::Relaxed) + cost;
        if total >= u64::from(self.window / 2) {
            self.give_back();
        }
    }

    fn give_back(&self) {
        let mut streams = self.shared.streams();
        let consumed = self.consumed.swap(0, Ordering::Relaxed);
        let Some(taking) = streams.taking.get_mut(self.stream) else { return };
        // Never more than was used up, whatever the caller counts.
        let used = i64::from(self.window) - taking.credit;
        let back = i64::try_from(consumed).unwrap_or(i64::MAX).min(used);
        let Ok(back @ 1..) = u32::try_from(back) else { return };
        taking.credit += i64::from(back);
        streams.batch.head(Kind::Window, 0, self.stream, 4);
        streams.batch.part(&back.to_le_bytes());
        self.shared.send(streams);
    }

    /// The end was delivered: nothing is left to be said on this stream.
    pub(crate) fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
    }

    /// Gives the stream up, if it has not ended: the other end is told, and nothing more is delivered but what
    /// is being delivered now.
    pub(crate) fn cancel(&self) {
        if self.ended.load(Ordering::Relaxed) {
            return;
        }
        let mut streams = self.shared.streams();
        let Some(taking) = streams.stop_taking(self.stream) else { return };
        streams.totals.cancels_sent += 1;
        streams.batch.head(Kind::Cancel, 0, self.stream, 0);
        self.shared.send(streams);
        // Not under the lock: it may be the last one, and owns what we do not know.
        drop(taking);
    }
}

impl Drop for Inflow {
    fn drop(&mut self) {
        self.cancel();
    }
}

impl fmt::Debug for Inflow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inflow").field("stream", &self.stream).finish_non_exhaustive()
    }
}
