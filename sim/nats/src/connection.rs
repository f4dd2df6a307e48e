//! The I/O of one connection.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use slipring_core::ByteStream;
use slipring_memory::ConnectionId;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::info::Info;
use crate::router::Client;
use crate::server::Shared;
use crate::session::Session;

/// So much is read at once.
const READ_BYTES_MAX: usize = 32 * 1024;
/// How long whoever sends to somebody who does not keep up has to wait, for each time it is read.
const STALL: Duration = Duration::from_millis(5);
/// When a client that connected is asked for the first time whether it is there.
const FIRST_PING: Duration = Duration::from_secs(2);

/// Somebody who is connected: gone when dropped.
struct Connection {
    shared: Arc<Shared>,
    id: ConnectionId,
}

/// Serves one connection, until it ends.
pub(crate) async fn converse(
    shared: Arc<Shared>,
    info: Arc<Info>,
    stream: Box<dyn ByteStream>,
    from: (String, u64),
) {
    shared.when_running(|_| ()).await;
    let Some(id) = shared.connect() else {
        return refuse(&shared, stream).await;
    };
    // Dropped after the stream: who is not connected any more is not known any more either.
    let connection = Connection { shared, id };
    let (reader, mut writer) = tokio::io::split(stream);
    let mut unsent = BytesMut::new();
    let session = Session::new(connection.shared.options.clone(), info, from, id);
    tokio::select! {
        biased;
        // It is no use to tell it anything.
        () = connection.write(&mut writer, &mut unsent) => return,
        () = connection.read(reader, session) => {}
        () = connection.keep_time() => {}
    }
    // The last words, such as why.
    let last_words = connection.finish(&mut writer, unsent);
    let _ = timeout(connection.shared.options.write_timeout, last_words).await;
}

/// One too many.
async fn refuse(shared: &Shared, mut stream: Box<dyn ByteStream>) {
    let told = stream.write_all(b"-ERR 'maximum connections exceeded'\r\n");
    let _ = timeout(shared.options.write_timeout, told).await;
}

impl Connection {
    /// Reads until there is nothing more to read, or what was read is wrong.
    async fn read(&self, mut reader: impl AsyncRead + Unpin, mut session: Session) {
        self.shared.when_running(|router| session.greet(router)).await;
        let mut buffer = vec![0; READ_BYTES_MAX];
        loop {
            let Ok(bytes @ 1..) = reader.read(&mut buffer).await else { return };
            let bytes = &buffer[..bytes];
            let handled =
                self.shared.when_running(|router| session.handle(Instant::now(), bytes, router)).await;
            match handled {
                Ok(false) => {}
                Ok(true) => sleep(STALL).await,
                Err(_) => return,
            }
        }
    }

    /// Writes until that fails, or the client does not keep up. Dropped, it leaves in `unsent` what it has taken
    /// and not written.
    async fn write(&self, writer: &mut (impl AsyncWrite + Unpin), unsent: &mut BytesMut) {
        let signals = self.shared.when_running(|router| router.client(self.id).outbox.signals()).await;
        let write = async {
            while !self.take(unsent).await {
                if unsent.is_empty() {
                    signals.filled.notified().await;
                    continue;
                }
                let written = timeout(self.shared.options.write_timeout, writer.write_all_buf(unsent)).await;
                if !matches!(written, Ok(Ok(()))) {
                    return;
                }
            }
        };
        tokio::select! {
            biased;
            () = signals.lost.notified() => {}
            () = write => {}
        }
        // A server that stands still closes nothing.
        self.shared.when_running(|_| ()).await;
    }

    /// What is to be written next, if all before it is. Returns whether the client is lost.
    async fn take(&self, unsent: &mut BytesMut) -> bool {
        let mut take = |client: &mut Client| {
            if unsent.is_empty() {
                *unsent = client.outbox.take();
            }
            client.outbox.is_lost()
        };
        self.shared.when_running(|router| take(router.client(self.id))).await
    }

    async fn finish(&self, writer: &mut (impl AsyncWrite + Unpin), mut unsent: BytesMut) {
        loop {
            let is_lost = self.take(&mut unsent).await;
            if is_lost || unsent.is_empty() || writer.write_all_buf(&mut unsent).await.is_err() {
                break;
            }
        }
        let _ = writer.shutdown().await;
    }

    /// Asks now and then whether the client is there. Ends when it is not, or does not say who it is.
    async fn keep_time(&self) {
        let options = &self.shared.options;
        let began = Instant::now();
        if options.access != crate::Access::Open {
            sleep(options.access_timeout).await;
            let is_known = |client: &Client| client.pulse.connected.is_some();
            if !self.shared.when_running(|router| is_known(router.client(self.id))).await {
                return self.complain("Authentication Timeout").await;
            }
        }
        // Not all of them at once.
        let spread = self.shared.environment.random("nats first ping") % (FIRST_PING.as_millis() as u64 / 5);
        let first = FIRST_PING.min(options.ping_interval) + Duration::from_millis(spread);
        sleep_until(began + first).await;
        loop {
            let pulse = self.shared.when_running(|router| router.client(self.id).pulse).await;
            let now = Instant::now();
            let is_silent = now.duration_since(pulse.heard) >= options.ping_interval;
            let is_due = match pulse.connected {
                Some(since) => is_silent || (!pulse.is_measured && now >= since + first),
                None => is_silent,
            };
            if is_due {
                if pulse.pings + 1 > options.pings_max {
                    return self.complain("Stale Connection").await;
                }
                self.shared.when_running(|router| router.client(self.id).ping()).await;
            }
            match pulse.connected {
                Some(since) if !pulse.is_measured && !is_due => sleep_until(since + first).await,
                _ => sleep(options.ping_interval).await,
            }
        }
    }

    async fn complain(&self, text: &str) {
        self.shared.when_running(|router| router.tell(self.id, &format!("-ERR '{text}'\r\n"))).await;
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.shared.close(self.id);
    }
}
