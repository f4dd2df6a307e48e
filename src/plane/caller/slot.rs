//! One call under way: what it brought, and when to ask after it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use slipring_core::{Effect, Error, Message, Subject};
use tokio::time::Instant;

use super::lock;
use crate::plane::wire::{Answer, AnswerKind, Items, Ticket};
use crate::platform::Platform;
use crate::registry::{Instance, Watcher};

/// A call whose caller has said nothing for so many `probe_after` says something, so that the worker knows.
const SPEAK_EVERY: u32 = 2;
/// So many unanswered probes end a call whose instance's record is gone.
const UNANSWERED_MAX: u32 = 2;

/// One call under way, as the dispatcher and the sweeper see it.
pub(super) struct Slot {
    pub(super) ticket: Ticket,
    pub(super) instance: Arc<Instance>,
    pub(super) watcher: Arc<Watcher>,
    queue: Mutex<Queue>,
    /// Items allowed so far, in all.
    credit: AtomicU64,
}

struct Queue {
    events: VecDeque<Event>,
    /// The last of `events` is an end, whether it was read or not: there is nothing left to ask.
    ended: bool,
    waker: Option<Waker>,
    heard: Instant,
    spoken: Instant,
    /// Probes sent in all, and those since anything was heard.
    probes: u32,
    unanswered: u32,
}

/// What a call brought.
#[derive(Debug)]
pub(super) enum Event {
    /// An item: its number, its bytes, and whether it is the last.
    Item { number: u64, payload: Bytes, last: bool },
    /// The announced end, with the number of items.
    End(u64),
    /// The end, with an error.
    Failed(Error),
}

impl Slot {
    /// A call that was just made.
    pub(super) fn new(now: Instant, ticket: Ticket, instance: Arc<Instance>, watcher: Arc<Watcher>) -> Self {
        let queue = Queue {
            events: VecDeque::new(),
            ended: false,
            waker: None,
            heard: now,
            spoken: now,
            probes: 0,
            unanswered: 0,
        };
        let credit = AtomicU64::new(ticket.credit);
        Self { ticket, instance, watcher, queue: Mutex::new(queue), credit }
    }

    /// An answer came.
    pub(super) fn handle(&self, now: Instant, message: Message) {
        if message.no_responders {
            return self.handle_no_responders(message.subject.as_str());
        }
        {
            let mut queue = self.queue();
            queue.heard = now;
            queue.unanswered = 0;
        }
        let answer = match Answer::read(&message.payload) {
            Ok(answer) => answer,
            Err(error) => return self.push(Event::Failed(error.raise(Effect::Unknown))),
        };
        self.instance.standing().report(now, answer.load);
        match answer.kind {
            AnswerKind::Alive(true) => {}
            AnswerKind::Alive(false) => {
                self.interrupt("the instance does not know this call (it restarted, or an answer was lost)");
            }
            AnswerKind::Items(items) => self.push_items(items),
            AnswerKind::End(count) => self.push(Event::End(count)),
            AnswerKind::Failed(error) => self.push(Event::Failed(error)),
        }
    }

    fn push_items(&self, items: Items<'_>) {
        let through = items.through();
        if through > self.credit() {
            return self.interrupt(&format!("the instance sent item {through}, more than it was allowed"));
        }
        let (first, is_last) = (items.first, items.last);
        let events = items.into_bodies().zip(first..).map(|(payload, number)| Event::Item {
            number,
            payload,
            last: is_last && number == through,
        });
        self.extend(events);
    }

    /// Nobody listens at the instance's subject. Before the first probe that is the answer to the request
    /// itself, which nobody got; later it means that the instance went away.
    fn handle_no_responders(&self, subject: &str) {
        let request_was_delivered = self.queue().probes > 0;
        if request_was_delivered {
            return self.interrupt("the instance is gone: nobody listens at its subject");
        }
        let subject = self.instance.subject().map_or(subject, Subject::as_str);
        self.push(Event::Failed(Error::no_responders(subject)));
    }

    /// The call is lost, as far as anybody can tell.
    pub(super) fn interrupt(&self, cause: &str) {
        // How many items were delivered is said by whoever delivers them.
        self.push(Event::Failed(Error::stream_interrupted(0, cause)));
    }

    fn push(&self, event: Event) {
        self.extend(std::iter::once(event));
    }

    /// Queues what came; nothing comes after an end.
    fn extend(&self, events: impl Iterator<Item = Event>) {
        let mut queue = self.queue();
        for event in events {
            if queue.ended {
                break;
            }
            queue.ended = !matches!(event, Event::Item { last: false, .. });
            queue.events.push_back(event);
        }
        let waker = queue.waker.take();
        drop(queue);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// What comes next.
    pub(super) fn poll(&self, cx: &mut Context<'_>) -> Poll<Event> {
        let mut queue = self.queue();
        match queue.events.pop_front() {
            Some(event) => Poll::Ready(event),
            None => {
                queue.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    /// Has the announced end arrived, whether all before it was read or not?
    pub(super) fn is_complete(&self) -> bool {
        let is_end = |event: &Event| matches!(event, Event::End(_) | Event::Item { last: true, .. });
        self.queue().events.back().is_some_and(is_end)
    }

    /// Items allowed so far, in all.
    pub(super) fn credit(&self) -> u64 {
        self.credit.load(Ordering::Acquire)
    }

    /// Allows so many items in all. The worker is told with a probe, which is counted here.
    pub(super) fn allow(&self, now: Instant, items: u64) {
        self.credit.store(items, Ordering::Release);
        let mut queue = self.queue();
        queue.spoken = now;
        // From now on, that nobody listens is no answer to the request.
        queue.probes += 1;
    }

    /// Is it time to ask after it?
    pub(super) fn look(&self, now: Instant, platform: &Platform) -> Look {
        let gone = self.watcher.view().lock().get(self.instance.id()).is_none();
        let settings = &platform.settings;
        let patience = if gone { settings.probe_after_gone } else { settings.probe_after };
        let mut queue = self.queue();
        if queue.ended {
            return Look::Well;
        }
        if gone && queue.unanswered >= UNANSWERED_MAX && now >= queue.spoken + patience {
            return Look::Dead;
        }
        let silent = now >= queue.heard.max(queue.spoken) + patience;
        let mute = now >= queue.spoken + settings.probe_after * SPEAK_EVERY;
        if !silent && !mute {
            return Look::Well;
        }
        queue.ask(now);
        Look::Ask
    }

    /// Notes that it is asked after now; false if there is nothing left to ask.
    pub(super) fn ask(&self, now: Instant) -> bool {
        let mut queue = self.queue();
        if !queue.ended {
            queue.ask(now);
        }
        !queue.ended
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        lock(&self.queue)
    }
}

impl Queue {
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
