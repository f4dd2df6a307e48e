//! The connections of a node, over turmoil's TCP.

use std::future;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::poll_immediate;
use slipring_core::{ByteStream, Effect, Error, Listener, Result, async_trait};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::sleep;
use turmoil::net::{TcpListener, TcpStream};

use crate::history::Death;
use crate::network::{Sockets, parse};

/// After how long a lost attempt to connect is sent again at first; then after twice as long each time.
const CONNECT_AGAIN_MIN: Duration = Duration::from_secs(1);

/// The longest time between two attempts.
const CONNECT_AGAIN_MAX: Duration = Duration::from_secs(16);

/// Listens on a port of the host. A host has one address, so whatever host the address names means all of it;
/// the others reach it under the name of its node.
pub(crate) async fn listen(sockets: &Sockets, node: &str, address: &str) -> Result<Box<dyn Listener>> {
    let (_, port) = parse(address)?;
    let unavailable = |error: io::Error| Error::unavailable(address, error.to_string(), Effect::None);
    let listener = TcpListener::bind(("0.0.0.0", port)).await.map_err(unavailable)?;
    let port = listener.local_addr().map_err(unavailable)?.port();
    let (host, _life) = node.split_once('#').unwrap_or((node, ""));
    Ok(Box::new(HostListener { address: format!("{host}:{port}"), listener, sockets: sockets.clone() }))
}

/// Connects to a host, by name or by IP address.
///
/// Turmoil refuses at once what it does not let through; a machine would send it again until its caller gives
/// up, and so does this.
pub(crate) async fn connect(sockets: &Sockets, address: &str) -> Result<Box<dyn ByteStream>> {
    let target = parse(address)?;
    let mut again = CONNECT_AGAIN_MIN;
    loop {
        let mut connect = pin!(TcpStream::connect(target));
        let connected = match poll_immediate(connect.as_mut()).await {
            // Nobody can answer within the very step in which it is asked: it was lost on the way.
            Some(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
                sleep(again).await;
                again = CONNECT_AGAIN_MAX.min(2 * again);
                continue;
            }
            Some(connected) => connected,
            None => connect.await,
        };
        let stream =
            connected.map_err(|error| Error::unavailable(address, error.to_string(), Effect::None))?;
        return Ok(Box::new(HostStream { stream, sockets: sockets.clone() }));
    }
}

/// Accepts connections, as long as its node lives.
struct HostListener {
    address: String,
    listener: TcpListener,
    sockets: Sockets,
}

#[async_trait]
impl Listener for HostListener {
    fn local_address(&self) -> String {
        self.address.clone()
    }

    async fn accept(&mut self) -> Result<(Box<dyn ByteStream>, String)> {
        let unavailable = |cause: String| Error::unavailable(&self.address, cause, Effect::None);
        match self.sockets.death() {
            Some(Death::PowerLoss) => future::pending().await,
            Some(Death::Crash) => Err(unavailable("this node has crashed".to_owned())),
            None => {
                let accepted = self.listener.accept().await;
                let (stream, peer) = accepted.map_err(|error| unavailable(error.to_string()))?;
                let stream = HostStream { stream, sockets: self.sockets.clone() };
                Ok((Box::new(stream), peer.to_string()))
            }
        }
    }
}

impl std::fmt::Debug for HostListener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HostListener").field("address", &self.address).finish_non_exhaustive()
    }
}

/// One end of a connection, as long as its node lives. What is behind it is closed with the task that holds it:
/// turmoil knows it on its own host only.
struct HostStream {
    stream: TcpStream,
    sockets: Sockets,
}

impl HostStream {
    fn poll<T>(
        &mut self,
        poll: impl FnOnce(Pin<&mut TcpStream>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        match self.sockets.death() {
            Some(Death::PowerLoss) => Poll::Pending,
            Some(Death::Crash) => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            None => poll(Pin::new(&mut self.stream)),
        }
    }
}

impl AsyncRead for HostStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.poll(|stream| stream.poll_read(cx, buf))
    }
}

impl AsyncWrite for HostStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll(|stream| stream.poll_write(cx, bytes))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll(|stream| stream.poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll(|stream| stream.poll_shutdown(cx))
    }
}
