use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};

use crate::history::Death;

/// The connections of one life of a node. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sockets(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    death: Option<Death>,
    ends: Vec<Weak<End>>,
    /// Of a machine without power: kept, so that the far ends learn nothing.
    silent: Vec<Arc<End>>,
}

/// What is behind a socket: nothing after a crash.
#[derive(Debug)]
struct End(Mutex<Option<DuplexStream>>);

impl Sockets {
    /// How this life ended, if it did.
    pub(crate) fn death(&self) -> Option<Death> {
        self.state().death
    }

    /// One end of a connection, for a task of the node.
    pub(crate) fn open(&self, stream: DuplexStream) -> Socket {
        let end = Arc::new(End(Mutex::new(Some(stream))));
        let mut state = self.state();
        state.ends.retain(|end| end.strong_count() > 0);
        state.ends.push(Arc::downgrade(&end));
        drop(state);
        if self.death() == Some(Death::Crash) {
            end.close();
        }
        Socket { end, sockets: self.clone() }
    }

    /// Resets all connections, or keeps them in silence.
    pub(crate) fn die(&self, death: Death) {
        let ends: Vec<Arc<End>> = {
            let mut state = self.state();
            if state.death.is_some() {
                return;
            }
            state.death = Some(death);
            std::mem::take(&mut state.ends).iter().filter_map(Weak::upgrade).collect()
        };
        match death {
            Death::Crash => ends.iter().for_each(|end| end.close()),
            Death::PowerLoss => self.state().silent = ends,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no code panics while it holds the lock")
    }
}

impl End {
    fn close(&self) {
        let stream = self.stream().take();
        drop(stream);
    }

    fn stream(&self) -> MutexGuard<'_, Option<DuplexStream>> {
        self.0.lock().expect("no code panics while it holds the lock")
    }
}

/// One end of a connection, as long as its node lives.
#[derive(Debug)]
pub(crate) struct Socket {
    end: Arc<End>,
    sockets: Sockets,
}

impl Socket {
    fn poll<T>(
        &self,
        poll: impl FnOnce(Pin<&mut DuplexStream>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if self.sockets.death() == Some(Death::PowerLoss) {
            return Poll::Pending;
        }
        match &mut *self.end.stream() {
            Some(stream) => poll(Pin::new(stream)),
            None => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Socket::poll(&self, |stream| stream.poll_read(cx, buf))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Socket::poll(&self, |stream| stream.poll_write(cx, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Socket::poll(&self, |stream| stream.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Socket::poll(&self, |stream| stream.poll_shutdown(cx))
    }
}
