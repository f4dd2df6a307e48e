//! Calls over a connection.

use std::sync::Arc;

use bytes::Bytes;
use slipring_core::{Headers, Result};
use tokio::time::Instant;

use super::caller::Call;
use super::link::{Arrival, Inflow, Link, Outbound, Sink};
use super::queue::Queue;
use crate::endpoint::Metadata;
use crate::registry::Instance;

/// A call over a connection, as its caller sees it.
pub(crate) struct LinkCall {
    answers: Arc<LinkAnswered>,
    inflow: Inflow,
    wakes_at: Instant,
}

/// What a connection brings for one call.
#[derive(Debug)]
struct LinkAnswered {
    queue: Queue,
    instance: Arc<Instance>,
}

impl LinkCall {
    /// Sends a request. Whoever waits for its answers then is woken at this time.
    ///
    /// # Errors
    /// Those of [`Link::open`], with effect none.
    pub(crate) fn open(
        link: &Link,
        call: &Call,
        instance: &Arc<Instance>,
        metadata: &Metadata,
        payload: &Bytes,
        wakes_at: Instant,
    ) -> Result<Self> {
        let mut headers = Headers::new();
        metadata.write(&mut headers)?;
        let answers = Arc::new(LinkAnswered { queue: Queue::default(), instance: instance.clone() });
        let (target, deadline) = (instance.target(), call.remaining);
        let request = Outbound { target, deadline, headers: &headers, payload, wake_at: Some(wakes_at) };
        let inflow = link.open(request, answers.clone())?;
        Ok(Self { answers, inflow, wakes_at })
    }

    pub(crate) fn queue(&self) -> &Queue {
        &self.answers.queue
    }

    /// An item of so many bytes was read.
    pub(crate) fn took(&self, bytes: usize) {
        self.inflow.consumed(bytes, 1);
    }

    /// When whoever waits for answers is woken.
    pub(crate) fn wakes_at(&self) -> Instant {
        self.wakes_at
    }

    /// The end came.
    pub(crate) fn end(&self) {
        self.inflow.end();
    }

    /// Nobody waits any more.
    pub(crate) fn cancel(&self) {
        self.inflow.cancel();
    }
}

impl Sink for LinkAnswered {
    fn deliver(&self, arrivals: &mut Vec<Arrival>, load: Option<u64>) {
        if let Some(load) = load {
            self.instance.standing().report(Instant::now(), load);
        }
        self.queue.deliver(arrivals);
    }

    fn wake(&self) {
        self.queue.wake();
    }
}
