//! One call under way: what it brought, and when to ask after it.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use slipring_core::{Effect, Error, Message, Subject};
use tokio::time::Instant;

use super::lock;
use crate::plane::link::{Arrival, Inflow, Sink};
use crate::plane::queue::Queue;
use crate::plane::wire::{Answer, AnswerKind, Items, Ticket};
use crate::platform::Platform;
use crate::registry::{Instance, Watcher};

/// A call whose caller has said nothing for so many `probe_after` says something, so that the worker knows.
const SPEAK_EVERY: u32 = 2;
/// So many unanswered probes end a call whose instance's record is gone.
const UNANSWERED_MAX: u32 = 2;

/// One call under way, as the dispatcher and the sweeper see it.
pub(crate) struct Slot {
    pub(super) ticket: Ticket,
    pub(super) instance: Arc<Instance>,
    pub(super) watcher: Arc<Watcher>,
    queue: Queue,
    signs: Mutex<Signs>,
    /// Items allowed so far, in all.
    credit: AtomicU64,
    /// The connection that brings the answers, once there is one.
    home: OnceLock<Inflow>,
    /// Nobody reads any more.
    over: AtomicBool,
}

/// When something was heard and said.
struct Signs {
    heard: Instant,
    spoken: Instant,
    /// Probes sent in all, and those since anything was heard.
    probes: u32,
    unanswered: u32,
}

impl Slot {
    /// A call that was just made.
    pub(super) fn new(now: Instant, ticket: Ticket, instance: Arc<Instance>, watcher: Arc<Watcher>) -> Self {
        let signs = Signs { heard: now, spoken: now, probes: 0, unanswered: 0 };
        let credit = AtomicU64::new(ticket.credit);
        Self {
            ticket,
            instance,
            watcher,
            queue: Queue::default(),
            signs: Mutex::new(signs),
            credit,
            home: OnceLock::new(),
            over: AtomicBool::new(false),
        }
    }

    pub(crate) fn queue(&self) -> &Queue {
        &self.queue
    }

    /// From now on a connection brings the answers, and it alone says what becomes of the call.
    pub(crate) fn adopt(&self, inflow: Inflow) {
        // Only once: the token is gone with the first that knew it.
        let _ = self.home.set(inflow);
    }

    /// The connection that brings the answers, if there is one.
    pub(super) fn home(&self) -> Option<&Inflow> {
        self.home.get()
    }

    /// The call is over: a connection that comes now comes too late.
    pub(super) fn forget(&self) {
        self.over.store(true, Ordering::Release);
    }

    /// An answer came over the broker.
    pub(super) fn handle(&self, now: Instant, message: Message) {
        if self.home().is_some() {
            return;
        }
        if message.no_responders {
            return self.handle_no_responders(message.subject.as_str());
        }
        {
            let mut signs = self.signs();
            signs.heard = now;
            signs.unanswered = 0;
        }
        let answer = match Answer::read(&message.payload) {
            Ok(answer) => answer,
            Err(error) => return self.fail(error.raise(Effect::Unknown)),
        };
        self.instance.standing().report(now, answer.load);
        match answer.kind {
            AnswerKind::Alive(true) => {}
            AnswerKind::Alive(false) => {
                self.interrupt("the instance does not know this call (it restarted, or an answer was lost)");
            }
            AnswerKind::Items(items) => self.push_items(items),
            AnswerKind::End(count) => self.queue.end(count),
            AnswerKind::Failed(error) => self.fail(error),
        }
    }

    fn push_items(&self, items: Items<'_>) {
        let through = items.through();
        if through > self.credit() {
            return self.interrupt(&format!("the instance sent item {through}, more than it was allowed"));
        }
        let (first, last) = (items.first, items.last);
        self.queue.items(first, items.into_bodies(), last);
    }

    /// Nobody listens at the instance's subject. Before the first probe that is the answer to the request
    /// itself, which nobody got; later it means that the instance went away.
    fn handle_no_responders(&self, subject: &str) {
        let request_was_delivered = self.signs().probes > 0;
        if request_was_delivered {
            return self.interrupt("the instance is gone: nobody listens at its subject");
        }
        let subject = self.instance.subject().map_or(subject, Subject::as_str);
        self.fail(Error::no_responders(subject));
    }

    /// The call is lost, as far as anybody can tell.
    pub(super) fn interrupt(&self, cause: &str) {
        self.fail(Error::stream_interrupted(0, cause));
    }

    fn fail(&self, error: Error) {
        self.queue.fail(error);
        // If a connection came meanwhile, it has nobody to bring the answers to.
        if let Some(home) = self.home() {
            home.cancel();
        }
    }

    /// Items allowed so far, in all.
    pub(crate) fn credit(&self) -> u64 {
        self.credit.load(Ordering::Acquire)
    }

    /// Allows so many items in all. The worker is told with a probe, which is counted here.
    pub(super) fn allow(&self, now: Instant, items: u64) {
        self.credit.store(items, Ordering::Release);
        let mut signs = self.signs();
        signs.spoken = now;
        // From now on, that nobody listens is no answer to the request.
        signs.probes += 1;
    }

    /// Is it time to ask after it?
    pub(super) fn look(&self, now: Instant, platform: &Platform) -> Look {
        let gone = self.watcher.view().lock().get(self.instance.id()).is_none();
        let settings = &platform.settings;
        let patience = if gone { settings.probe_after_gone } else { settings.probe_after };
        if self.queue.is_ended() || self.home().is_some() {
            return Look::Well;
        }
        let mut signs = self.signs();
        if gone && signs.unanswered >= UNANSWERED_MAX && now >= signs.spoken + patience {
            return Look::Dead;
        }
        let silent = now >= signs.heard.max(signs.spoken) + patience;
        let mute = now >= signs.spoken + settings.probe_after * SPEAK_EVERY;
        if !silent && !mute {
            return Look::Well;
        }
        signs.ask(now);
        Look::Ask
    }

    /// Notes that it is asked after now; false if there is nothing left to ask.
    pub(super) fn ask(&self, now: Instant) -> bool {
        let waits = !self.queue.is_ended() && self.home().is_none();
        if waits {
            self.signs().ask(now);
        }
        waits
    }

    fn signs(&self) -> MutexGuard<'_, Signs> {
        lock(&self.signs)
    }
}

impl Sink for Slot {
    fn deliver(&self, arrivals: &mut Vec<Arrival>, load: Option<u64>) {
        if let Some(load) = load {
            self.instance.standing().report(Instant::now(), load);
        }
        self.queue.deliver(arrivals);
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire) || self.queue.is_ended()
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot").field("call", &self.ticket.call).finish_non_exhaustive()
    }
}

impl Signs {
    fn ask(&mut self, now: Instant) {
        self.spoken = now;
        self.probes += 1;
        self.unanswered += 1;
    }
}

/// What a look at a call finds.
pub(super) enum Look {
    Well,
    Ask,
    Dead,
}
