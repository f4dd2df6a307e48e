//! The link: the one connection that two processes share, for any number of streams in both directions.
//!
//! It knows nothing of endpoints. Whoever asks opens a stream with a target, headers and a payload, and gives a
//! [`Sink`] for the answers; whoever answers has an [`Outflow`]. In call-home the request came another way, and
//! the answering end attaches a stream to the call.
//!
//! TLS, where it is spoken, lies below all of this: what follows is what travels inside of it.
//!
#![doc = include_str!("link/PROTOCOL.md")]

mod assembly;
mod batch;
mod counters;
mod driver;
mod flow;
mod frame;
#[cfg(feature = "_fuzz")]
pub(crate) mod fuzz;
mod hello;
mod intake;
mod limits;
mod outbound;
mod reason;
mod shared;
mod streams;
mod table;
mod taking;
mod targets;
#[cfg(test)]
mod tests;

use std::fmt::{self, Debug};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use slipring_core::{ByteStream, Environment, EnvironmentExt, Error, Headers, Result, Secret, Task};
use tokio::time::Instant;

pub(crate) use self::counters::PlaneCounters;
use self::driver::Driver;
pub(crate) use self::flow::{Inflow, Outflow, Taker};
pub(crate) use self::hello::Refusal;
pub(crate) use self::limits::LinkLimits;
pub(crate) use self::reason::CloseReason;
use self::shared::Shared;
use super::report::ConnectionReport;

/// Who this end is, what it offers and what it allows. One for a runtime, shared by all its links.
pub(crate) struct Local {
    pub(crate) environment: Arc<dyn Environment>,
    /// The instance id of the runtime.
    pub(crate) instance: u64,
    /// Its epoch now.
    pub(crate) epoch: Arc<AtomicU64>,
    pub(crate) limits: LinkLimits,
    /// What both ends have to know, if anything.
    pub(crate) secret: Option<Secret>,
    pub(crate) host: Arc<dyn Host>,
    pub(crate) counters: Arc<PlaneCounters>,
}

/// A process at the end of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Peer {
    /// Its instance id.
    pub(crate) instance: u64,
    /// Its epoch: how often it has had a lease. Of a peer that is expected, the least.
    pub(crate) epoch: u64,
}

/// Who gets what arrives. Called on the link's own task, so it must return at once.
pub(crate) trait Host: Debug + Send + Sync + 'static {
    /// A request. It may be answered at once, or by a task.
    fn handle_request(&self, request: Inbound);

    /// The peer wants to deliver the answers of this call of ours, which holds the stream from now on; `None` if it
    /// is not known (any more).
    fn adopt(&self, call: u64, token: u64, inflow: Inflow) -> Option<Arc<dyn Sink>>;
}

/// A request that arrived.
#[derive(Debug)]
pub(crate) struct Inbound {
    pub(crate) target: Arc<str>,
    /// What is left of the deadline.
    pub(crate) deadline: Duration,
    pub(crate) headers: Headers,
    pub(crate) payload: Bytes,
    pub(crate) answers: Outflow,
}

/// A request to send.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Outbound<'a> {
    pub(crate) target: &'a str,
    /// What is left of the deadline.
    pub(crate) deadline: Duration,
    pub(crate) headers: &'a Headers,
    pub(crate) payload: &'a Bytes,
    /// When the sink is woken, if the stream is open then.
    pub(crate) wake_at: Option<Instant>,
}

/// Who takes the answers to a request.
pub(crate) trait Sink: Debug + Send + Sync + 'static {
    /// Takes all that one read brought for the stream, in order; nothing follows an end. `load` is what the
    /// answering end said last of its load. Called on the link's task: must return at once.
    fn deliver(&self, arrivals: &mut Vec<Arrival>, load: Option<u64>);

    /// Is it known that nobody takes them any more? Asked once a stream that was [adopted](Host::adopt) is there, so
    /// that whoever gave up before that is noticed.
    fn is_over(&self) -> bool {
        false
    }

    /// The time has come at which it wanted to be woken. Called on the link's task: must return at once.
    fn wake(&self) {}
}

/// What a stream brings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// An item; after the last nothing follows.
    Item { payload: Bytes, last: bool },
    /// All items came; so many.
    End { count: u64 },
    /// Nothing follows but this.
    Failed(Error),
}

/// One established connection. Clones are the same link, which is closed when the last of them is dropped.
#[derive(Clone)]
pub(crate) struct Link {
    held: Arc<Held>,
}

