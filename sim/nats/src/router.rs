//! Who is connected, who is subscribed, and what each is to be told.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use slipring_core::{Environment, Message, MessagingCapabilities, Pattern, Subject, Subscription};
use slipring_memory::{Bus, ConnectionId, SubscriptionId};
use tokio::time::Instant;

use crate::Options;
use crate::arguments::{Announced, Unwanted, Wanted};
use crate::names::{Names, Unwritten};
use crate::options::Version;
use crate::outbox::Outbox;

/// The clients of one server, and the bus between them.
pub(crate) struct Router {
    options: Options,
    environment: Arc<dyn Environment>,
    bus: Bus,
    names: Names,
    clients: BTreeMap<ConnectionId, Client>,
    /// Whose the subscriptions are, and under which name.
    owners: BTreeMap<SubscriptionId, (ConnectionId, Bytes)>,
    /// Empty between calls; kept for its memory.
    readable: Vec<SubscriptionId>,
}

/// Somebody who is connected.
pub(crate) struct Client {
    pub(crate) outbox: Outbox,
    pub(crate) pulse: Pulse,
    /// Does it understand headers?
    headers: bool,
    /// Is it to be told where nobody is subscribed?
    no_responders: bool,
    subscriptions: BTreeMap<Bytes, Subscribed>,
}

/// Whether a client is there.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pulse {
    /// Since when it is known who it is.
    pub(crate) connected: Option<Instant>,
    /// When it last said something.
    pub(crate) heard: Instant,
    /// How many questions are without an answer.
    pub(crate) pings: u32,
    /// Was it asked yet?
    pub(crate) is_measured: bool,
}

struct Subscribed {
    id: SubscriptionId,
    subject: Bytes,
    queue: Option<Bytes>,
    delivered: u64,
    /// It ends after so many.
    messages_max: Option<u64>,
}

/// Why there is no subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    Malformed,
    LateWildcard,
    TooMany,
}

impl Router {
    pub(crate) fn new(options: Options, environment: Arc<dyn Environment>) -> Self {
        // The limits of what clients send are checked before.
        let capabilities = MessagingCapabilities::minimal()
            .with_queue_groups(true)
            .with_wildcards(true)
            .with_no_responders(true)
            .with_payload_bytes_max(usize::MAX)
            .with_subject_bytes_max(Subject::BYTES_MAX);
        Self {
            options,
            environment,
            bus: Bus::new(capabilities),
            names: Names::default(),
            clients: BTreeMap::new(),
            owners: BTreeMap::new(),
            readable: Vec::new(),
        }
    }

    /// Somebody comes; none if there are too many.
    pub(crate) fn connect(&mut self, now: Instant) -> Option<ConnectionId> {
        if self.clients.len() >= self.options.connections_max {
            return None;
        }
        let id = self.bus.connect();
        let client = Client {
            outbox: Outbox::new(self.options.pending_bytes_max),
            pulse: Pulse { connected: None, heard: now, pings: 0, is_measured: false },
            headers: false,
            no_responders: false,
            subscriptions: BTreeMap::new(),
        };
        self.clients.insert(id, client);
        Some(id)
    }

    /// Somebody is gone.
    pub(crate) fn close(&mut self, id: ConnectionId) {
        self.clear(id);
        self.bus.close(id, &mut self.readable);
        self.readable.clear();
        self.clients.remove(&id);
    }

    /// Somebody who is here.
    pub(crate) fn client(&mut self, id: ConnectionId) -> &mut Client {
        self.clients.get_mut(&id).expect("a connection names its own client, which it removes at its end")
    }

    /// Who is here.
    pub(crate) fn clients(&self) -> impl Iterator<Item = ConnectionId> {
        self.clients.keys().copied()
    }

    /// How many subscriptions there are.
    pub(crate) fn subscriptions(&self) -> usize {
        self.owners.len()
    }

    /// Is nothing kept of anybody?
    pub(crate) fn is_empty(&self) -> bool {
        self.bus.is_empty() && self.names.is_empty() && self.clients.is_empty() && self.owners.is_empty()
    }

    /// Tells somebody something.
    pub(crate) fn tell(&mut self, id: ConnectionId, text: &str) {
        self.client(id).outbox.push(&[text.as_bytes()]);
    }

    /// What somebody wishes from now on.
    pub(crate) fn set_wishes(&mut self, id: ConnectionId, headers: bool, no_responders: bool, echo: bool) {
        let client = self.client(id);
        (client.headers, client.no_responders) = (headers, no_responders);
        self.bus.set_echo(id, echo);
    }

    /// Subscribes. A name that is taken stays with the subscription that has it.
    pub(crate) fn subscribe(&mut self, id: ConnectionId, wanted: &Wanted) -> Result<(), Refusal> {
        if self.client(id).subscriptions.contains_key(&wanted.sid) {
            return Ok(());
        }
        let Wanted { subject, queue, sid } = wanted;
        let pattern = self.names.pattern(subject).map_err(|unwritten| match unwritten {
            Unwritten::Malformed => Refusal::Malformed,
            Unwritten::LateWildcard => Refusal::LateWildcard,
            Unwritten::Full => Refusal::TooMany,
        })?;
        let Some(subscription) = self.subscription(pattern, queue.as_deref()) else {
            self.names.forget(subject);
            return Err(Refusal::TooMany);
        };
        let subscription = self
            .bus
            .subscribe(id, subscription)
            .expect("the connection is open, and the bus can do all of this");
        // What arrived is a part of something larger.
        let own = |bytes: &Bytes| Bytes::copy_from_slice(bytes);
        let sid = own(sid);
        let (subject, queue) = (own(subject), queue.as_ref().map(own));
        let subscribed = Subscribed { id: subscription, subject, queue, delivered: 0, messages_max: None };
        self.client(id).subscriptions.insert(sid.clone(), subscribed);
        self.owners.insert(subscription, (id, sid));
        Ok(())
    }

