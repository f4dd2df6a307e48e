//! A sequence of steps, done to two buses in turn, whose answers and messages have to be the same.

use std::collections::BTreeMap;
use std::fmt::Debug;

use slipring_core::{Headers, Message, Pattern, Subject};

use crate::agreement::{Counts, Divergence, differ};
use crate::side::{Answer, Item, Side};
use crate::step::{Body, Step, Wanted, inbox};

/// The kinds of answers that all sequences together have to have shown.
pub(crate) const KINDS: [&str; 10] = [
    "deadline_exceeded",
    "done",
    "members",
    "messages",
    "missed",
    "no responders",
    "no_responders",
    "replied",
    "took",
    "unavailable",
];

/// Two buses, the first of them the model.
pub(crate) struct Contest {
    sides: [Side; 2],
    payload_bytes_max: usize,
    subscribed: Vec<Wanted>,
    /// The handles and patterns of those who answer.
    servers: Vec<(usize, Pattern)>,
    published: u64,
    counts: Counts,
}

impl Contest {
    pub(crate) fn new(sides: [Side; 2], payload_bytes_max: usize) -> Self {
        let (subscribed, servers, counts) = (Vec::new(), Vec::new(), Counts::new());
        Self { sides, payload_bytes_max, subscribed, servers, published: 0, counts }
    }

    /// Does all steps, then reads every subscription to its end.
    pub(crate) async fn run(mut self, steps: &[Step]) -> Result<Counts, Divergence> {
        for step in steps {
            self.step(step).await?;
        }
        self.finish().await?;
        Ok(self.counts)
    }

    async fn step(&mut self, step: &Step) -> Result<(), Divergence> {
        let [one, other] = &mut self.sides;
        match step {
            Step::Subscribe(wanted) => self.subscribe(wanted).await?,
            Step::Inbox(handle) => {
                let pattern = inbox(*handle);
                if self.subscribed.iter().all(|wanted| wanted.pattern != pattern) {
                    let wanted = Wanted { handle: *handle, pattern, queue: None, messages_max: None };
                    self.subscribe(&wanted).await?;
                }
            }
            Step::Serve { handle, pattern } => {
                let answers = [one.serve(*handle, pattern).await, other.serve(*handle, pattern).await];
                if self.compare(step, answers)? == Answer::Done {
                    self.servers.push((*handle, Pattern::new(pattern).unwrap()));
                }
            }
            Step::Publish { handle, to, reply, headers, body } => {
                let mut message = Message::new(one.subject(to), "");
                message.reply = reply.then(|| one.subject(&inbox(*handle)));
                headers.iter().for_each(|(name, value)| message.headers.append(*name, value).unwrap());
                let message = self.with_body(message, body);
                let [one, other] = &self.sides;
                let answers =
                    [one.publish(*handle, message.clone()).await, other.publish(*handle, message).await];
                self.compare(step, answers)?;
            }
            Step::Request { handle, to, body } => {
                let mut message = Message::new(one.subject(to), "");
                // The mark that every request bears counts as well.
                message.headers = asked();
                let mut message = self.with_body(message, body);
                message.headers = Headers::new();
                let to = Subject::new(to).unwrap();
                let answered = self.servers.iter().any(|(_, pattern)| pattern.matches(&to));
                let [one, other] = &self.sides;
                let answers = [
                    one.request(*handle, message.clone(), answered).await,
                    other.request(*handle, message, answered).await,
                ];
                self.compare(step, answers)?;
            }
            Step::Take(subscription) => self.take(step, *subscription).await?,
            Step::Stop(subscription) => {
                if *subscription < self.subscribed.len() {
                    for side in &mut self.sides {
                        side.stop(*subscription).await;
                    }
                }
            }
            Step::Drop(subscription) => self.discard(*subscription).await,
            Step::Close(handle) => {
                let answers = [one.close(*handle).await, other.close(*handle).await];
                self.servers.retain(|(of, _)| of != handle);
                self.compare(step, answers)?;
            }
        }
        Ok(())
    }

    async fn subscribe(&mut self, wanted: &Wanted) -> Result<(), Divergence> {
        let [one, other] = &mut self.sides;
        let answers = [one.subscribe(wanted).await, other.subscribe(wanted).await];
        if self.compare(wanted, answers)? == Answer::Done {
            self.subscribed.push(wanted.clone());
        }
        Ok(())
    }

