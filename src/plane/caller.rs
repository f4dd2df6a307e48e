//! The caller's side of the broker plane: one private inbox per runtime, many calls over it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::task::{Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use indexmap::IndexMap;
use slipring_core::{
    Effect, Error, Headers, Message, Pattern, Result, Subject, Subscriber, Subscription, Task,
};
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use super::wire::{self, Answer, Control};
use crate::platform::Platform;
use crate::registry::{Instance, Watcher};

/// How often the calls under way are looked at.
const SWEEP_INTERVAL: Duration = Duration::from_millis(250);
/// After so many sweeps without a call the sweeper sleeps until there is one.
const IDLE_SWEEPS_MAX: u32 = 8;
/// A call whose caller has said nothing for so many `probe_after` says something, so that the worker knows.
const SPEAK_EVERY: u32 = 2;
/// So many unanswered probes end a call whose instance's record is gone.
const UNANSWERED_MAX: u32 = 2;
/// How often an instance that was set aside is asked again.
const ASIDE_PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// The calls of one runtime.
pub(crate) struct Caller {
    shared: Arc<Shared>,
    _tasks: [Task; 2],
}

struct Shared {
    platform: Arc<Platform>,
    inbox: Subject,
    /// Can an answer's subject name its call? Otherwise only its headers do.
    inbox_per_call: bool,
    table: Mutex<IndexMap<u64, Arc<Slot>>>,
    /// Instances that could not be reached, to be asked again.
    aside: Mutex<IndexMap<u64, Aside>>,
    next: AtomicU64,
    /// Control messages to send, from places that cannot wait.
    outbox: mpsc::UnboundedSender<Message>,
    sweeper_sleeps: AtomicBool,
    wake: Notify,
}

struct Aside {
    instance: Arc<Instance>,
    /// Weak: a watch ends with its last client, whoever is set aside.
    watcher: Weak<Watcher>,
    asked: Instant,
}

/// One call under way, as the dispatcher and the sweeper see it.
struct Slot {
    number: u64,
    instance: Arc<Instance>,
    watcher: Arc<Watcher>,
    incoming: Mutex<Queue>,
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
pub(crate) enum Event {
    /// An item: its number, its bytes, and whether it is the last.
    Item { number: u64, payload: Bytes, last: bool },
    /// The announced end, with the number of items.
    End(u64),
    /// The end, with an error.
    Failed(Error),
}

impl Caller {
    /// Opens the inbox.
    pub(crate) async fn start(platform: Arc<Platform>) -> Result<Self> {
        let token = platform.environment.random("inbox");
        let inbox = platform.deployment.inbox(token);
        let inbox_per_call = platform.messaging_can.wildcards;
        let pattern =
            if inbox_per_call { Pattern::new(format!("{inbox}.*"))? } else { Pattern::from(&inbox) };
        let subscriber = platform.messaging.subscribe(Subscription::new(pattern)).await?;
        let (outbox, controls) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            platform: platform.clone(),
            inbox,
            inbox_per_call,
            table: Mutex::default(),
            aside: Mutex::default(),
            next: AtomicU64::new(1),
            outbox,
            sweeper_sleeps: AtomicBool::new(false),
            wake: Notify::new(),
        });
        let dispatcher = platform.spawn("call dispatcher", dispatch(shared.clone(), subscriber));
        let sweeper = platform.spawn("call sweeper", sweep(shared.clone(), controls));
        Ok(Self { shared, _tasks: [dispatcher, sweeper] })
    }

    /// A number for a call; also for its facts.
    pub(crate) fn number(&self) -> u64 {
        self.shared.next.fetch_add(1, Ordering::Relaxed)
    }

    /// How many calls are under way.
    pub(crate) fn in_flight(&self) -> usize {
        self.shared.table().len()
    }

    /// Sends a request. Dropping what it returns gives the call up and tells the worker.
    ///
    /// # Errors
    /// Those of publishing.
    pub(crate) async fn open(
        &self,
        number: u64,
        instance: Arc<Instance>,
        watcher: Arc<Watcher>,
        mut headers: Headers,
        payload: Bytes,
    ) -> Result<Incoming> {
        let shared = &self.shared;
        let subject = routable(&instance)?.clone();
        let window = shared.platform.settings.stream_items_max;
        headers.append_number(wire::CALL, number)?;
        headers.append_number(wire::CREDIT, window)?;
        let mut request = Message::new(subject, payload).with_reply(shared.reply(number)?);
        request.headers = headers;
        let slot = Slot::new(number, instance, watcher, window);
        let incoming =
            Incoming { shared: shared.clone(), slot: Arc::new(slot), window, received: 0, over: false };
        shared.table().insert(number, incoming.slot.clone());
        shared.wake_sweeper();
        if let Err(error) = shared.platform.messaging.publish(request).await {
            return Err(incoming.refused(error));
        }
        Ok(incoming)
    }

    /// Notes that an instance could not be reached: it is skipped, and asked again now and then.
    pub(crate) fn set_aside(&self, instance: &Arc<Instance>, watcher: &Arc<Watcher>) {
        self.shared.set_aside(instance, watcher);
    }
}