    fn subscription(&mut self, pattern: Pattern, queue: Option<&[u8]>) -> Option<Subscription> {
        // Each message is taken out of the bus at once.
        let subscription = Subscription::new(pattern).with_messages_max(1);
        match queue {
            Some(queue) => Some(subscription.with_queue(self.names.queue(queue)?)),
            None => Some(subscription),
        }
    }

    /// Ends a subscription, at once or later. No-op if there is none of that name.
    pub(crate) fn unsubscribe(&mut self, id: ConnectionId, unwanted: &Unwanted) {
        let Some(subscribed) = self.client(id).subscriptions.get_mut(&unwanted.sid) else { return };
        match unwanted.after {
            Some(after) if after > subscribed.delivered => subscribed.messages_max = Some(after),
            _ => self.remove(id, &unwanted.sid),
        }
    }

    /// Ends all subscriptions of somebody.
    pub(crate) fn clear(&mut self, id: ConnectionId) {
        let Some(client) = self.clients.get(&id) else { return };
        let all: Vec<_> = client.subscriptions.keys().cloned().collect();
        all.iter().for_each(|sid| self.remove(id, sid));
    }

    fn remove(&mut self, id: ConnectionId, sid: &Bytes) {
        let Some(subscribed) = self.client(id).subscriptions.remove(sid) else { return };
        self.bus.remove(subscribed.id);
        self.owners.remove(&subscribed.id);
        self.names.forget(&subscribed.subject);
        if let Some(queue) = &subscribed.queue {
            self.names.forget_queue(queue);
        }
    }

    /// Routes a message. Whoever gets it has it in the outbox then. Returns whether one of them does not keep up.
    pub(crate) fn publish(&mut self, id: ConnectionId, announced: &Announced, body: Bytes) -> bool {
        let subject = self.names.subject(&announced.subject).unwrap_or_else(Names::nowhere);
        let mut message = Message::new(subject, body);
        if self.client(id).no_responders {
            message.reply = announced.reply.as_deref().and_then(|reply| self.names.subject(reply));
        }
        let mut readable = std::mem::take(&mut self.readable);
        let mut random = || self.environment.random("nats queue group");
        self.bus
            .publish(id, message, &mut random, &mut readable)
            .expect("the connection is open, and names are written to be short");
        let mut is_behind = false;
        for subscription in readable.drain(..) {
            if let Poll::Ready(Some(Ok(message))) = self.bus.next(subscription) {
                is_behind |= self.deliver(subscription, announced, &message);
            }
        }
        self.readable = readable;
        is_behind
    }

    fn deliver(&mut self, subscription: SubscriptionId, announced: &Announced, message: &Message) -> bool {
        let (id, sid) =
            self.owners.get(&subscription).expect("what the bus routes to is removed with it").clone();
        let version = self.options.version;
        let client = self.client(id);
        if message.no_responders {
            client.tell_no_responders(version, &sid, announced);
            return false;
        }
        client.write(&sid, announced, &message.payload);
        let is_behind = client.outbox.is_behind();
        let subscribed =
            client.subscriptions.get_mut(&sid).expect("what has an owner is one of its subscriptions");
        subscribed.delivered += 1;
        if subscribed.messages_max.is_some_and(|max| subscribed.delivered >= max) {
            self.remove(id, &sid);
        }
        is_behind
    }
}

impl Client {
    /// Asks whether it is there.
    pub(crate) fn ping(&mut self) {
        self.pulse.pings += 1;
        self.pulse.is_measured = true;
        self.outbox.push(&[b"PING\r\n"]);
    }

    fn write(&mut self, sid: &Bytes, announced: &Announced, body: &Bytes) {
        let Announced { subject, reply, headers, size } = announced;
        let (verb, sizes, body) = match headers {
            Some((_, headers)) if self.headers => {
                (&b"HMSG "[..], [headers, &b" "[..], &size.1].concat(), body.clone())
            }
            // Whoever does not understand headers gets none.
            Some((headers, _)) => {
                (&b"MSG "[..], (size.0 - headers).to_string().into_bytes(), body.slice(*headers..))
            }
            None => (&b"MSG "[..], size.1.to_vec(), body.clone()),
        };
        let (reply, blank) = reply.as_ref().map_or((&b""[..], &b""[..]), |reply| (reply, b" "));
        self.outbox.push(&[verb, subject, b" ", sid, b" ", reply, blank, &sizes, b"\r\n", &body, b"\r\n"]);
    }

    fn tell_no_responders(&mut self, version: Version, sid: &Bytes, announced: &Announced) {
        let reply = announced.reply.as_deref().unwrap_or_default();
        let mut headers = b"NATS/1.0 503\r\n".to_vec();
        if version == Version::V2_15 {
            headers = [&headers, &b"Nats-Subject: "[..], &announced.subject, b"\r\n"].concat();
        }
        headers.extend(b"\r\n");
        let sizes = format!(" {0} {0}\r\n", headers.len());
        self.outbox.push(&[b"HMSG ", reply, b" ", sid, sizes.as_bytes(), &headers, b"\r\n"]);
    }
}
