//! Generated operations, done to the bus and to the model in step, and what was seen.

use std::task::Poll;

use proptest::collection::vec;
use proptest::prelude::*;
use slipring_core::{Error, Message, Pattern, QueueGroup, Result, Subject, Subscription};
use slipring_memory::{Bus, ConnectionId, SharedBus, SubscriptionId};

use crate::model::{Item, Model, Subscribed, matches};

const CONNECTIONS: usize = 3;

#[derive(Debug, Clone)]
pub(crate) enum Op {
    Subscribe { connection: usize, pattern: String, queue: Option<String>, messages_max: usize },
    Publish { connection: usize, to: String, reply: Option<String>, entropy: u64 },
    Read { subscription: usize, items: usize },
    Stop { subscription: usize },
    Remove { subscription: usize },
    Close { connection: usize },
}

/// Few names, so that they meet often; `a*` and `>a` look like wildcards and are none.
pub(crate) fn subject() -> impl Strategy<Value = String> {
    vec(prop::sample::select(vec!["a", "b", "a*", ">a"]), 1..4).prop_map(|tokens| tokens.join("."))
}

pub(crate) fn pattern() -> impl Strategy<Value = String> {
    let token = prop::sample::select(vec!["a", "b", "a*", ">a", "*", "*"]);
    (vec(token, 0..4), any::<bool>()).prop_map(|(mut tokens, rest)| {
        if rest || tokens.is_empty() {
            tokens.push(">");
        }
        tokens.join(".")
    })
}

/// With `messages_max` as the bound of every subscription.
pub(crate) fn ops(messages_max: impl Strategy<Value = usize>) -> impl Strategy<Value = Vec<Op>> {
    let group = prop::option::of(prop::sample::select(vec!["p".to_owned(), "q".to_owned()]));
    let connection = 0..CONNECTIONS;
    let subscription = 0..12_usize;
    let op = prop_oneof![
        6 => (connection.clone(), pattern(), group, messages_max)
            .prop_map(|(connection, pattern, queue, messages_max)| Op::Subscribe { connection, pattern, queue, messages_max }),
        16 => (connection.clone(), subject(), prop::option::of(subject()), any::<u64>())
            .prop_map(|(connection, to, reply, entropy)| Op::Publish { connection, to, reply, entropy }),
        6 => (subscription.clone(), 1..5_usize)
            .prop_map(|(subscription, items)| Op::Read { subscription, items }),
        2 => subscription.clone().prop_map(|subscription| Op::Stop { subscription }),
        2 => subscription.prop_map(|subscription| Op::Remove { subscription }),
        1 => connection.prop_map(|connection| Op::Close { connection }),
    ];
    vec(op, 1..80)
}

/// A publish that the bus accepted. Steps count operations.
#[derive(Debug)]
pub(crate) struct Published {
    pub(crate) step: usize,
    pub(crate) connection: usize,
    pub(crate) to: String,
    pub(crate) reply: Option<String>,
}

/// All that one subscription was and saw.
#[derive(Debug)]
pub(crate) struct Reading {
    pub(crate) connection: usize,
    pub(crate) pattern: String,
    pub(crate) queue: Option<String>,
    pub(crate) subscribed: usize,
    /// The step of its stop, its removal, or the close of its connection.
    pub(crate) stopped: Option<usize>,
    /// What was read, and at the end whatever was left, also by a removal.
    pub(crate) items: Vec<Item>,
    /// Did `next` say that it has ended?
    pub(crate) ended: bool,
}

impl Reading {
    /// The publishes that reached it as such, in the order read.
    pub(crate) fn publishes(&self) -> Vec<u64> {
        let publish = |item: &Item| match item {
            Item::Message(publish) => Some(*publish),
            Item::NoResponders(_) | Item::Gap(_) => None,
        };
        self.items.iter().filter_map(publish).collect()
    }

    pub(crate) fn live_at(&self, step: usize) -> bool {
        self.subscribed < step && self.stopped.is_none_or(|stopped| step < stopped)
    }
}

/// A whole run.
#[derive(Debug, Default)]
pub(crate) struct History {
    /// By the number of the publish.
    pub(crate) published: Vec<Published>,
    pub(crate) readings: Vec<Reading>,
}