impl Shared {
    fn table(&self) -> MutexGuard<'_, IndexMap<u64, Arc<Slot>>> {
        lock(&self.table)
    }

    fn aside(&self) -> MutexGuard<'_, IndexMap<u64, Aside>> {
        lock(&self.aside)
    }

    fn set_aside(&self, instance: &Arc<Instance>, watcher: &Arc<Watcher>) {
        let now = Instant::now();
        if instance.is_set_aside() {
            return;
        }
        instance.set_aside(now);
        let aside = Aside { instance: instance.clone(), watcher: Arc::downgrade(watcher), asked: now };
        self.aside().insert(self.next.fetch_add(1, Ordering::Relaxed), aside);
        self.wake_sweeper();
    }

    fn reply(&self, number: u64) -> Result<Subject> {
        if self.inbox_per_call { self.inbox.numbered(number) } else { Ok(self.inbox.clone()) }
    }

    fn wake_sweeper(&self) {
        if self.sweeper_sleeps.swap(false, Ordering::AcqRel) {
            self.wake.notify_one();
        }
    }

    /// Queues a control message; the sweeper sends it.
    fn control(&self, control: Control, instance: &Instance, number: u64, credit: u64) {
        let Ok(subject) = routable(instance) else { return };
        let mut headers = wire::headers([(wire::CALL, number), (wire::CREDIT, credit)]);
        headers.append(wire::CONTROL, control.name()).expect("our own names and words are legal");
        let Ok(reply) = self.reply(number) else { return };
        let message = Message::new(subject.clone(), Bytes::new()).with_reply(reply).with_headers(headers);
        // The receiver lives as long as the sweeper; after that there is nobody to tell.
        let _ = self.outbox.send(message);
    }

    fn dispatch(&self, message: Message) {
        let number = match message.headers.first(wire::CALL) {
            Some(text) => text.parse().ok(),
            None => message.subject.tokens().last().and_then(|token| token.parse().ok()),
        };
        // Without a number it is no answer of ours; an unknown number is a late answer.
        let Some(number) = number else { return };
        let slot = self.table().get(&number).cloned();
        match slot {
            Some(slot) => {
                if message.no_responders {
                    self.set_aside(&slot.instance, &slot.watcher);
                }
                slot.handle(Instant::now(), message);
            }
            None => self.dispatch_aside(number, &message),
        }
    }

    /// An instance that was set aside answered.
    fn dispatch_aside(&self, number: u64, message: &Message) {
        if message.no_responders || message.headers.first(wire::ALIVE).is_none() {
            return;
        }
        let answered = self.aside().swap_remove(&number);
        if let Some(aside) = answered {
            aside.instance.standing().reached();
        }
    }

    /// Answers may have been lost: asks after every call. A hole shows in the numbers of the items, and a call
    /// whose end was lost is not known any more.
    fn ask_all(&self, now: Instant) {
        let all: Vec<_> = self.table().values().cloned().collect();
        for slot in all.iter().filter(|slot| slot.ask(now)) {
            self.probe(slot);
        }
    }

    /// No answer will come any more.
    fn close(&self) {
        let all: Vec<_> = self.table().values().cloned().collect();
        for slot in all {
            slot.push(Event::Failed(Error::stream_interrupted(0, "the runtime is closed")));
        }
    }

    fn probe(&self, slot: &Slot) {
        let credit = slot.credit.load(Ordering::Acquire);
        self.control(Control::Probe, &slot.instance, slot.number, credit);
    }

    fn sweep(&self, now: Instant) -> usize {
        let slots: Vec<_> = self.table().values().cloned().collect();
        for slot in &slots {
            match slot.look(now, &self.platform) {
                Look::Well => {}
                Look::Ask => self.probe(slot),
                Look::Dead => {
                    self.set_aside(&slot.instance, &slot.watcher);
                    let cause = "the instance's record is gone and it answers no probe";
                    slot.push(Event::Failed(Error::stream_interrupted(0, cause)));
                }
            }
        }
        slots.len() + self.sweep_aside(now)
    }

    fn sweep_aside(&self, now: Instant) -> usize {
        let mut aside = self.aside();
        // A newer record, or none any more, or nobody to call it: there is nothing left to find out.
        aside.retain(|_, aside| {
            let Some(watcher) = aside.watcher.upgrade() else { return false };
            let current = watcher.view().lock().get(aside.instance.id()).cloned();
            current.is_some_and(|current| current.is_set_aside())
        });
        for (number, aside) in aside.iter_mut() {
            if now.saturating_duration_since(aside.asked) >= ASIDE_PROBE_INTERVAL {
                aside.asked = now;
                self.control(Control::Probe, &aside.instance, *number, 0);
            }
        }
        aside.len()
    }
}

