//! The caller's side of the broker plane: one private inbox per runtime, many calls over it.

mod slot;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use indexmap::IndexMap;
use slipring_core::{Error, Headers, Message, Pattern, Result, Subject, Subscriber, Subscription, Task};
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use self::slot::Look;
pub(crate) use self::slot::Slot;
use super::home::Home;
use super::incoming::{Incoming, Way};
use super::queue::Queue;
use super::wire::{self, Answer, AnswerKind, Control, Ticket};
use crate::platform::Platform;
use crate::registry::{Instance, Watcher};

/// How often the calls under way are looked at.
const SWEEP_INTERVAL: Duration = Duration::from_millis(250);
/// After so many sweeps without a call the sweeper sleeps until there is one.
const IDLE_SWEEPS_MAX: u32 = 8;
/// Control messages that wait to be sent. Beyond that they are dropped, which does no harm: probes and credit
/// are repeated, and a worker that is not told of the end of a call notices the silence.
const CONTROLS_MAX: usize = 4096;
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
    /// Can each call have a reply subject of its own? Otherwise its ticket is in the headers.
    inbox_per_call: bool,
    table: Mutex<IndexMap<u64, Arc<Slot>>>,
    /// Instances that could not be reached, to be asked again.
    aside: Mutex<IndexMap<u64, Aside>>,
    next: AtomicU64,
    /// Control messages to send, from places that cannot wait.
    outbox: mpsc::Sender<Message>,
    sweeper_sleeps: AtomicBool,
    wake: Notify,
}

/// A call that is about to be made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call {
    /// Its number.
    pub(crate) number: u64,
    /// The time.
    pub(crate) now: Instant,
    /// What is left of its deadline.
    pub(crate) remaining: Duration,
}

struct Aside {
    instance: Arc<Instance>,
    /// Weak: a watch ends with its last client, whoever is set aside.
    watcher: Weak<Watcher>,
    asked: Instant,
}

