//! Steps to draw. All subjects lie below one token, which is each sequence's own.
//!
//! That nobody was there is told differently: nats-server tells one plain subscription of the publisher's own
//! connection, the simulator everybody who listens there. So every handle has answers come to an inbox of its
//! own, to which nobody else listens.

use proptest::collection::vec;
use proptest::prelude::*;

/// How many handles a side has; the first and the last share a connection.
pub(crate) const HANDLES: usize = 3;

#[derive(Debug, Clone)]
pub(crate) enum Step {
    Subscribe(Wanted),
    /// Listens to the inbox of a handle, if nobody does yet.
    Inbox(usize),
    /// A subscription that answers requests, and nothing else.
    Serve {
        handle: usize,
        pattern: String,
    },
    Publish {
        handle: usize,
        to: String,
        /// Does an answer have to come to the inbox of the handle?
        reply: bool,
        headers: Vec<(&'static str, &'static str)>,
        body: Body,
    },
    Request {
        handle: usize,
        to: String,
        body: Body,
    },
    /// Take what a subscription has by now.
    Take(usize),
    Stop(usize),
    Drop(usize),
    Close(usize),
}

#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub handle: usize,
    pub pattern: String,
    pub queue: Option<&'static str>,
    /// A bound that is soon reached, or one that never is.
    pub messages_max: Option<usize>,
}

#[derive(Debug, Clone)]
pub(crate) enum Body {
    Empty,
    Short,
    /// So many bytes more than the limit, headers included.
    Limit(isize),
}

/// Few names, so that they meet often; some only look like wildcards, some are what subjects may hold besides.
const TOKENS: [&str; 8] = ["a", "b", "A", "a*", ">a", "é|/:", "$SYS", "_"];

fn subject() -> impl Strategy<Value = String> {
    let token = prop_oneof![5 => prop::sample::select(&TOKENS[..2]), 2 => prop::sample::select(&TOKENS[..])];
    let long = "t".repeat(200);
    prop_oneof![
        30 => vec(token, 1..4).prop_map(|tokens| tokens.join(".")),
        1 => Just(long),
    ]
    .prop_map(|subject| format!("m.{subject}"))
}

fn pattern() -> impl Strategy<Value = String> {
    let token = prop_oneof![
        5 => prop::sample::select(&TOKENS[..2]),
        2 => prop::sample::select(&TOKENS[..]),
        3 => Just("*"),
    ];
    (vec(token, 0..4), prop::bool::weighted(0.4)).prop_map(|(mut tokens, rest)| {
        if rest || tokens.is_empty() {
            tokens.push(">");
        }
        format!("m.{}", tokens.join("."))
    })
}

/// Where a handle awaits answers.
pub(crate) fn inbox(handle: usize) -> String {
    format!("inbox{handle}")
}

fn wanted() -> impl Strategy<Value = Wanted> {
    let queue = prop::option::of(prop::sample::select(&["q", "q.*", "é|>"][..]));
    let messages_max = prop::option::weighted(0.2, 1_usize..4);
    (0..HANDLES, pattern(), queue, messages_max).prop_map(|(handle, pattern, queue, messages_max)| {
        // Which member of a group a message goes to is random; none of them may lose one.
        let messages_max = messages_max.filter(|_| queue.is_none());
        Wanted { handle, pattern, queue, messages_max }
    })
}

fn body() -> impl Strategy<Value = Body> {
    prop_oneof![
        40 => Just(Body::Short),
        10 => Just(Body::Empty),
        1 => (-1_isize..2).prop_map(Body::Limit),
    ]
}

fn headers() -> impl Strategy<Value = Vec<(&'static str, &'static str)>> {
    let name = prop::sample::select(&["a", "A", "Nats-Expected", "x-y_z.!#$%&'*+^`|~"][..]);
    let value = prop::sample::select(&["", "1", "two words", "é: \u{10ffff}", "a\tb"][..]);
    prop_oneof![2 => Just(Vec::new()), 1 => vec((name, value), 0..4)]
}

fn step() -> impl Strategy<Value = Step> {
    let publish = (0..HANDLES, subject(), prop::bool::weighted(0.3), headers(), body());
    prop_oneof![
        6 => wanted().prop_map(Step::Subscribe),
        2 => (0..HANDLES).prop_map(Step::Inbox),
        1 => (0..HANDLES, pattern()).prop_map(|(handle, pattern)| Step::Serve { handle, pattern }),
        16 => publish.prop_map(|(handle, to, reply, headers, body)| Step::Publish {
            handle, to, reply, headers, body,
        }),
        2 => (0..HANDLES, subject(), body()).prop_map(|(handle, to, body)| Step::Request { handle, to, body }),
        4 => (0_usize..8).prop_map(Step::Take),
        2 => (0_usize..8).prop_map(Step::Stop),
        2 => (0_usize..8).prop_map(Step::Drop),
        1 => (0..HANDLES).prop_map(Step::Close),
    ]
}

/// A sequence.
pub(crate) fn steps() -> impl Strategy<Value = Vec<Step>> {
    vec(step(), 1..40)
}
