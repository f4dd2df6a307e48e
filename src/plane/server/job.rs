use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use slipring_core::Subject;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Jobs, lock};
use crate::plane::wire::Ticket;

/// The caller's number for it, and where its answers go. In this order, in which few comparisons are of texts.
pub(super) type JobId = (u64, Subject);

/// A request that came over the broker: what its caller says about it while it is worked on.
pub(crate) struct Job {
    jobs: Jobs,
    id: Option<JobId>,
    listed: AtomicBool,
    cancel: CancellationToken,
    began: Instant,
    /// When the caller was heard last, in milliseconds after `began`.
    heard_ms: AtomicU64,
    /// How many items the caller takes in all.
    credit: AtomicU64,
    more_credit: Notify,
}

impl Job {
    /// A request with this ticket, or a plain one without.
    pub(super) fn new(jobs: &Jobs, ticket: Option<Ticket>, reply: &Subject) -> Arc<Self> {
        Arc::new(Self {
            jobs: jobs.clone(),
            id: ticket.map(|ticket| (ticket.call, reply.clone())),
            listed: AtomicBool::new(false),
            cancel: CancellationToken::new(),
            began: Instant::now(),
            heard_ms: AtomicU64::new(0),
            credit: AtomicU64::new(ticket.map_or(u64::MAX, |ticket| ticket.credit)),
            more_credit: Notify::new(),
        })
    }

    /// From now on its caller can ask after it.
    pub(crate) fn list(self: &Arc<Self>) {
        if let Some(id) = &self.id {
            self.listed.store(true, Ordering::Release);
            lock(&self.jobs).insert(id.clone(), self.clone());
        }
    }

    /// It is over.
    pub(super) fn unlist(&self) {
        if let Some(id) = &self.id
            && self.listed.load(Ordering::Acquire)
        {
            lock(&self.jobs).remove(id);
        }
    }

    pub(super) fn cancel(&self) {
        self.cancel.cancel();
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancel.is_cancelled()
    }

    /// The caller said something, perhaps how many items it takes in all.
    pub(super) fn heard(&self, credit: Option<u64>) {
        let elapsed = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.heard_ms.store(elapsed, Ordering::Release);
        if let Some(credit) = credit {
            self.credit.fetch_max(credit, Ordering::AcqRel);
            self.more_credit.notify_one();
        }
    }

    pub(super) fn has_credit_for(&self, item: u64) -> bool {
        self.credit.load(Ordering::Acquire) >= item
    }

    pub(super) async fn credit_for(&self, item: u64) {
        while !self.has_credit_for(item) {
            self.more_credit.notified().await;
        }
    }

    /// Resolves when its caller cancelled it, or has been silent for too long, and says what was given up. A plain
    /// client says nothing while it waits.
    pub(crate) async fn gone(&self, name: &str, silence_max: Duration) -> String {
        if self.id.is_none() {
            self.cancel.cancelled().await;
            return name.to_owned();
        }
        loop {
            let silent = self.heard_at() + silence_max;
            tokio::select! {
                biased;
                () = self.cancel.cancelled() => return name.to_owned(),
                () = tokio::time::sleep_until(silent) => {}
            }
            if Instant::now() >= self.heard_at() + silence_max {
                return "the request (its caller fell silent)".to_owned();
            }
        }
    }

    fn heard_at(&self) -> Instant {
        self.began + Duration::from_millis(self.heard_ms.load(Ordering::Acquire))
    }
}