    /// Takes from the other what the model has. What the other has and the model has not is found in the end.
    async fn take(&mut self, step: &Step, subscription: usize) -> Result<(), Divergence> {
        // Of a group each member has what chance gave it; and where something was missed, it is a matter of
        // time what there was room for.
        let plain = |wanted: &&Wanted| wanted.queue.is_none() && wanted.messages_max.is_none();
        if self.subscribed.get(subscription).filter(plain).is_none() {
            return Ok(());
        }
        let [one, other] = &mut self.sides;
        let model = one.take(subscription, false).await;
        if model != Answer::Took(None) {
            let answers = [model, other.take(subscription, true).await];
            self.compare(step, answers)?;
        }
        Ok(())
    }

    /// What a member of a group has and did not read would be lost, which is a matter of chance: it stays.
    async fn discard(&mut self, subscription: usize) {
        if self.subscribed.get(subscription).is_some_and(|wanted| wanted.queue.is_none()) {
            for side in &mut self.sides {
                side.discard(subscription).await;
            }
        }
    }

    async fn finish(&mut self) -> Result<(), Divergence> {
        let [one, other] = &mut self.sides;
        let [one, other] = [one.finish().await, other.finish().await];
        let mut groups: BTreeMap<&str, [Vec<Item>; 2]> = BTreeMap::new();
        for ((wanted, one), other) in self.subscribed.iter().zip(one).zip(other) {
            let (Some(one), Some(other)) = (one, other) else { continue };
            for item in &one {
                *self.counts.entry(kind(item)).or_default() += 1;
            }
            match (wanted.queue, wanted.messages_max) {
                (Some(queue), _) => {
                    let [all_one, all_other] = groups.entry(queue).or_default();
                    // Each member has its share in order.
                    differ(wanted, &is_in_order(&one), &is_in_order(&other))?;
                    all_one.extend(one);
                    all_other.extend(other);
                }
                (None, Some(messages_max)) => {
                    differ(wanted, &kept(&one, messages_max), &kept(&other, messages_max))?;
                }
                (None, None) => differ(wanted, &one, &other)?,
            }
        }
        for (queue, [mut one, mut other]) in groups {
            *self.counts.entry("members").or_default() += 1;
            one.sort();
            other.sort();
            differ(&format!("what the members of {queue} got together"), &one, &other)?;
        }
        Ok(())
    }

    /// Gives a message its number and its size.
    fn with_body(&mut self, mut message: Message, body: &Body) -> Message {
        self.published += 1;
        let number = format!("{:06}", self.published);
        message.payload = match body {
            Body::Empty => "".into(),
            Body::Short => number.into(),
            Body::Limit(more) => {
                let room = self.payload_bytes_max - message.headers.wire_bytes();
                let mut payload = number.into_bytes();
                payload.resize(room.saturating_add_signed(*more), b'.');
                payload.into()
            }
        };
        message
    }

    fn compare(&mut self, what: &impl Debug, answers: [Answer; 2]) -> Result<Answer, Divergence> {
        let [one, other] = answers;
        differ(what, &one, &other)?;
        *self.counts.entry(one.kind()).or_default() += 1;
        Ok(one)
    }
}

fn asked() -> Headers {
    let mut headers = Headers::new();
    headers.append("asked", "yes").unwrap();
    headers
}

fn kind(item: &Item) -> &'static str {
    match item {
        Item::Message { no_responders: false, .. } => "messages",
        Item::Message { .. } => "no responders",
        Item::Missed(_) => "missed",
        Item::Failed(_) => "failed",
    }
}

/// Do the numbered messages come in the order in which they were published?
fn is_in_order(items: &[Item]) -> bool {
    let numbers = items.iter().filter_map(|item| match item {
        Item::Message { payload, .. } if !payload.is_empty() => Some(&payload[..6]),
        _ => None,
    });
    numbers.is_sorted()
}

/// What a subscription with little room has for certain: the oldest messages, and how many there were in all.
fn kept(items: &[Item], messages_max: usize) -> (Vec<Item>, u64) {
    let all = items.iter().map(|item| match item {
        Item::Missed(missed) => *missed,
        Item::Message { .. } | Item::Failed(_) => 1,
    });
    (items.iter().take(messages_max).cloned().collect(), all.sum())
}
