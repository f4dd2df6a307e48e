//! What a NATS server was measured to do, and the bus does as well.

#![allow(clippy::unwrap_used, reason = "a test may")]

use std::task::Poll;

use slipring_core::{Error, Message, Pattern, QueueGroup, Subject, Subscription};
use slipring_memory::{Bus, ConnectionId, Profile, SharedBus, SubscriptionId};

/// A bus with one connection, and numbers that are random enough and always the same.
struct Fixture {
    bus: Bus,
    connection: ConnectionId,
    entropy: u64,
}

impl Fixture {
    fn new() -> Self {
        let mut bus = Bus::new(SharedBus::capabilities_max());
        let connection = bus.connect();
        Self { bus, connection, entropy: 1 }
    }

    fn subscribe(&mut self, pattern: &str, queue: Option<&str>) -> SubscriptionId {
        let mut wanted = Subscription::new(Pattern::new(pattern).unwrap());
        wanted.queue = queue.map(|queue| QueueGroup::new(queue).unwrap());
        self.bus.subscribe(self.connection, wanted).unwrap()
    }

    fn publish(&mut self, to: &str) {
        self.send(Message::new(Subject::new(to).unwrap(), "x"));
    }

    fn send(&mut self, message: Message) {
        let entropy = &mut self.entropy;
        let mut random = || {
            // Knuth's MMIX generator.
            *entropy =
                entropy.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            *entropy
        };
        self.bus.publish(self.connection, message, &mut random, &mut Vec::new()).unwrap();
    }

    /// How many messages wait.
    fn count(&mut self, id: SubscriptionId) -> usize {
        std::iter::from_fn(|| match self.bus.next(id) {
            Poll::Ready(next) => next,
            Poll::Pending => None,
        })
        .filter(Result::is_ok)
        .count()
    }
}

/// Members of one group share its messages although their patterns differ.
#[test]
fn nats_one_group_name_on_overlapping_subjects_is_one_group() {
    let mut f = Fixture::new();
    let wild = f.subscribe("qw.*", Some("g"));
    let exact = f.subscribe("qw.a", Some("g"));
    (0..1000).for_each(|_| f.publish("qw.a"));
    let (wild, exact) = (f.count(wild), f.count(exact));
    assert_eq!(wild + exact, 1000);
    assert!((400..600).contains(&wild), "{wild} and {exact}");
}

/// The member is drawn evenly and at random, not in turn.
#[test]
fn nats_queue_members_are_drawn_evenly_and_not_in_turn() {
    let mut f = Fixture::new();
    let members: Vec<_> = (0..10).map(|_| f.subscribe("work", Some("g"))).collect();
    let mut drawn = Vec::new();
    for _ in 0..10_000 {
        f.publish("work");
        drawn.push(members.iter().position(|id| f.count(*id) == 1).unwrap());
    }
    for member in 0..10 {
        let share = drawn.iter().filter(|at| **at == member).count();
        assert!((850..1150).contains(&share), "member {member} got {share} of 10000");
    }
    let repeats = drawn.windows(2).filter(|pair| pair[0] == pair[1]).count();
    assert!((800..1200).contains(&repeats), "{repeats} times the same member twice in a row");
}

/// Each group gets a copy, and so does each plain subscription, also the publisher's own.
#[test]
fn nats_groups_and_plain_subscriptions_each_get_a_copy_also_ones_own() {
    let mut f = Fixture::new();
    let ids = [None, None, Some("g"), Some("h")].map(|queue| f.subscribe("s", queue));
    f.publish("s");
    assert_eq!(ids.map(|id| f.count(id)), [1, 1, 1, 1]);
}

