//! The answers of one call, whichever plane brings them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use slipring_core::mutation::Mutation;
use slipring_core::{Effect, Error, Result};
use tokio::time::Instant;

use super::Plane;
use super::caller::Sent;
use super::link::Arrival;
use super::link_call::LinkCall;
use super::local::LocalCall;
use super::queue::Queue;
use super::traffic::Tally;
use crate::alarm::Alarm;
use crate::platform::Platform;

/// The answers of one call. Dropping it before the end gives the call up and tells the worker.
pub(crate) struct Incoming {
    platform: Arc<Platform>,
    way: Way,
    /// What was brought and is not read yet: taken from the queue together.
    brought: VecDeque<Arrival>,
    /// Items taken, and their bytes.
    received: u64,
    bytes: u64,
    over: bool,
    /// Where it is counted.
    count: Option<(Arc<Tally>, Plane)>,
}

/// The way that the answers come, and that the worker is told on what their reader does.
pub(crate) enum Way {
    /// Over the broker.
    Broker(Sent),
    /// Over a connection.
    Link(LinkCall),
    /// Within the process.
    Local(Arc<LocalCall>),
}

impl Way {
    fn queue(&self) -> &Queue {
        match self {
            Self::Broker(sent) => sent.queue(),
            Self::Link(call) => call.queue(),
            Self::Local(call) => call.queue(),
        }
    }

    /// An item of so many bytes was read, and so many items in all.
    fn took(&self, bytes: usize, items: u64) {
        match self {
            Self::Broker(sent) => sent.took(bytes, items),
            Self::Link(call) => call.took(bytes),
            Self::Local(call) => call.took(items),
        }
    }

    /// Nobody waits any more.
    fn cancel(&self) {
        match self {
            Self::Broker(sent) => sent.cancel(),
            Self::Link(call) => call.cancel(),
            Self::Local(call) => call.give_up(),
        }
    }

    /// The end came.
    fn end(&self) {
        if let Self::Link(call) = self {
            call.end();
        }
    }

    /// The call is over.
    fn forget(&self) {
        if let Self::Broker(sent) = self {
            sent.forget();
        }
    }
}

impl Incoming {
    pub(crate) fn new(platform: &Arc<Platform>, way: Way) -> Self {
        platform.calls.fetch_add(1, Ordering::Relaxed);
        let brought = VecDeque::new();
        Self { platform: platform.clone(), way, brought, received: 0, bytes: 0, over: false, count: None }
    }

    /// The same, counted for an endpoint on a plane.
    pub(crate) fn counted(mut self, tally: &Arc<Tally>, plane: Plane) -> Self {
        tally.flow(plane).begin();
        self.count = Some((tally.clone(), plane));
        self
    }

    /// An alarm of the runtime's, not set yet.
    pub(crate) fn alarm(&self) -> Alarm {
        self.platform.alarms.alarm()
    }

    /// Does the way by itself wake whoever reads between these times?
    pub(crate) fn wakes(&self, now: Instant, at: Instant) -> bool {
        matches!(&self.way, Way::Link(call) if now < call.wakes_at() && call.wakes_at() <= at)
    }

    /// How many items were taken.
    pub(crate) fn received(&self) -> u64 {
        self.received
    }

    /// Was everything taken, so that nothing follows?
    pub(crate) fn is_over(&self) -> bool {
        self.over
    }

    /// Has the announced end arrived, whether it was read or not?
    pub(crate) fn is_complete(&self) -> bool {
        self.over || self.way.queue().is_complete()
    }

    /// The next item; `None` at the announced end. After `None` or an error there is nothing more.
    pub(crate) fn poll_item(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes>>> {
        if self.over {
            return Poll::Ready(None);
        }
        let arrival = match self.brought.pop_front() {
            Some(arrival) => arrival,
            None => ready!(self.way.queue().poll(&mut self.brought, cx)),
        };
        let item = match arrival {
            Arrival::Item { payload, last } => {
                self.received += 1;
                self.bytes += payload.len() as u64;
                if last {
                    self.end();
                } else {
                    self.way.took(payload.len(), self.received);
                }
                return Poll::Ready(Some(Ok(payload)));
            }
            Arrival::End { .. } => None,
            Arrival::Failed(error) => {
                let error = self.failed(error);
                self.reset(error.code());
                Some(Err(error))
            }
        };
        self.end();
        Poll::Ready(item)
    }

    fn failed(&self, error: Error) -> Error {
        match error {
            Error::StreamInterrupted { cause, .. } => Error::stream_interrupted(self.received, cause),
            error if self.received > 0 => error.raise(Effect::Applied),
            error => error,
        }
    }

    /// Ends the call before its end, and tells the worker. Again, and after the end, is no-op.
    pub(crate) fn give_up(&mut self) {
        if !self.over {
            self.reset("cancelled");
            self.finish();
            self.way.cancel();
        }
    }

    /// The request was never sent: nobody has to be told.
    pub(crate) fn refused(mut self, error: Error) -> Error {
        self.finish();
        error
    }

    fn end(&mut self) {
        self.way.end();
        self.finish();
    }

    fn reset(&self, code: &'static str) {
        if let Some((tally, plane)) = &self.count {
            tally.flow(*plane).reset(code);
        }
    }

    fn finish(&mut self) {
        self.over = true;
        if let Some((tally, plane)) = &self.count {
            let flow = tally.flow(*plane);
            flow.items(self.received, self.bytes);
            flow.end();
        }
        if !self.platform.mutated(Mutation::CallIsLeaked) {
            self.platform.calls.fetch_sub(1, Ordering::Relaxed);
            self.way.forget();
        }
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        self.give_up();
    }
}