impl History {
    /// The subscriptions without a group, each with its number.
    pub(crate) fn plain(&self) -> impl Iterator<Item = (usize, &Reading)> {
        self.readings.iter().enumerate().filter(|(_, reading)| reading.queue.is_none())
    }

    /// Who has to be told if nobody is there for this: the publisher's oldest subscription to the reply subject.
    pub(crate) fn told(&self, published: &Published) -> Option<usize> {
        let reply = published.reply.as_ref()?;
        let own = |(_, reading): &(usize, &Reading)| {
            reading.connection == published.connection
                && reading.live_at(published.step)
                && matches(&reading.pattern, reply)
        };
        self.plain().find(own).map(|(at, _)| at)
    }
}

/// Does the operations to a fresh bus and to the model, and compares the two after each.
pub(crate) fn run(ops: &[Op]) -> History {
    let mut run = Run::new();
    for (step, op) in ops.iter().enumerate() {
        run.step = step;
        run.apply(op);
        run.compare();
    }
    run.finish()
}

struct Run {
    bus: Bus,
    model: Model,
    history: History,
    connections: Vec<ConnectionId>,
    ids: Vec<SubscriptionId>,
    step: usize,
}

impl Run {
    fn new() -> Self {
        let mut bus = Bus::new(SharedBus::capabilities_max());
        let connections = (0..CONNECTIONS).map(|_| bus.connect()).collect();
        let (model, history) = (Model::default(), History::default());
        Self { bus, model, history, connections, ids: Vec::new(), step: 0 }
    }

    fn apply(&mut self, op: &Op) {
        match op {
            Op::Subscribe { connection, pattern, queue, messages_max } => {
                self.subscribe(*connection, pattern, queue.as_deref(), *messages_max);
            }
            Op::Publish { connection, to, reply, entropy } => {
                self.publish(*connection, to, reply.as_deref(), *entropy);
            }
            Op::Close { connection } => self.close(*connection),
            Op::Read { subscription, items } if *subscription < self.ids.len() => {
                self.read(*subscription, *items);
            }
            Op::Stop { subscription } if *subscription < self.ids.len() => self.stop(*subscription),
            Op::Remove { subscription } if *subscription < self.ids.len() => self.remove(*subscription),
            Op::Read { .. } | Op::Stop { .. } | Op::Remove { .. } => {}
        }
    }

    fn subscribe(&mut self, connection: usize, pattern: &str, queue: Option<&str>, messages_max: usize) {
        let mut wanted = Subscription::new(Pattern::new(pattern).unwrap()).with_messages_max(messages_max);
        wanted.queue = queue.map(|queue| QueueGroup::new(queue).unwrap());
        let subscribed = self.bus.subscribe(self.connections[connection], wanted);
        assert_eq!(subscribed.is_err(), self.model.closed.contains(&connection));
        let Ok(id) = subscribed else { return };
        self.ids.push(id);
        let (pattern, queue) = (pattern.to_owned(), queue.map(str::to_owned));
        self.model.subscriptions.push(Subscribed {
            connection,
            pattern: pattern.clone(),
            queue: queue.clone(),
            messages_max,
            live: true,
            removed: false,
            waiting: Vec::new(),
        });
        self.history.readings.push(Reading {
            connection,
            pattern,
            queue,
            subscribed: self.step,
            stopped: None,
            items: Vec::new(),
            ended: false,
        });
    }

    fn publish(&mut self, connection: usize, to: &str, reply: Option<&str>, entropy: u64) {
        let number = self.history.published.len() as u64;
        let mut message = Message::new(Subject::new(to).unwrap(), number.to_string());
        message.reply = reply.map(|reply| Subject::new(reply).unwrap());
        let before: Vec<_> = (0..self.ids.len()).map(|at| waiting(&self.bus, self.ids[at])).collect();
        let mut readable = Vec::new();
        let sent = self.bus.publish(self.connections[connection], message, &mut || entropy, &mut readable);
        assert_eq!(sent.is_err(), self.model.closed.contains(&connection));
        if sent.is_err() {
            return;
        }
        let after: Vec<_> = (0..self.ids.len()).map(|at| waiting(&self.bus, self.ids[at])).collect();
        for at in 0..self.ids.len() {
            let woken = before[at].is_empty() && !after[at].is_empty();
            assert_eq!(readable.contains(&self.ids[at]), woken, "who became readable is told, and only they");
        }
        self.model.publish(connection, number, to, reply, &|at| after[at].clone());
        let (to, reply) = (to.to_owned(), reply.map(str::to_owned));
        self.history.published.push(Published { step: self.step, connection, to, reply });
    }