/// A member that does not read goes on being given its share, also when it has no more room for it.
#[test]
fn nats_a_stuck_member_keeps_its_share() {
    let mut f = Fixture::new();
    let group = QueueGroup::new("g").unwrap();
    let wanted = Subscription::new(Pattern::new("s").unwrap()).with_queue(group).with_messages_max(10);
    let stuck = f.bus.subscribe(f.connection, wanted).unwrap();
    let well = f.subscribe("s", Some("g"));
    (0..1000).for_each(|_| f.publish("s"));
    let served = f.count(well) as u64;
    assert!((400..600).contains(&served), "{served}");
    (0..10).for_each(|_| assert!(matches!(f.bus.next(stuck), Poll::Ready(Some(Ok(_))))));
    assert_eq!(f.bus.next(stuck), Poll::Ready(Some(Err(Error::lagged(1000 - served - 10)))));
}

/// A full buffer keeps the oldest messages, and takes new ones once it was read.
#[test]
fn nats_the_newest_are_dropped() {
    let mut f = Fixture::new();
    let wanted = Subscription::new(Pattern::new("s").unwrap()).with_messages_max(10);
    let id = f.bus.subscribe(f.connection, wanted).unwrap();
    let message = |n: usize| Message::new(Subject::new("s").unwrap(), n.to_string());
    (0..100).for_each(|n| f.send(message(n)));
    (0..10).for_each(|n| assert_eq!(f.bus.next(id), Poll::Ready(Some(Ok(message(n))))));
    assert_eq!(f.bus.next(id), Poll::Ready(Some(Err(Error::lagged(90)))));
    f.send(message(100));
    assert_eq!(f.bus.next(id), Poll::Ready(Some(Ok(message(100)))));
    assert_eq!(f.bus.next(id), Poll::Pending);
}

/// Wildcards count only as whole tokens; every other visible character is a character like any other.
#[test]
fn nats_subjects_are_case_sensitive_text() {
    for (pattern, subject) in [
        ("foo*", "foo*"),
        ("foo.b*r", "foo.b*r"),
        ("foo>", "foo>"),
        ("dynamo|p.generate-1a", "dynamo|p.generate-1a"),
        ("$SYS.é/:#@", "$SYS.é/:#@"),
    ] {
        let mut f = Fixture::new();
        let (exact, other) = (f.subscribe(pattern, None), f.subscribe(&pattern.to_uppercase(), None));
        f.publish(subject);
        assert_eq!((f.count(exact), f.count(other)), (1, usize::from(pattern == pattern.to_uppercase())));
    }
}

/// The news that nobody is there is a message that asks for nothing, and causes no second one.
#[test]
fn nats_no_responders_is_told_once() {
    let mut f = Fixture::new();
    let inbox = f.subscribe("_INBOX.*", None);
    let asked = |reply: &str| {
        Message::new(Subject::new("nobody").unwrap(), "x").with_reply(Subject::new(reply).unwrap())
    };
    f.send(asked("_INBOX.1"));
    let Poll::Ready(Some(Ok(told))) = f.bus.next(inbox) else { panic!() };
    assert!(told.no_responders && told.reply.is_none() && told.payload.is_empty());
    assert_eq!(told.subject.as_str(), "_INBOX.1");
    f.send(asked("nobody.either"));
    assert_eq!(f.bus.next(inbox), Poll::Pending);
}

/// As a NATS server does it: the news goes to one plain subscription of the publisher's own connection.
#[test]
fn nats_no_responders_is_told_to_the_publisher_alone() {
    let mut bus = Bus::new(Profile::nats().messaging);
    let (publisher, other) = (bus.connect(), bus.connect());
    let inbox = Pattern::new("inbox").unwrap();
    let group = Subscription::new(inbox.clone()).with_queue(QueueGroup::new("q").unwrap());
    let [foreign, member, first, second] = [
        (other, Subscription::new(inbox.clone())),
        (publisher, group),
        (publisher, Subscription::new(inbox.clone())),
        (publisher, Subscription::new(inbox)),
    ]
    .map(|(connection, wanted)| bus.subscribe(connection, wanted).unwrap());
    let asked = Message::new(Subject::new("nobody").unwrap(), "x").with_reply(Subject::new("inbox").unwrap());
    bus.publish(publisher, asked, &mut || 0, &mut Vec::new()).unwrap();
    let mut told = |id| matches!(bus.next(id), Poll::Ready(Some(Ok(told))) if told.no_responders);
    assert_eq!([foreign, member, first, second].map(&mut told), [false, false, true, false]);
}

