use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

use bytes::{Buf, Bytes};
use tokio::io::ReadBuf;
use tokio::time::{Instant, Sleep, sleep_until};

use super::Network;

/// Bytes under way and unread in each direction before a writer waits.
const WINDOW_BYTES: usize = 64 * 1024;

/// What one side of a connection holds.
#[derive(Debug)]
pub(crate) struct Ends {
    pub(super) outgoing: Arc<Wire>,
    pub(super) incoming: Arc<Wire>,
}

/// One direction of a connection: bytes on their way, in order.
#[derive(Debug)]
pub(crate) struct Wire {
    network: Network,
    pub(super) from: Arc<str>,
    pub(super) to: Arc<str>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// When each part arrives; an empty one is the end.
    parts: VecDeque<(Instant, Bytes)>,
    last: Option<Instant>,
    bytes: usize,
    /// The writer will write no more.
    finished: bool,
    /// The reader is gone; since then a writer may learn of it.
    deaf_since: Option<Instant>,
    reset: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Wire {
    pub(super) fn new(network: Network, from: Arc<str>, to: Arc<str>) -> Self {
        Self { network, from, to, state: Mutex::default() }
    }

    /// Sends as much as there is room for.
    pub(super) fn poll_write(&self, cx: &Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let arrives = self.arrival();
        let learns = !self.network.is_held(&self.to, &self.from);
        let mut state = self.state();
        if state.reset {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let deaf = state.deaf_since.is_some_and(|since| learns && since <= Instant::now());
        if state.finished || deaf {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let room = WINDOW_BYTES - state.bytes;
        if room == 0 && !bytes.is_empty() {
            state.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let part = &bytes[..room.min(bytes.len())];
        if !part.is_empty() && state.deaf_since.is_none() {
            state.bytes += part.len();
            state.send(arrives, Bytes::copy_from_slice(part));
        }
        let reader = state.reader.take();
        drop(state);
        reader.into_iter().for_each(Waker::wake);
        Poll::Ready(Ok(part.len()))
    }

    /// Reads what has arrived; nothing at the end. `alarm` is the reader's, for what is still under way.
    pub(super) fn poll_read(
        &self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
        alarm: &mut Option<Pin<Box<Sleep>>>,
    ) -> Poll<io::Result<()>> {
        let held = self.network.is_held(&self.from, &self.to);
        let mut state = self.state();
        if state.reset {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        state.reader = Some(cx.waker().clone());
        let Some((arrives, part)) = state.parts.front_mut().filter(|_| !held) else { return Poll::Pending };
        if *arrives > Instant::now() {
            let at = *arrives;
            drop(state);
            let alarm = alarm.get_or_insert_with(|| Box::pin(sleep_until(at)));
            if alarm.deadline() != at {
                alarm.as_mut().reset(at);
            }
            // Ready or not: by then this is asked again.
            return match alarm.as_mut().poll(cx) {
                Poll::Ready(()) => self.poll_read(cx, buf, &mut None),
                Poll::Pending => Poll::Pending,
            };
        }
        let read = part.len().min(buf.remaining());
        buf.put_slice(&part[..read]);
        part.advance(read);
        // The end stays, so that it is read again and again.
        if part.is_empty() && read > 0 {
            state.parts.pop_front();
        }
        state.bytes -= read;
        let writer = state.writer.take();
        drop(state);
        writer.into_iter().for_each(Waker::wake);
        Poll::Ready(Ok(()))
    }

    /// The writer will write no more: the reader learns of it after all that was written.
    pub(super) fn finish(&self) {
        let arrives = self.arrival();
        self.change(|state| {
            if !std::mem::replace(&mut state.finished, true) {
                state.send(arrives, Bytes::new());
            }
        });
    }

    /// The reader will read no more.
    pub(super) fn close(&self) {
        let back = Instant::now() + self.network.latency(&self.to, &self.from);
        self.change(|state| {
            state.deaf_since.get_or_insert(back);
            state.parts.clear();
            state.bytes = 0;
        });
    }

    /// Both sides learn at once that there is no connection.
    pub(super) fn reset(&self) {
        self.change(|state| {
            state.reset = true;
            state.parts.clear();
        });
    }

    /// Whoever waits looks again.
    pub(super) fn look_again(&self) {
        self.change(|_| ());
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let wakers = {
            let mut state = self.state();
            change(&mut state);
            [state.reader.take(), state.writer.take()]
        };
        wakers.into_iter().flatten().for_each(Waker::wake);
    }

    fn arrival(&self) -> Instant {
        Instant::now() + self.network.latency(&self.from, &self.to)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no code panics while it holds the lock")
    }
}

impl State {
    /// Nothing overtakes what was sent before.
    fn send(&mut self, arrives: Instant, part: Bytes) {
        let arrives = self.last.map_or(arrives, |last| last.max(arrives));
        self.last = Some(arrives);
        self.parts.push_back((arrives, part));
    }
}
