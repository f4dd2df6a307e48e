//! The bus as a pure state machine: no clock, no tasks, no locks, and entropy as an argument.

mod buffer;
mod routes;

use std::collections::{BTreeMap, BTreeSet};
use std::task::Poll;

use slipring_core::mutation::{Mutated, Mutation};
use slipring_core::{
    Effect, Error, Message, MessagingCapabilities, Pattern, QueueGroup, Result, Subject, Subscription,
    reject_at,
};

pub use self::buffer::Buffer;
use self::routes::Routes;

/// Who publishes and subscribes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(u64);

/// A subscription; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubscriptionId(u64);

/// Routes messages to subscriptions, and keeps them until they are read.
///
/// # Order of calls
/// [`connect`](Self::connect), then [`subscribe`](Self::subscribe) and [`publish`](Self::publish) in any order
/// until [`close`](Self::close). A subscription is read with [`next`](Self::next) until it yields `None`, or
/// given up with [`remove`](Self::remove). Calls that name a connection or a subscription that is gone are
/// refused or do nothing; none panics.
///
/// # Who has to be woken
/// The methods with a `readable` argument add to it every subscription whose [`next`](Self::next) may have
/// been `Pending` before and is ready now.
#[derive(Debug, Clone)]
pub struct Bus {
    capabilities: MessagingCapabilities,
    connections: BTreeSet<ConnectionId>,
    /// Those that do not get what they publish themselves.
    without_echo: BTreeSet<ConnectionId>,
    readers: BTreeMap<SubscriptionId, Reader>,
    routes: Routes,
    last_id: u64,
    /// Where a publish collects who gets its message; kept for its memory.
    targets: Vec<SubscriptionId>,
    mutation: Mutated,
}

/// A subscription that is routed to, or has still something to be read.
#[derive(Debug, Clone)]
struct Reader {
    connection: ConnectionId,
    pattern: Pattern,
    queue: Option<QueueGroup>,
    buffer: Buffer,
    stopped: bool,
}

impl Bus {
    /// A bus that can do this and no more: what is not declared is refused, or does not happen.
    pub fn new(capabilities: MessagingCapabilities) -> Self {
        Self {
            capabilities,
            connections: BTreeSet::new(),
            without_echo: BTreeSet::new(),
            readers: BTreeMap::new(),
            routes: Routes::default(),
            last_id: 0,
            targets: Vec::new(),
            mutation: Mutated::default(),
        }
    }

    #[doc(hidden)]
    #[must_use]
    pub fn with_mutation(mut self, mutation: Mutated) -> Self {
        self.mutation = mutation;
        self
    }

    /// What it can do.
    pub fn capabilities(&self) -> MessagingCapabilities {
        self.capabilities
    }

    /// A new connection.
    pub fn connect(&mut self) -> ConnectionId {
        let id = ConnectionId(self.fresh_id());
        self.connections.insert(id);
        id
    }

    /// Does a connection get what it publishes itself? At first it does. Whoever does not is no subscriber of its
    /// own messages: of a queue group another member gets them, and where there is nobody else it is told so.
    /// No-op on a closed connection.
    pub fn set_echo(&mut self, connection: ConnectionId, echo: bool) {
        if echo {
            self.without_echo.remove(&connection);
        } else if self.connections.contains(&connection) {
            self.without_echo.insert(connection);
        }
    }

    /// Checks that a connection may still be used.
    ///
    /// # Errors
    /// [`Error::Unavailable`], effect none, once it is closed.
    pub fn check(&self, connection: ConnectionId) -> Result<()> {
        if self.connections.contains(&connection) {
            return Ok(());
        }
        Err(Error::unavailable("the bus", "this handle is closed", Effect::None))
    }

    /// Subscribes: every later publish is routed to it.
    ///
    /// # Errors
    /// [`Error::Unavailable`] on a closed connection; [`Error::Unsupported`] for a wildcard or a queue group
    /// on a bus without; [`Error::Invalid`] for a pattern that is too long.
    pub fn subscribe(&mut self, connection: ConnectionId, wanted: Subscription) -> Result<SubscriptionId> {
        self.check(connection)?;
        let Subscription { pattern, queue, messages_max, .. } = wanted;
        let queue = queue.filter(|_| !self.mutation.is(Mutation::GroupGetsAll));
        self.check_length("pattern", pattern.as_str())?;
        if !self.capabilities.wildcards && !pattern.is_exact() {
            return Err(Error::unsupported(
                format!("the wildcard in {pattern}"),
                "subscribe to exact subjects",
            ));
        }
        if let (false, Some(queue)) = (self.capabilities.queue_groups, &queue) {
            return Err(Error::unsupported(format!("the queue group {queue}"), "subscribe without one"));
        }
        let id = SubscriptionId(self.fresh_id());
        self.routes.insert(&pattern, queue.as_ref(), id);
        let buffer = Buffer::new(messages_max);
        self.readers.insert(id, Reader { connection, pattern, queue, buffer, stopped: false });
        Ok(id)
    }