impl Slot {
    fn new(number: u64, instance: Arc<Instance>, watcher: Arc<Watcher>, credit: u64) -> Self {
        let now = Instant::now();
        let queue = Queue {
            events: VecDeque::new(),
            ended: false,
            waker: None,
            heard: now,
            spoken: now,
            probes: 0,
            unanswered: 0,
        };
        Self { number, instance, watcher, incoming: Mutex::new(queue), credit: AtomicU64::new(credit) }
    }

    fn handle(&self, now: Instant, message: Message) {
        if message.no_responders {
            return self.handle_no_responders(message.subject.as_str());
        }
        if let Some(load) = message.headers.first(wire::LOAD).and_then(|load| load.parse().ok()) {
            self.instance.standing().report(now, load);
        }
        let answer = Answer::of(&message);
        {
            let mut queue = self.queue();
            queue.heard = now;
            queue.unanswered = 0;
        }
        match answer {
            Ok(Answer::Alive(true)) => {}
            Ok(Answer::Alive(false)) => self.push(Event::Failed(Error::stream_interrupted(
                0,
                "the instance does not know this call (it restarted, or an answer was lost)",
            ))),
            Ok(Answer::Item { number, .. }) if number > self.credit.load(Ordering::Acquire) => {
                let cause = format!("the instance sent item {number}, more than it was allowed");
                self.push(Event::Failed(Error::stream_interrupted(0, cause)));
            }
            Ok(Answer::Item { number, last }) => {
                self.push(Event::Item { number, payload: message.payload, last });
            }
            Ok(Answer::End(count)) => self.push(Event::End(count)),
            Ok(Answer::Failed(error)) => self.push(Event::Failed(error)),
            Err(error) => self.push(Event::Failed(error.raise(Effect::Unknown))),
        }
    }

    /// Nobody listens at the instance's subject. Before the first probe that is the answer to the request
    /// itself, which nobody got; later it means that the instance went away.
    fn handle_no_responders(&self, subject: &str) {
        let request_was_delivered = self.queue().probes > 0;
        let error = if request_was_delivered {
            Error::stream_interrupted(0, "the instance is gone: nobody listens at its subject")
        } else {
            Error::no_responders(self.instance.subject().map_or(subject, Subject::as_str))
        };
        self.push(Event::Failed(error));
    }

    /// Queues what came; nothing comes after an end.
    fn push(&self, event: Event) {
        let mut queue = self.queue();
        if queue.ended {
            return;
        }
        queue.ended = !matches!(event, Event::Item { last: false, .. });
        queue.events.push_back(event);
        let waker = queue.waker.take();
        drop(queue);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        lock(&self.incoming)
    }