/// Only the bus says that nobody was there; a publisher that claims it is not believed.
#[test]
fn no_responders_cannot_be_forged() {
    let mut f = Fixture::new();
    let id = f.subscribe("s", None);
    let mut forged = Message::new(Subject::new("s").unwrap(), "x");
    forged.no_responders = true;
    f.send(forged);
    let Poll::Ready(Some(Ok(message))) = f.bus.next(id) else { panic!() };
    assert!(!message.no_responders);
}

/// A subscriber that has no room is a subscriber: it is not reported as nobody.
#[test]
fn m7_a_full_buffer_is_interest() {
    let mut f = Fixture::new();
    let inbox = f.subscribe("inbox", None);
    let wanted = Subscription::new(Pattern::new("s").unwrap()).with_messages_max(1);
    f.bus.subscribe(f.connection, wanted).unwrap();
    let asked = Message::new(Subject::new("s").unwrap(), "x").with_reply(Subject::new("inbox").unwrap());
    f.send(asked.clone());
    f.send(asked);
    assert_eq!(f.count(inbox), 0);
}

/// A subject of 128 tokens, and as many wildcards, are found and forgotten again.
#[test]
fn the_deepest_subject_is_routed() {
    let mut f = Fixture::new();
    let subject = ["a"; 128].join(".");
    let ids = [
        subject.clone(),
        ["*"; 128].join("."),
        ">".to_owned(),
        [["*"; 127].join("."), ">".to_owned()].join("."),
    ]
    .map(|pattern| f.subscribe(&pattern, None));
    f.publish(&subject);
    assert_eq!(ids.map(|id| f.count(id)), [1; 4]);
    for id in ids {
        f.bus.remove(id).unwrap();
    }
    f.bus.close(f.connection, &mut Vec::new());
    assert!(f.bus.is_empty());
}

/// Whoever wants no echo is no subscriber of its own messages: a group has them go to another member, and where
/// nobody else is there, it is told so.
#[test]
fn nats_without_echo_ones_own_subscriptions_do_not_count() {
    let mut f = Fixture::new();
    let own = [f.subscribe("e", None), f.subscribe("e", Some("g")), f.subscribe("*", Some("h"))];
    let inbox = f.subscribe("inbox", None);
    f.bus.set_echo(f.connection, false);
    let asks = || Message::new(Subject::new("e").unwrap(), "x").with_reply(Subject::new("inbox").unwrap());
    f.send(asks());
    let told = f.bus.next(inbox);
    assert!(matches!(told, Poll::Ready(Some(Ok(Message { no_responders: true, .. })))), "{told:?}");

    let mute = std::mem::replace(&mut f.connection, f.bus.connect());
    let other = f.subscribe("*", Some("g"));
    let own_again = std::mem::replace(&mut f.connection, mute);
    for _ in 0..50 {
        f.send(asks());
    }
    assert_eq!((f.count(other), f.count(inbox)), (50, 0));
    assert_eq!(own.map(|id| f.count(id)), [0, 0, 0]);

    f.bus.set_echo(f.connection, true);
    f.publish("e");
    assert_eq!(f.count(own[0]), 1);
    f.bus.set_echo(f.connection, false);
    for connection in [f.connection, own_again] {
        f.bus.close(connection, &mut Vec::new());
    }
    // What is closed is forgotten, and not remembered anew.
    f.bus.set_echo(f.connection, false);
    for id in [own[1], own[2], other, inbox] {
        while f.bus.next(id) != Poll::Ready(None) {}
    }
    assert!(f.bus.is_empty());
}
