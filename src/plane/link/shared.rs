use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::task::{Context, Poll, Waker, ready};

use slipring_core::{ByteStream, Effect, Error, Result};
use tokio::io::AsyncWrite;
use tokio::sync::Notify;

use super::batch::Batch;
use super::flow::{Inflow, Outflow};
use super::frame::{
    BODY_BYTES_MAX, HEAD_BYTES, Kind, MORE, OPEN_BYTES, PREAMBLE_BYTES_MAX, Preamble, headers_bytes,
};
use super::hello::Allowance;
use super::outbound::{Body, What};
use super::reason::CloseReason;
use super::streams::Streams;
use super::{Arrival, Local, Outbound, Peer, Sink};
use crate::plane::report::{ConnectionReport, ConnectionTotals};

/// With so few streams, whoever has something to say writes it itself, if nobody else does.
const DIRECT_STREAMS_MAX: usize = 2;

/// So much is not kept back for company: whoever added the last of it writes all, so that the other end begins
/// while this one goes on.
const FLUSH_BYTES: usize = 4 * 1024;

/// What the handles of a link and its task share.
pub(super) struct Shared {
    pub(super) local: Arc<Local>,
    pub(super) peer: Peer,
    pub(super) theirs: Allowance,
    pub(super) dialler: bool,
    streams: Mutex<Streams>,
    wire: Mutex<Wire>,
    /// Bytes that were ever appended, and those that were handed to the connection.
    appended: AtomicU64,
    written: AtomicU64,
    received: AtomicU64,
    /// Bytes of answers that wait to travel in chunks.
    long_answers: AtomicUsize,
    /// Somebody waits until less is queued.
    crowded: AtomicBool,
    pub(super) room_changed: Notify,
    /// The link was closed.
    pub(super) ended: Notify,
    /// A stream ended after which there is none.
    pub(super) emptied: Notify,
    number: AtomicU64,
    /// How often the link's task ran.
    #[cfg(test)]
    polls: AtomicU64,
}

/// The connection, and what is being written to it.
pub(super) struct Wire {
    stream: Option<Box<dyn ByteStream>>,
    batch: Batch,
    unflushed: bool,
}

impl Shared {
    pub(super) fn new(
        local: Arc<Local>,
        stream: Box<dyn ByteStream>,
        peer: Peer,
        theirs: Allowance,
        dialler: bool,
    ) -> Arc<Self> {
        let wire = Wire { stream: Some(stream), batch: Batch::default(), unflushed: false };
        let shared = Arc::new(Self {
            local,
            peer,
            theirs,
            dialler,
            streams: Mutex::new(Streams::new(dialler, theirs)),
            wire: Mutex::new(wire),
            appended: AtomicU64::new(0),
            written: AtomicU64::new(0),
            received: AtomicU64::new(0),
            long_answers: AtomicUsize::new(0),
            crowded: AtomicBool::new(false),
            room_changed: Notify::new(),
            ended: Notify::new(),
            emptied: Notify::new(),
            number: AtomicU64::new(0),
            #[cfg(test)]
            polls: AtomicU64::new(0),
        });
        shared.number.store(shared.local.counters.opened(&shared), Ordering::Relaxed);
        shared
    }

    pub(super) fn streams(&self) -> MutexGuard<'_, Streams> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lock it before the streams, never after.
    pub(super) fn wire(&self) -> MutexGuard<'_, Wire> {
        self.wire.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The longest message that may be sent.
    pub(super) fn message_bytes_max(&self) -> usize {
        self.local.limits.message_bytes_max.min(self.theirs.message_bytes as usize)
    }

    /// The error of whatever can no longer be begun.
    pub(super) fn gone(&self, cause: impl fmt::Display) -> Error {
        let what = format!("the link to instance {:x}", self.peer.instance);
        Error::unavailable(what, cause.to_string(), Effect::None)
    }

    /// The error of a peer that has gone away.
    pub(super) fn draining(&self) -> Error {
        Error::draining(format!("instance {:x}", self.peer.instance))
    }

