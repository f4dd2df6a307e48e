use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use super::wire::Ends;
use crate::history::Death;

/// The connections of one life of a node. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sockets(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    death: Option<Death>,
    ends: Vec<Weak<End>>,
}

/// What is behind a socket.
#[derive(Debug)]
struct End {
    wires: Ends,
    /// The node has crashed.
    closed: AtomicBool,
}

impl Sockets {
    /// How this life ended, if it did.
    pub(crate) fn death(&self) -> Option<Death> {
        self.state().death
    }

    /// One end of a connection, for a task of the node.
    pub(super) fn open(&self, wires: Ends) -> Socket {
        let end = Arc::new(End { wires, closed: AtomicBool::new(false) });
        let mut state = self.state();
        state.ends.retain(|end| end.strong_count() > 0);
        state.ends.push(Arc::downgrade(&end));
        let crashed = state.death == Some(Death::Crash);
        drop(state);
        if crashed {
            end.close();
        }
        Socket { end, sockets: self.clone(), alarm: None }
    }

    /// Closes all connections, or leaves them in silence.
    pub(crate) fn die(&self, death: Death) {
        let ends: Vec<Arc<End>> = {
            let mut state = self.state();
            if state.death.is_some() {
                return;
            }
            state.death = Some(death);
            std::mem::take(&mut state.ends).iter().filter_map(Weak::upgrade).collect()
        };
        if death == Death::Crash {
            ends.iter().for_each(|end| end.close());
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no code panics while it holds the lock")
    }
}

impl End {
    fn close(&self) {
        if !self.closed.swap(true, Ordering::Relaxed) {
            self.wires.outgoing.finish();
            self.wires.incoming.close();
        }
    }
}

/// One end of a connection, as long as its node lives.
#[derive(Debug)]
pub(super) struct Socket {
    end: Arc<End>,
    sockets: Sockets,
    /// Rings when the next bytes arrive.
    alarm: Option<Pin<Box<Sleep>>>,
}

impl Socket {
    fn poll<T>(&mut self, poll: impl FnOnce(&mut Self) -> Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        match self.sockets.death() {
            Some(Death::PowerLoss) => Poll::Pending,
            Some(Death::Crash) => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            None => poll(self),
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.poll(|socket| socket.end.wires.incoming.poll_read(cx, buf, &mut socket.alarm))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll(|socket| socket.end.wires.outgoing.poll_write(cx, bytes))
    }

    /// What was written is under way.
    fn poll_flush(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll(|_| Poll::Ready(Ok(())))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll(|socket| {
            socket.end.wires.outgoing.finish();
            Poll::Ready(Ok(()))
        })
    }
}

/// A machine without power does not take its leave.
impl Drop for Socket {
    fn drop(&mut self) {
        if self.sockets.death() != Some(Death::PowerLoss) {
            self.end.close();
        }
    }
}
