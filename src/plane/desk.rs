//! What arrives over the connections of a runtime, and where it belongs.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use futures_util::FutureExt;
use slipring_core::Error;

use super::caller::Slot;
use super::link::{Host, Inbound, Inflow, Sink};
use super::local::LocalPlane;
use super::worker::{self, Answers, LinkAnswers};
use crate::endpoint::Metadata;

/// Hands what arrives to the workers of a runtime, and to those of its calls that wait to be answered over a
/// connection that is dialled to it.
#[derive(Debug)]
pub(crate) struct Desk {
    instance: u64,
    workers: LocalPlane,
    homes: Arc<Homes>,
}

/// The calls that wait for a connection of the worker's.
#[derive(Debug, Default)]
pub(crate) struct Homes {
    waiting: Mutex<BTreeMap<u64, (u64, Weak<Slot>)>>,
}

impl Desk {
    /// That of a runtime whose endpoints are among these.
    pub(crate) fn new(instance: u64, workers: LocalPlane, homes: Arc<Homes>) -> Self {
        Self { instance, workers, homes }
    }
}

impl Host for Desk {
    fn handle_request(&self, request: Inbound) {
        let Inbound { target, deadline, headers, payload, answers } = request;
        let Some(worker) = self.workers.worker(self.instance, &target) else {
            // Nobody serves it (any more): as on the broker.
            return answers.fail(&Error::no_responders(&*target), 0);
        };
        let answers = Answers::Link(LinkAnswers::new(answers, worker.stats().clone(), None));
        let metadata = Metadata::read(&headers);
        let request = worker::Inbound { metadata, payload, deadline: Some(deadline), answers };
        if let Err(refused) = worker.take(request, true) {
            refused.tell().now_or_never().expect("on a connection nothing is waited for");
        }
    }

    fn adopt(&self, call: u64, token: u64, inflow: Inflow) -> Option<Arc<dyn Sink>> {
        let slot = self.homes.take(call, token)?;
        slot.adopt(inflow);
        Some(slot)
    }
}

impl Homes {
    /// A call waits for whoever knows its token.
    pub(crate) fn wait(&self, call: u64, token: u64, slot: &Arc<Slot>) {
        self.lock().insert(call, (token, Arc::downgrade(slot)));
    }

    /// A call waits no longer.
    pub(crate) fn forget(&self, call: u64) {
        self.lock().remove(&call);
    }

    fn take(&self, call: u64, token: u64) -> Option<Arc<Slot>> {
        let mut waiting = self.lock();
        waiting.get(&call).filter(|(expected, _)| *expected == token)?;
        waiting.remove(&call)?.1.upgrade()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, (u64, Weak<Slot>)>> {
        // Single inserts and removals: whole whatever panics elsewhere.
        self.waiting.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}