impl Caller {
    /// Opens the inbox.
    pub(crate) async fn start(platform: Arc<Platform>) -> Result<Self> {
        let token = platform.environment.random("inbox");
        let inbox = platform.deployment.inbox(token);
        let inbox_per_call = platform.messaging_can.wildcards;
        let pattern =
            if inbox_per_call { Pattern::new(format!("{inbox}.*"))? } else { Pattern::from(&inbox) };
        let subscribing = platform.messaging.subscribe(Subscription::new(pattern));
        let subscriber = platform.within("opening the inbox", subscribing).await?;
        let (outbox, controls) = mpsc::channel(CONTROLS_MAX);
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

    /// Sends a request, with the address that its answers may come to over a connection.
    ///
    /// # Errors
    /// Those of publishing.
    pub(crate) async fn open(
        &self,
        call: Call,
        instance: Arc<Instance>,
        watcher: Arc<Watcher>,
        mut headers: Headers,
        payload: Bytes,
        home: Option<&str>,
    ) -> Result<Incoming> {
        let shared = &self.shared;
        let subject = routable(&instance)?.clone();
        let Call { number, now, remaining } = call;
        let credit = shared.platform.settings.stream_items_max;
        let ticket = Ticket { call: number, deadline: remaining, credit };
        let reply = shared.reply(&ticket, &mut headers)?;
        let token = home.map(|address| Home::invite(&shared.platform, address, &mut headers)).transpose()?;
        let request = Message::new(subject, payload).with_reply(reply).with_headers(headers);
        let slot = Arc::new(Slot::new(now, ticket, instance, watcher));
        let sent = Sent { shared: shared.clone(), slot: slot.clone() };
        // Dropped before it is sent, or refused, it is given up like any other.
        let incoming = Incoming::new(&shared.platform, Way::Broker(sent));
        if let Some(token) = token {
            shared.platform.homes.wait(number, token, &slot);
        }
        shared.table().insert(number, slot);
        shared.wake_sweeper();
        match shared.platform.publish(request).await {
            Ok(()) => Ok(incoming),
            Err(error) => Err(incoming.refused(error)),
        }
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

    /// Where the answers to a call go: its ticket is in the subject, or else in the headers.
    fn reply(&self, ticket: &Ticket, headers: &mut Headers) -> Result<Subject> {
        if self.inbox_per_call {
            return self.inbox.with_token(&ticket.token());
        }
        headers.append(wire::CALL, ticket.token())?;
        Ok(self.inbox.clone())
    }

    fn wake_sweeper(&self) {
        if self.sweeper_sleeps.swap(false, Ordering::AcqRel) {
            self.wake.notify_one();
        }
    }

    /// Queues a control message; the sweeper sends it. The ticket is that of the request.
    fn control(&self, control: Control, instance: &Instance, ticket: &Ticket, credit: u64) {
        let Ok(subject) = routable(instance) else { return };
        let mut headers = wire::headers([(wire::CREDIT, credit)]);
        headers.append(wire::CONTROL, control.name()).expect("our own names and words are legal");
        let Ok(reply) = self.reply(ticket, &mut headers) else { return };
        let message = Message::new(subject.clone(), Bytes::new()).with_reply(reply).with_headers(headers);
        // When the outbox is full it is lost, like any message may be: credit is repeated with the next probe,
        // and a worker does not go on for a caller that says nothing.
        let _ = self.outbox.try_send(message);
    }

    fn dispatch(&self, message: Message) {
        let number = if message.no_responders {
            Ticket::at(&message.subject).map(|ticket| ticket.call)
        } else {
            wire::call_of(&message.payload)
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
        let answer = Answer::read(&message.payload);
        if message.no_responders || !answer.is_ok_and(|answer| matches!(answer.kind, AnswerKind::Alive(_))) {
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
            slot.interrupt("the runtime is closed");
        }
    }

    fn probe(&self, slot: &Slot) {
        self.control(Control::Probe, &slot.instance, &slot.ticket, slot.credit());
    }

    fn sweep(&self, now: Instant) -> usize {
        let slots: Vec<_> = self.table().values().cloned().collect();
        for slot in &slots {
            match slot.look(now, &self.platform) {
                Look::Well => {}
                Look::Ask => self.probe(slot),
                Look::Dead => {
                    self.set_aside(&slot.instance, &slot.watcher);
                    slot.interrupt("the instance's record is gone and it answers no probe");
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
                let ticket = Ticket { call: *number, deadline: Duration::ZERO, credit: 0 };
                self.control(Control::Probe, &aside.instance, &ticket, 0);
            }
        }
        aside.len()
    }
}

/// A call that was sent: what its caller says about it while it is answered.
pub(crate) struct Sent {
    shared: Arc<Shared>,
    slot: Arc<Slot>,
}

impl Sent {
    pub(crate) fn queue(&self) -> &Queue {
        self.slot.queue()
    }

    /// An item of so many bytes was taken, and so many items in all. After half a window: allow as much again.
    pub(crate) fn took(&self, bytes: usize, received: u64) {
        if let Some(home) = self.slot.home() {
            return home.consumed(bytes, 1);
        }
        let window = self.shared.platform.settings.stream_items_max;
        let allowed = received + window;
        let step = (window / 2).max(1);
        if allowed >= self.slot.credit() + step {
            self.slot.allow(Instant::now(), allowed);
            self.shared.probe(&self.slot);
        }
    }

    /// Nobody waits any more: the worker is told.
    pub(crate) fn cancel(&self) {
        if let Some(home) = self.slot.home() {
            return home.cancel();
        }
        self.shared.control(Control::Cancel, &self.slot.instance, &self.slot.ticket, 0);
    }

    /// It is over.
    pub(crate) fn forget(&self) {
        self.slot.forget();
        self.shared.table().swap_remove(&self.slot.ticket.call);
        self.shared.platform.homes.forget(self.slot.ticket.call);
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
        let subscribing = shared.platform.messaging.subscribe(Subscription::new(pattern));
        match shared.platform.within("opening the inbox", subscribing).await {
            Ok(subscriber) => return subscriber,
            Err(error) => tracing::debug!(%error, "the inbox cannot be opened yet"),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(1));
    }
}

async fn sweep(shared: Arc<Shared>, mut controls: mpsc::Receiver<Message>) {
    let mut idle = 0;
    let mut next = Instant::now() + SWEEP_INTERVAL;
    loop {
        let asleep = shared.sweeper_sleeps.load(Ordering::Acquire);
        tokio::select! {
            biased;
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
            // Last: were there always one to send, no call would ever be looked at.
            control = controls.recv() => {
                let Some(control) = control else { return };
                let telling = shared.platform.publish(control);
                if let Err(error) = shared.platform.within("telling about a call", telling).await {
                    tracing::debug!(%error, "a control message was not sent");
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