struct Held {
    shared: Arc<Shared>,
    task: Option<Task>,
}

impl Link {
    /// Runs the handshake as the dialler, and starts the link's task.
    ///
    /// # Errors
    /// `Unavailable` if whoever is there is not the peer that is expected, or does not answer in time,
    /// `Unauthorized`, `Unsupported`.
    pub(crate) async fn dial(
        local: Arc<Local>,
        mut stream: Box<dyn ByteStream>,
        expected: Peer,
    ) -> Result<Self> {
        let (peer, theirs) = hello::dial(&local, &mut stream, expected).await?;
        Ok(Self::start(Shared::new(local, stream, peer, theirs, true)))
    }

    /// Runs the handshake as the one who was dialled, and starts the link's task.
    ///
    /// # Errors
    /// As for [`dial`](Self::dial).
    pub(crate) async fn accept(local: Arc<Local>, mut stream: Box<dyn ByteStream>) -> Result<Self> {
        let (peer, theirs) = hello::accept(&local, &mut stream).await?;
        Ok(Self::start(Shared::new(local, stream, peer, theirs, false)))
    }

    fn start(shared: Arc<Shared>) -> Self {
        tracing::debug!(peer = shared.peer_name(), epoch = shared.peer.epoch, "a link was opened");
        let driver = Driver::new(shared.clone());
        let task = shared.local.environment.start("link", driver.run());
        Self { held: Arc::new(Held { shared, task: Some(task) }) }
    }

    /// Sends a request.
    ///
    /// # Errors
    /// Effect none: the link is closed, one end has gone away, there are too many streams, or it is too large.
    pub(crate) fn open(&self, request: Outbound<'_>, sink: Arc<dyn Sink>) -> Result<Inflow> {
        self.held.shared.open(request, sink)
    }

    /// Begins to deliver the answers of a call of the peer, whose request came another way.
    ///
    /// # Errors
    /// The link is closed, the peer has gone away, or there are too many streams.
    pub(crate) fn attach(&self, call: u64, token: u64) -> Result<Outflow> {
        self.held.shared.attach(call, token)
    }

    /// Takes no new streams of the peer from now on, and tells it so, and which was the last. When none is open
    /// any more at either end, the link is closed.
    pub(crate) fn go_away(&self) {
        self.held.shared.go_away();
    }

    /// May streams be opened: it is not closed, and neither end has gone away?
    pub(crate) fn is_usable(&self) -> bool {
        self.held.shared.is_usable()
    }

    /// Is it closed, or about to be?
    pub(crate) fn is_closed(&self) -> bool {
        self.held.shared.streams().closing.is_some()
    }

    /// Waits until no stream is open. Cancel-safe.
    pub(crate) async fn drained(&self) {
        let shared = &self.held.shared;
        loop {
            let mut emptied = pin!(shared.emptied.notified());
            emptied.as_mut().enable();
            if shared.is_empty() {
                return;
            }
            emptied.await;
        }
    }

    /// Closes it: streams that are open are interrupted.
    pub(crate) fn close(&self, reason: CloseReason) {
        self.held.shared.close(reason);
    }

    /// Waits until it is closed. Cancel-safe.
    pub(crate) async fn closed(&self) -> CloseReason {
        let shared = &self.held.shared;
        loop {
            let mut ended = pin!(shared.ended.notified());
            ended.as_mut().enable();
            if let Some(reason) = shared.closed() {
                return reason;
            }
            ended.await;
        }
    }

    /// What it does now, and what it did; where the peer is, and how it is protected, it does not know.
    pub(crate) fn snapshot(&self) -> ConnectionReport {
        self.held.shared.snapshot()
    }

    /// It was the so many-th of its runtime.
    pub(crate) fn number(&self) -> u64 {
        self.held.shared.number()
    }
}

impl Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Debug::fmt(&self.held.shared, f)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.shared.close(CloseReason::Requested);
        // Its task says goodbye, and ends.
        if let Some(task) = self.task.take() {
            task.detach();
        }
    }
}

impl Local {
    /// This end, as the peer has to expect it.
    pub(crate) fn peer(&self) -> Peer {
        Peer { instance: self.instance, epoch: self.epoch.load(Ordering::Acquire) }
    }
}

/// The secret is not shown.
impl Debug for Local {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Local")
            .field("peer", &self.peer())
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}