    /// Sends a request.
    pub(super) fn open(self: &Arc<Self>, request: Outbound<'_>, sink: Arc<dyn Sink>) -> Result<Inflow> {
        let Outbound { target, deadline, headers, payload, wake_at } = request;
        let max = self.message_bytes_max();
        if payload.len() > max {
            return Err(Error::payload_too_large(max, payload.len()));
        }
        let preamble = target.len() + headers_bytes(headers);
        if preamble > PREAMBLE_BYTES_MAX {
            return Err(Error::payload_too_large(PREAMBLE_BYTES_MAX, preamble));
        }
        let window = Allowance::of(&self.local.limits).window_bytes;
        let mut streams = self.streams();
        self.check_usable(&streams)?;
        if streams.own_open >= self.theirs.streams as usize {
            return Err(self.crowded_error("streams"));
        }
        if self.queued() + streams.bodies.left_bytes() > self.local.limits.requests_bytes_max {
            return Err(self.crowded_error("queued bytes"));
        }
        let stream = streams.number();
        streams.totals.streams_opened += 1;
        let whole = OPEN_BYTES + preamble + payload.len() <= BODY_BYTES_MAX;
        let carried = if whole { payload.len() } else { 0 };
        let flags = if whole { 0 } else { MORE };
        streams.batch.head(Kind::Open, flags, stream, OPEN_BYTES + preamble + carried);
        streams.batch.write(|out| Preamble::write(out, deadline, payload.len(), target, headers));
        streams.take(stream, sink, window);
        streams.wake(stream, wake_at);
        if whole {
            streams.batch.payload(payload);
            let appended = streams.appended();
            streams.taking.get_mut(stream).expect("it was just added").leaves_at = appended;
        } else {
            streams.bodies.push(Body { stream, what: What::Request, rest: payload.clone() });
        }
        self.send(streams);
        Ok(Inflow::new(self.clone(), stream, window))
    }

    fn crowded_error(&self, what: &str) -> Error {
        Error::overloaded(format!("the link to instance {:x} (its limit of {what})", self.peer.instance))
    }

    /// Begins to deliver the answers of a call of the peer.
    pub(super) fn attach(self: &Arc<Self>, call: u64, token: u64) -> Result<Outflow> {
        let mut streams = self.streams();
        self.check_usable(&streams)?;
        if streams.own_open >= self.theirs.streams as usize {
            return Err(self.crowded_error("streams"));
        }
        let stream = streams.number();
        streams.totals.streams_opened += 1;
        let mut body = [0; 16];
        body[..8].copy_from_slice(&call.to_le_bytes());
        body[8..].copy_from_slice(&token.to_le_bytes());
        streams.batch.head(Kind::Attach, 0, stream, body.len());
        streams.batch.part(&body);
        let state = streams.answer(stream);
        self.send(streams);
        Ok(Outflow::new(self.clone(), state))
    }

    /// Says something on a stream that is answered.
    ///
    /// # Errors
    /// The link is about to be closed: nothing more is added to what waits for the wire.
    pub(super) fn answer(&self, say: impl FnOnce(&mut Streams)) -> Result<()> {
        let mut streams = self.streams();
        if let Some(reason) = streams.closing {
            return Err(self.gone(reason));
        }
        streams.answers(say);
        self.send(streams);
        Ok(())
    }

    fn check_usable(&self, streams: &Streams) -> Result<()> {
        if let Some(reason) = streams.closing {
            return Err(self.gone(reason));
        }
        if streams.peer_gone {
            return Err(self.draining());
        }
        if streams.gone_away.is_some() {
            return Err(self.gone("this end has gone away"));
        }
        Ok(())
    }

    pub(super) fn is_usable(&self) -> bool {
        self.check_usable(&self.streams()).is_ok()
    }

    /// Is no stream open?
    pub(super) fn is_empty(&self) -> bool {
        self.streams().open() == 0
    }

    /// Why it was closed, if it is.
    pub(super) fn closed(&self) -> Option<CloseReason> {
        let streams = self.streams();
        streams.closing.filter(|_| streams.closed)
    }

    /// Tells the peer to open no more streams.
    pub(super) fn go_away(&self) {
        let mut streams = self.streams();
        if streams.gone_away.is_some() || streams.closing.is_some() {
            return;
        }
        let last = streams.next_peer.saturating_sub(2);
        streams.gone_away = Some(last);
        streams.batch.head(Kind::GoAway, 0, 0, 8);
        streams.batch.part(&last.to_le_bytes());
        self.send(streams);
        tracing::debug!(peer = self.peer_name(), last, "going away");
    }

    /// The peer, for those who read logs.
    pub(super) fn peer_name(&self) -> String {
        format!("{:x}", self.peer.instance)
    }

