//! The bus against an independent model, and its invariants, one by one, over the same generated runs.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod model;
mod run;

use std::collections::BTreeMap;
use std::task::Poll;

use proptest::prelude::*;
use slipring_core::{Error, Headers, Message, Pattern, Subject, Subscription};
use slipring_memory::{Bus, SharedBus};

use crate::model::{Item, matches};
use crate::run::{History, Op, Reading, ops, pattern, run, subject};

/// More than any run publishes: nothing is dropped.
const ROOM: usize = 1000;

fn roomy() -> impl Strategy<Value = Vec<Op>> {
    ops(Just(ROOM))
}

fn tight() -> impl Strategy<Value = Vec<Op>> {
    ops(1..4_usize)
}

fn either() -> impl Strategy<Value = Vec<Op>> {
    prop_oneof![roomy(), tight()]
}

impl History {
    /// The subscriptions that were live and matched when a publish came.
    fn interested(&self, step: usize, to: &str) -> Vec<&Reading> {
        self.readings.iter().filter(|r| r.live_at(step) && matches(&r.pattern, to)).collect()
    }
}

proptest! {
    /// M1: no subscription gets a message twice.
    #[test]
    fn m1_at_most_once(ops in either()) {
        let history = run(&ops);
        for reading in &history.readings {
            let mut publishes = reading.publishes();
            let all = publishes.len();
            publishes.sort_unstable();
            publishes.dedup();
            prop_assert_eq!(publishes.len(), all, "{:?}", reading);
        }
    }

    /// M2: what one connection publishes reaches a subscription in that order, also past gaps.
    #[test]
    fn m2_order_of_a_publisher_is_kept(ops in either()) {
        let history = run(&ops);
        for reading in &history.readings {
            let mut last = BTreeMap::new();
            for publish in reading.publishes() {
                let connection = history.published[publish as usize].connection;
                let before = last.insert(connection, publish);
                prop_assert!(before < Some(publish), "{:?}", reading);
            }
        }
    }

    /// M3: a subscription gets nothing that was published before it began or after it stopped.
    #[test]
    fn m3_nothing_before_the_subscription_or_after_its_stop(ops in either()) {
        let history = run(&ops);
        for reading in &history.readings {
            for publish in reading.publishes() {
                prop_assert!(reading.live_at(history.published[publish as usize].step), "{:?}", reading);
            }
        }
    }

    /// M4: every matching plain subscription gets a copy, of each group exactly one member, nobody else.
    #[test]
    fn m4_fan_out_and_one_member_of_a_group(ops in roomy()) {
        let history = run(&ops);
        for (number, published) in history.published.iter().enumerate() {
            let interested = history.interested(published.step, &published.to);
            let mut of_group: BTreeMap<&str, usize> = BTreeMap::new();
            let mut expected = 0;
            for reading in &interested {
                let got = reading.publishes().iter().filter(|got| **got == number as u64).count();
                match &reading.queue {
                    None => prop_assert_eq!(got, 1, "{:?}", reading),
                    Some(group) => *of_group.entry(group).or_default() += got,
                }
                expected += usize::from(reading.queue.is_none());
            }
            for (group, got) in &of_group {
                prop_assert_eq!(*got, 1, "members of {}", group);
            }
            expected += of_group.len();
            let everywhere = history.readings.iter().flat_map(Reading::publishes);
            prop_assert_eq!(everywhere.filter(|got| *got == number as u64).count(), expected);
        }
    }

    /// M5: a pattern gets exactly the subjects that a plain matcher says it does.
    #[test]
    fn m5_wildcards_are_exact(pattern in pattern(), subject in subject()) {
        let mut bus = Bus::new(SharedBus::capabilities_max());
        let connection = bus.connect();
        let id = bus.subscribe(connection, Subscription::new(Pattern::new(&pattern).unwrap())).unwrap();
        let message = Message::new(Subject::new(&subject).unwrap(), "x");
        bus.publish(connection, message.clone(), &mut || 0, &mut Vec::new()).unwrap();
        let expected = match matches(&pattern, &subject) {
            true => Poll::Ready(Some(Ok(message))),
            false => Poll::Pending,
        };
        prop_assert_eq!(bus.next(id), expected);
    }

    /// M7: the news that nobody is there goes to the publisher if, and only if, nobody was.
    #[test]
    fn m7_no_responders_exactly_without_interest(ops in roomy()) {
        let history = run(&ops);
        for (at, reading) in history.plain() {
            let told = reading.items.iter().filter_map(|item| match item {
                Item::NoResponders(reply) => Some(reply.clone()),
                Item::Message(_) | Item::Gap(_) => None,
            });
            let expected = history.published.iter().filter_map(|published| {
                let reply = published.reply.as_ref()?;
                let nobody = history.interested(published.step, &published.to).is_empty();
                (nobody && history.told(published) == Some(at)).then(|| reply.clone())
            });
            prop_assert_eq!(told.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
        }
    }

    /// M10: what was read and what was missed, in its place, is together all that was routed to it.
    #[test]
    fn m10_loss_is_counted_exactly_and_in_its_place(ops in tight()) {
        let history = run(&ops);
        for (at, reading) in history.plain() {
            let mut routed = history.published.iter().enumerate().filter_map(|(number, published)| {
                let interested = history.interested(published.step, &published.to);
                let hears = |to: &str| reading.live_at(published.step) && matches(&reading.pattern, to);
                match &published.reply {
                    Some(reply) if interested.is_empty() => {
                        (history.told(published) == Some(at)).then(|| Item::NoResponders(reply.clone()))
                    }
                    _ => hears(&published.to).then_some(Item::Message(number as u64)),
                }
            });
            for item in &reading.items {
                match item {
                    Item::Gap(missed) => {
                        prop_assert_eq!(routed.by_ref().take(*missed as usize).count() as u64, *missed);
                    }
                    item => prop_assert_eq!(routed.next(), Some(item.clone())),
                }
            }
            prop_assert_eq!(routed.next(), None, "unread and untold: {:?}", reading);
        }
    }

    /// M11: a message over the limit, headers included, is refused with both figures and reaches nobody.
    #[test]
    fn m11_oversize_is_refused_here(limit in 0..200_usize, payload in 0..200_usize, value in prop::option::of(0..60_usize)) {
        let mut bus = Bus::new(SharedBus::capabilities_max().with_payload_bytes_max(limit));
        let connection = bus.connect();
        let subject = Subject::new("s").unwrap();
        let id = bus.subscribe(connection, Subscription::new(&subject)).unwrap();
        let mut headers = Headers::new();
        let mut size = payload;
        if let Some(value) = value {
            headers.append("name", "v".repeat(value)).unwrap();
            size += "NATS/1.0\r\nname: \r\n\r\n".len() + value;
        }
        let message = Message::new(subject, vec![0; payload]).with_headers(headers);
        let sent = bus.publish(connection, message, &mut || 0, &mut Vec::new());
        let refused = size > limit;
        prop_assert_eq!(sent, if refused { Err(Error::payload_too_large(limit, size)) } else { Ok(()) });
        prop_assert_eq!(bus.next(id).is_pending(), refused);
    }

    /// M12: after a stop or a close, what was accepted is read to its end, and then the end is told.
    #[test]
    fn m12_a_stop_keeps_what_was_accepted(ops in roomy()) {
        let history = run(&ops);
        for reading in history.readings.iter().filter(|reading| reading.queue.is_none()) {
            let accepted = history.published.iter().enumerate().filter(|(_, published)| {
                reading.live_at(published.step) && matches(&reading.pattern, &published.to)
            });
            let accepted: Vec<_> = accepted.map(|(number, _)| number as u64).collect();
            prop_assert_eq!(reading.publishes(), accepted);
            prop_assert!(reading.ended && reading.stopped.is_some());
        }
    }

    /// The lists of every subscription are those of the model after every operation, and nothing is left over.
    #[test]
    fn the_bus_does_what_the_model_does(ops in tight()) {
        run(&ops);
    }
}