    fn read(&mut self, at: usize, items: usize) {
        for _ in 0..items {
            let expected = match &mut self.model.subscriptions[at] {
                subscribed if !subscribed.exists() => Poll::Ready(None),
                subscribed if subscribed.waiting.is_empty() => Poll::Pending,
                subscribed => Poll::Ready(Some(subscribed.waiting.remove(0))),
            };
            let next = self.bus.next(self.ids[at]).map(|next| next.map(item));
            assert_eq!(next, expected);
            match next {
                Poll::Ready(Some(item)) => self.history.readings[at].items.push(item),
                Poll::Ready(None) => self.history.readings[at].ended = true,
                Poll::Pending => {}
            }
        }
    }

    fn stop(&mut self, at: usize) {
        let mut readable = Vec::new();
        self.bus.stop(self.ids[at], &mut readable);
        let was_live = std::mem::take(&mut self.model.subscriptions[at].live);
        assert_eq!(readable.contains(&self.ids[at]), was_live, "a reader that waits is told of the stop");
        self.history.readings[at].stopped.get_or_insert(self.step);
    }

    fn remove(&mut self, at: usize) {
        let left = self.bus.remove(self.ids[at]);
        let subscribed = &mut self.model.subscriptions[at];
        assert_eq!(left.is_some(), subscribed.exists());
        subscribed.live = false;
        subscribed.removed = true;
        subscribed.waiting.clear();
        let mut left = left;
        while let Some(next) = left.as_mut().and_then(|buffer| buffer.pop()) {
            self.history.readings[at].items.push(item(next));
        }
        self.history.readings[at].stopped.get_or_insert(self.step);
    }

    fn close(&mut self, connection: usize) {
        let mut readable = Vec::new();
        self.bus.close(self.connections[connection], &mut readable);
        for (at, subscribed) in self.model.subscriptions.iter().enumerate() {
            let ends = subscribed.live && subscribed.connection == connection;
            assert_eq!(readable.contains(&self.ids[at]), ends);
            if ends {
                self.history.readings[at].stopped = Some(self.step);
            }
        }
        self.model.close(connection);
    }

    fn compare(&self) {
        for (at, subscribed) in self.model.subscriptions.iter().enumerate() {
            assert_eq!(waiting(&self.bus, self.ids[at]), subscribed.waiting, "{subscribed:?}");
        }
        let exist = self.model.subscriptions.iter().filter(|subscribed| subscribed.exists()).count();
        assert_eq!(self.bus.subscriptions(), exist, "no more is kept than can be read");
    }

    /// Reads everything, then closes and removes everything: nothing may be left.
    fn finish(mut self) -> History {
        self.step += 1;
        for connection in 0..CONNECTIONS {
            self.close(connection);
        }
        for at in 0..self.ids.len() {
            while !self.history.readings[at].ended {
                self.read(at, 1);
            }
        }
        assert!(self.bus.is_empty(), "{:?}", self.bus);
        self.history
    }
}

/// What a reader would find now.
fn waiting(bus: &Bus, id: SubscriptionId) -> Vec<Item> {
    let mut bus = bus.clone();
    std::iter::from_fn(|| match bus.next(id) {
        Poll::Ready(Some(next)) => Some(item(next)),
        Poll::Ready(None) | Poll::Pending => None,
    })
    .collect()
}

fn item(next: Result<Message>) -> Item {
    match next {
        Ok(message) if message.no_responders => {
            assert!(message.payload.is_empty() && message.headers.is_empty() && message.reply.is_none());
            Item::NoResponders(message.subject.to_string())
        }
        Ok(message) => Item::Message(std::str::from_utf8(&message.payload).unwrap().parse().unwrap()),
        Err(Error::Lagged { missed, .. }) => Item::Gap(missed),
        Err(error) => panic!("{error}"),
    }
}