    /// Asks the link's task to close it. The first reason stays.
    pub(super) fn close(&self, reason: CloseReason) {
        let mut streams = self.streams();
        streams.closing.get_or_insert(reason);
        streams.awake = true;
        let waker = streams.waker.clone();
        drop(streams);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Bytes that wait for the wire, those in chunks apart.
    pub(super) fn queued(&self) -> usize {
        let written = self.written.load(Ordering::Acquire);
        usize::try_from(self.appended.load(Ordering::Acquire).saturating_sub(written)).unwrap_or(usize::MAX)
    }

    /// Has the wire room for more? If not, whoever asked is told when it has.
    pub(super) fn has_room(&self) -> bool {
        self.queued() < self.local.limits.outbound_bytes_max
            && self.long_answers.load(Ordering::SeqCst) < self.local.limits.long_answers_bytes_max
    }

    /// The same; if not, `room_changed` is told when it has.
    pub(super) fn has_room_or_tells(&self) -> bool {
        if self.has_room() {
            return true;
        }
        self.crowded.store(true, Ordering::SeqCst);
        self.has_room()
    }

    /// Something was appended: sees to it that it goes out.
    pub(super) fn send<'a>(&'a self, mut streams: MutexGuard<'a, Streams>) {
        self.appended.store(streams.appended(), Ordering::Release);
        self.long_answers(&streams);
        if streams.is_unread(&self.local.limits) {
            streams.closing.get_or_insert(CloseReason::Unread);
        }
        if streams.open() == 0 {
            self.emptied.notify_waiters();
        }
        if streams.closed {
            return;
        }
        if streams.awake {
            if streams.batch.bytes() >= FLUSH_BYTES {
                drop(streams);
                self.write_early();
            }
            return;
        }
        let quiet = streams.recent <= DIRECT_STREAMS_MAX && streams.open() <= DIRECT_STREAMS_MAX;
        let plain = streams.closing.is_none() && streams.gone_away.is_none() && !streams.peer_gone;
        if quiet && plain && !streams.dozing && !streams.wakes_sooner {
            drop(streams);
            if self.write_here() {
                return;
            }
            streams = self.streams();
            if streams.awake {
                return;
            }
        }
        streams.awake = true;
        let waker = streams.waker.clone();
        drop(streams);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Writes what there is, though the link's own task is about to; unless somebody does, or waits for the
    /// connection to take more.
    fn write_early(&self) {
        let Ok(mut wire) = self.wire.try_lock() else { return };
        if !wire.batch.is_empty() {
            return;
        }
        let mut cx = Context::from_waker(Waker::noop());
        if wire.poll_drain(self, &mut cx).is_pending() {
            drop(wire);
            let waker = self.streams().waker.clone();
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }

    /// Writes what there is, on the task of whoever appended it; false if the link's own task has to go on.
    fn write_here(&self) -> bool {
        let mut wire = match self.wire.try_lock() {
            Ok(wire) => wire,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return false,
        };
        // Pending wakes nobody: then the task is woken, and asks again for itself.
        let mut cx = Context::from_waker(Waker::noop());
        matches!(wire.poll_drain(self, &mut cx), Poll::Ready(Ok(())))
    }

    #[cfg(test)]
    pub(super) fn polled(&self) {
        self.polls.fetch_add(1, Ordering::Relaxed);
    }

    #[cfg(test)]
    pub(super) fn polls(&self) -> u64 {
        self.polls.load(Ordering::Relaxed)
    }

    pub(super) fn received(&self, bytes: usize) {
        self.received.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn wrote(&self, bytes: u64) {
        self.written.fetch_add(bytes, Ordering::AcqRel);
        self.relieve();
    }

    /// Shows how many bytes of answers wait to travel in chunks; mostly as many as before, none.
    fn long_answers(&self, streams: &Streams) {
        let bytes = streams.bodies.items_left_bytes();
        if self.long_answers.load(Ordering::Relaxed) != bytes {
            self.long_answers.store(bytes, Ordering::SeqCst);
        }
    }

    /// Less is queued: tells those who wait for that, once it is little.
    fn relieve(&self) {
        let limits = &self.local.limits;
        let few = self.queued() <= limits.outbound_bytes_max / 2
            && self.long_answers.load(Ordering::SeqCst) <= limits.long_answers_bytes_max / 2;
        if few && self.crowded.load(Ordering::SeqCst) && self.crowded.swap(false, Ordering::SeqCst) {
            self.room_changed.notify_waiters();
        }
    }

    /// The link is over: every stream is told, and the connection is let go. Again is no-op.
    pub(super) fn finish(&self, reason: CloseReason) {
        let mut streams = self.streams();
        if std::mem::replace(&mut streams.closed, true) {
            return;
        }
        let reason = *streams.closing.get_or_insert(reason);
        let written = self.written.load(Ordering::Acquire);
        let interrupted = streams.open() as u64;
        let numbers = streams.taking.numbers();
        let taken: Vec<_> = numbers.into_iter().filter_map(|stream| streams.stop_taking(stream)).collect();
        let numbers = streams.answering.numbers();
        let answered: Vec<_> = numbers.into_iter().filter_map(|at| streams.stop_answering(at)).collect();
        while let Some(stream) = streams.opening.keys().next().copied() {
            streams.stop_opening(stream);
        }
        let totals = ConnectionTotals { interrupted, ..streams.totals };
        drop(streams);
        for answering in answered {
            answering.stream.leave();
        }
        for taking in taken {
            let error = if taking.leaves_at > written {
                self.gone(reason)
            } else {
                Error::stream_interrupted(0, format!("{}", self.gone(reason)))
            };
            taking.sink.deliver(&mut vec![Arrival::Failed(error)], None);
        }
        self.wire().stream = None;
        self.emptied.notify_waiters();
        self.room_changed.notify_waiters();
        self.ended.notify_waiters();
        let bytes_sent = written;
        let bytes_received = self.received.load(Ordering::Relaxed);
        let totals = ConnectionTotals { bytes_sent, bytes_received, ..totals };
        self.local.counters.closed(self.number(), reason, &totals);
        let peer = self.peer_name();
        if reason.is_fault() {
            tracing::warn!(peer, reason = reason.code(), interrupted, "a link was closed: {reason}");
        } else {
            tracing::debug!(peer, reason = reason.code(), interrupted, "a link was closed: {reason}");
        }
    }

    pub(super) fn number(&self) -> u64 {
        self.number.load(Ordering::Relaxed)
    }

    pub(super) fn snapshot(&self) -> ConnectionReport {
        let streams = self.streams();
        let bytes_sent = self.written.load(Ordering::Relaxed);
        let bytes_received = self.received.load(Ordering::Relaxed);
        ConnectionReport {
            peer: self.peer.instance,
            epoch: self.peer.epoch,
            is_dialled: self.dialler,
            streams_open: streams.open(),
            // Once it is closed, nothing waits any more.
            queued_bytes: if streams.closed { 0 } else { self.queued() + streams.bodies.left_bytes() },
            assembling_bytes: streams.assembling_bytes,
            totals: ConnectionTotals { bytes_sent, bytes_received, ..streams.totals },
            ..ConnectionReport::default()
        }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link")
            .field("peer", &self.peer)
            .field("dialler", &self.dialler)
            .finish_non_exhaustive()
    }
}

impl Wire {
    /// Reads into a buffer with room.
    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        input: &mut bytes::BytesMut,
    ) -> Poll<io::Result<usize>> {
        let Some(stream) = &mut self.stream else { return Poll::Ready(Ok(0)) };
        tokio_util::io::poll_read_buf(Pin::new(stream), cx, input)
    }

    /// Writes what there is, until nothing is left.
    pub(super) fn poll_drain(&mut self, shared: &Shared, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(stream) = &mut self.stream else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        loop {
            if self.batch.is_empty() {
                let mut streams = shared.streams();
                streams.fill();
                shared.long_answers(&streams);
                if streams.batch.is_empty() {
                    // What was given up meanwhile left as well.
                    shared.relieve();
                    break;
                }
                shared.appended.store(streams.appended(), Ordering::Release);
                streams.take_batch(&mut self.batch);
            }
            self.unflushed = true;
            let mut written = 0;
            let wrote = self.batch.poll_write(stream, cx, &mut written);
            shared.wrote(written);
            ready!(wrote)?;
        }
        if self.unflushed {
            ready!(Pin::new(stream).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Says goodbye, as far as that is possible at once.
    pub(super) fn part(&mut self, shared: &Shared, cx: &mut Context<'_>) {
        if self.poll_drain(shared, cx).is_ready()
            && let Some(stream) = &mut self.stream
        {
            // Whether it arrives or not, nothing more is to be done.
            let _ = Pin::new(stream).poll_shutdown(cx);
        }
    }

    /// Gives up the room that is kept.
    pub(super) fn shrink(&mut self) {
        self.batch.shrink();
    }
}

/// The least that a frame takes.
const _: () = assert!(HEAD_BYTES + OPEN_BYTES < BODY_BYTES_MAX);