    /// Routes a message to everybody who has to get it. `random` is called once per queue group with more
    /// than one member.
    ///
    /// # Errors
    /// [`Error::Unavailable`] on a closed connection; [`Error::PayloadTooLarge`]; [`Error::Invalid`] for a
    /// subject that is too long. Nothing was sent then.
    pub fn publish(
        &mut self,
        connection: ConnectionId,
        mut message: Message,
        random: &mut dyn FnMut() -> u64,
        readable: &mut Vec<SubscriptionId>,
    ) -> Result<()> {
        self.check(connection)?;
        self.check_length("subject", message.subject.as_str())?;
        if let Some(reply) = &message.reply {
            self.check_length("reply subject", reply.as_str())?;
        }
        message.check(self.capabilities.payload_bytes_max)?;
        // Only the bus says this, whatever a publisher claims.
        message.no_responders = false;
        let reply = message.reply.clone();
        let routed = self.route(connection, message, random, readable);
        let told = self.capabilities.no_responders && !self.mutation.is(Mutation::NobodyIsNotTold);
        if let (false, true, Some(reply)) = (routed, told, reply) {
            self.tell_no_responders(connection, reply, readable);
        }
        Ok(())
    }

    /// Tells the publisher that nobody is there: at its own connection, and once. Of several subscriptions the
    /// oldest gets it.
    fn tell_no_responders(
        &mut self,
        connection: ConnectionId,
        reply: Subject,
        readable: &mut Vec<SubscriptionId>,
    ) {
        let mut targets = std::mem::take(&mut self.targets);
        // No member of a group gets it, so none has to be drawn.
        self.routes.targets(&reply, &mut || 0, &mut targets);
        let own = |id: &SubscriptionId| {
            let reader = self.readers.get(id);
            reader.is_some_and(|reader| reader.connection == connection && reader.queue.is_none())
        };
        let told = targets.iter().copied().filter(own).min();
        targets.clear();
        self.targets = targets;
        if let Some(id) = told {
            self.deliver(id, no_responders(reply), readable);
        }
    }

    /// The next message of a subscription, or [`Error::Lagged`] where some are missing. `None` when it has
    /// ended: stopped and read to its end, or removed.
    pub fn next(&mut self, id: SubscriptionId) -> Poll<Option<Result<Message>>> {
        let Some(reader) = self.readers.get_mut(&id) else { return Poll::Ready(None) };
        let Some(next) = reader.buffer.pop() else { return Poll::Pending };
        if reader.stopped && reader.buffer.is_empty() {
            self.readers.remove(&id);
        }
        Poll::Ready(Some(next))
    }

    /// Routes no more to a subscription. What it has is still read.
    pub fn stop(&mut self, id: SubscriptionId, readable: &mut Vec<SubscriptionId>) {
        let Some(reader) = self.readers.get_mut(&id) else { return };
        if !reader.stopped {
            reader.stopped = true;
            self.routes.remove(&reader.pattern, reader.queue.as_ref(), id);
            readable.push(id);
        }
        if reader.buffer.is_empty() {
            self.readers.remove(&id);
        }
    }

    /// Ends a subscription at once, and hands out what it has not read.
    pub fn remove(&mut self, id: SubscriptionId) -> Option<Buffer> {
        let reader = self.readers.remove(&id)?;
        if !reader.stopped {
            self.routes.remove(&reader.pattern, reader.queue.as_ref(), id);
        }
        Some(reader.buffer)
    }

    /// Closes a connection: its subscriptions are stopped, and it can do nothing any more.
    pub fn close(&mut self, connection: ConnectionId, readable: &mut Vec<SubscriptionId>) {
        if !self.connections.remove(&connection) {
            return;
        }
        self.without_echo.remove(&connection);
        let of_it =
            |(id, reader): (&SubscriptionId, &Reader)| (reader.connection == connection).then_some(*id);
        let ids: Vec<_> = self.readers.iter().filter_map(of_it).collect();
        for id in ids {
            self.stop(id, readable);
        }
    }

    /// Subscriptions that are routed to, or have still something to be read.
    pub fn subscriptions(&self) -> usize {
        self.readers.len()
    }

    /// Is anything kept: connections, subscriptions, routes?
    pub fn is_empty(&self) -> bool {
        self.connections.is_empty() && self.readers.is_empty() && self.routes.is_empty()
    }

    /// Gives a message to its targets; were there any?
    fn route(
        &mut self,
        from: ConnectionId,
        message: Message,
        random: &mut dyn FnMut() -> u64,
        readable: &mut Vec<SubscriptionId>,
    ) -> bool {
        let mut targets = std::mem::take(&mut self.targets);
        if self.without_echo.contains(&from) {
            let is_other = |id| self.readers.get(&id).is_some_and(|reader| reader.connection != from);
            self.routes.targets_among(&message.subject, is_other, random, &mut targets);
        } else {
            self.routes.targets(&message.subject, random, &mut targets);
        }
        if self.mutation.is(Mutation::FanOutMissesOne) && targets.len() > 1 {
            targets.pop();
        }
        let last = targets.pop();
        for id in targets.drain(..) {
            self.deliver(id, message.clone(), readable);
        }
        if let Some(id) = last {
            self.deliver(id, message, readable);
        }
        self.targets = targets;
        last.is_some()
    }

    fn deliver(&mut self, id: SubscriptionId, message: Message, readable: &mut Vec<SubscriptionId>) {
        let reader = self.readers.get_mut(&id).expect("what is routed to is removed from the routes first");
        if reader.buffer.is_empty() {
            readable.push(id);
        }
        #[cfg(feature = "_mutants")]
        let Some(message) = reader.buffer.mutated_push(message, self.mutation) else { return };
        reader.buffer.push(message);
    }

    fn check_length(&self, what: &'static str, text: &str) -> Result<()> {
        let max = self.capabilities.subject_bytes_max;
        if text.len() <= max {
            return Ok(());
        }
        Err(reject_at(what, text, max, format!("it has {} bytes; allowed: at most {max}", text.len())))
    }

    fn fresh_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }
}

fn no_responders(reply: Subject) -> Message {
    let mut message = Message::new(reply, "");
    message.no_responders = true;
    message
}