    fn look(&self, now: Instant, platform: &Platform) -> Look {
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
    fn ask(&self, now: Instant) -> bool {
        let mut queue = self.queue();
        if !queue.ended {
            queue.ask(now);
        }
        !queue.ended
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
enum Look {
    Well,
    Ask,
    Dead,
}

/// The answers of one call. Dropping it before the end gives the call up and tells the worker.
pub(crate) struct Incoming {
    shared: Arc<Shared>,
    slot: Arc<Slot>,
    window: u64,
    /// Items taken.
    received: u64,
    over: bool,
}

impl Incoming {
    /// How many items were taken.
    pub(crate) fn received(&self) -> u64 {
        self.received
    }

    /// Has the announced end arrived, whether it was read or not?
    pub(crate) fn is_complete(&self) -> bool {
        let is_end = |event: &Event| matches!(event, Event::End(_) | Event::Item { last: true, .. });
        self.over || self.slot.queue().events.back().is_some_and(is_end)
    }

    /// The next item; `None` at the announced end. After `None` or an error there is nothing more.
    pub(crate) fn poll_item(&mut self, cx: &mut std::task::Context<'_>) -> Poll<Option<Result<Bytes>>> {
        if self.over {
            return Poll::Ready(None);
        }
        let event = {
            let mut queue = self.slot.queue();
            match queue.events.pop_front() {
                Some(event) => event,
                None => {
                    queue.waker = Some(cx.waker().clone());
                    return Poll::Pending;
                }
            }
        };
        let item = self.take(event);
        if !matches!(item, Some(Ok(_))) {
            self.finish();
        }
        Poll::Ready(item)
    }

    fn take(&mut self, event: Event) -> Option<Result<Bytes>> {
        match event {
            Event::Item { number, payload, last } if number == self.received + 1 => {
                self.received = number;
                if last {
                    self.finish();
                } else {
                    self.extend_credit();
                }
                Some(Ok(payload))
            }
            Event::Item { number, .. } => Some(Err(self.interrupted(format!("item {number} came next")))),
            Event::End(count) if count == self.received => None,
            Event::End(count) => Some(Err(self.interrupted(format!("it ended after {count} items")))),
            Event::Failed(Error::StreamInterrupted { cause, .. }) => Some(Err(self.interrupted(cause))),
            Event::Failed(error) if self.received > 0 => Some(Err(error.raise(Effect::Applied))),
            Event::Failed(error) => Some(Err(error)),
        }
    }

    fn interrupted(&self, cause: String) -> Error {
        Error::stream_interrupted(self.received, cause)
    }

    /// Half a window taken: allow as much again.
    fn extend_credit(&self) {
        let allowed = self.received + self.window;
        let step = (self.window / 2).max(1);
        if allowed >= self.slot.credit.load(Ordering::Acquire) + step {
            self.slot.credit.store(allowed, Ordering::Release);
            let mut queue = self.slot.queue();
            queue.spoken = Instant::now();
            // It is a probe as well: that nobody listens is no answer to the request any more.
            queue.probes += 1;
            drop(queue);
            self.shared.probe(&self.slot);
        }
    }

    /// Ends the call before its end, and tells the worker. Again, and after the end, is no-op.
    pub(crate) fn give_up(&mut self) {
        if !self.over {
            self.finish();
            self.shared.control(Control::Cancel, &self.slot.instance, self.slot.number, 0);
        }
    }

    fn finish(&mut self) {
        self.over = true;
        self.shared.table().swap_remove(&self.slot.number);
    }

    /// The request was never sent: nobody has to be told.
    fn refused(mut self, error: Error) -> Error {
        self.finish();
        error
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        self.give_up();
    }
}

async fn dispatch(shared: Arc<Shared>, mut subscriber: Subscriber) {
    loop {
        match subscriber.next().await {
            Some(Ok(message)) => shared.dispatch(message),
            Some(Err(Error::Lagged { missed, .. })) => {
                tracing::warn!(missed, "answers were lost, or may have been");
                shared.ask_all(Instant::now());
            }
            Some(Err(error)) => {
                tracing::warn!(%error, "the inbox broke; it is opened anew");
                subscriber = reopen(&shared, subscriber).await;
                shared.ask_all(Instant::now());
            }
            // Closed with the runtime.
            None => return shared.close(),
        }
    }
}

/// Subscribes to the inbox again, for as long as it takes.
async fn reopen(shared: &Shared, broken: Subscriber) -> Subscriber {
    drop(broken);
    let pattern =
        if shared.inbox_per_call { format!("{}.*", shared.inbox) } else { shared.inbox.to_string() };
    let mut pause = Duration::from_millis(50);
    loop {
        let pattern = Pattern::new(&pattern).expect("it was a pattern when the inbox was opened first");
        match shared.platform.messaging.subscribe(Subscription::new(pattern)).await {
            Ok(subscriber) => return subscriber,
            Err(error) => tracing::debug!(%error, "the inbox cannot be opened yet"),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(1));
    }
}

async fn sweep(shared: Arc<Shared>, mut controls: mpsc::UnboundedReceiver<Message>) {
    let mut idle = 0;
    let mut next = Instant::now() + SWEEP_INTERVAL;
    loop {
        let asleep = shared.sweeper_sleeps.load(Ordering::Acquire);
        tokio::select! {
            biased;
            control = controls.recv() => {
                let Some(control) = control else { return };
                if let Err(error) = shared.platform.messaging.publish(control).await {
                    tracing::debug!(%error, "a control message was not sent");
                }
            }
            () = shared.wake.notified() => {
                idle = 0;
                next = Instant::now() + SWEEP_INTERVAL;
            }
            () = tokio::time::sleep_until(next), if !asleep => {
                let now = Instant::now();
                next = now + SWEEP_INTERVAL;
                idle = if shared.sweep(now) == 0 { idle + 1 } else { 0 };
                if idle >= IDLE_SWEEPS_MAX {
                    shared.sweeper_sleeps.store(true, Ordering::Release);
                    // A call that began meanwhile saw the sweeper awake.
                    if shared.in_use() {
                        shared.sweeper_sleeps.store(false, Ordering::Release);
                    }
                }
            }
        }
    }
}

impl Shared {
    fn in_use(&self) -> bool {
        !self.table().is_empty() || !self.aside().is_empty()
    }
}

fn routable(instance: &Instance) -> Result<&Subject> {
    instance.subject().ok_or_else(|| {
        Error::unsupported(
            format!("reaching instance {:x}", instance.id()),
            "its record names no transport that this version knows",
        )
    })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change under these locks is whole, so a panic elsewhere leaves them usable.
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
