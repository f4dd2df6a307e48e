//! What travels on the broker plane.
//!
//! *A request* is the bare codec bytes. What makes it one of ours is its [`Ticket`], in the last token of its
//! reply subject; a request without one is a plain one, from any client of the broker, and is answered with bare
//! bytes. Control messages and the user's metadata are in headers: few messages have them.
//!
//! *An answer* to one of our requests begins with a line of words, see [`Answer`]. Headers would be the more
//! usual place, but clients of brokers are slow at them: on NATS the six that a unary call had cost more than
//! all the rest of it.

mod answer;
mod failure;

use std::time::Duration;

use slipring_core::{Error, Headers, Message, Result, Subject};

pub(crate) use self::answer::{Answer, AnswerKind, Items, call_of};
pub(crate) use self::failure::{decode_failure, encode_failure};

/// The ticket of a request, where a broker without wildcards leaves no room for it in the reply subject.
pub(crate) const CALL: &str = "Slipring-Call";
/// From the caller, in place of a request: `probe` or `cancel`.
pub(crate) const CONTROL: &str = "Slipring-Control";
/// With a control: how many items the caller takes in all, counted from the first. Cumulative, so that a lost
/// message does no harm.
pub(crate) const CREDIT: &str = "Slipring-Credit";
/// On a request: the beginning of the names of the user's metadata.
pub(crate) const METADATA: &str = "Slipring-Meta-";
/// On an item for a plain caller: its number, from 1.
pub(crate) const ITEM: &str = "Slipring-Item";
/// On the answer that ends a stream for a plain caller: the number of items in all.
pub(crate) const END: &str = "Slipring-End";
/// On an answer to a plain caller: the code of an error, whose particulars are the payload.
pub(crate) const ERROR: &str = "Slipring-Error";
/// On a request: where its caller may be answered over a connection.
pub(crate) const HOME: &str = "Slipring-Home";
/// W3C trace context.
pub(crate) const TRACEPARENT: &str = "traceparent";
/// W3C trace context.
pub(crate) const TRACESTATE: &str = "tracestate";

/// What a caller says with its request. Written as one token, `7~10000~256`: no client's inbox looks like that
/// by accident.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ticket {
    /// The call's number, unique at its inbox.
    pub(crate) call: u64,
    /// What is left of its deadline.
    pub(crate) deadline: Duration,
    /// How many items the caller takes in all, until it says more.
    pub(crate) credit: u64,
}

impl Ticket {
    const SEPARATOR: char = '~';

    /// The ticket of a message, if it is one of ours.
    pub(crate) fn of(message: &Message) -> Option<Self> {
        if let Some(text) = message.headers.first(CALL) {
            return Self::parse(text);
        }
        message.reply.as_ref().and_then(Self::at)
    }

    /// The ticket that a subject ends in.
    pub(crate) fn at(subject: &Subject) -> Option<Self> {
        let (_, last) = subject.as_str().rsplit_once('.')?;
        Self::parse(last)
    }

    /// Writes it.
    pub(crate) fn token(&self) -> String {
        // Rounded up: the worker must not give a call up before its caller would.
        let millis = u64::try_from(self.deadline.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX);
        let mut token = String::with_capacity(24);
        let mut number = itoa::Buffer::new();
        token.push_str(number.format(self.call));
        token.push(Self::SEPARATOR);
        token.push_str(number.format(millis));
        token.push(Self::SEPARATOR);
        token.push_str(number.format(self.credit));
        token
    }

    fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.split(Self::SEPARATOR).map(str::parse);
        let (call, millis, credit) = (numbers.next()?.ok()?, numbers.next()?.ok()?, numbers.next()?.ok()?);
        numbers.next().is_none().then_some(Self { call, deadline: Duration::from_millis(millis), credit })
    }
}

/// What a caller says about a call that is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Control {
    /// Is it alive? Also carries the credit.
    Probe,
    /// It is given up.
    Cancel,
}

impl Control {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Probe => "probe",
            Self::Cancel => "cancel",
        }
    }

    /// The control of a message, if it is one. An unknown one is of a later version and counts as a probe,
    /// which does nothing but answer.
    pub(crate) fn of(headers: &Headers) -> Option<Self> {
        headers
            .first(CONTROL)
            .map(|name| if name == Self::Cancel.name() { Self::Cancel } else { Self::Probe })
    }
}

/// A header that holds a number, if it is there.
///
/// # Errors
/// `Invalid` if it holds something else.
pub(crate) fn number(headers: &Headers, name: &'static str) -> Result<Option<u64>> {
    let Some(text) = headers.first(name) else { return Ok(None) };
    text.parse().map(Some).map_err(|_| Error::invalid(name, text, "allowed: a decimal number below 2^64"))
}

/// Headers of our own that hold numbers, with room for two more.
pub(crate) fn headers<const N: usize>(numbers: [(&'static str, u64); N]) -> Headers {
    let mut headers = Headers::with_capacity(N + 2);
    for (name, number) in numbers {
        headers.append_number(name, number).expect("our own names are legal");
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A ticket is read as it was written, and nothing that other clients ask with is taken for one.
    #[test]
    fn tickets_are_read_as_written_and_told_from_other_inboxes() {
        for (call, millis, credit) in [(0, 0, 0), (7, 10_000, 256), (u64::MAX, u64::MAX, u64::MAX)] {
            let ticket = Ticket { call, deadline: Duration::from_millis(millis), credit };
            let reply = Subject::new("_INBOX.a").unwrap().with_token(&ticket.token()).unwrap();
            assert_eq!(Ticket::at(&reply), Some(ticket));
            let mut request = Message::new("worker".parse().unwrap(), "");
            assert_eq!(Ticket::of(&request), None);
            request.headers.append(CALL, ticket.token()).unwrap();
            assert_eq!(Ticket::of(&request.with_reply("inbox".parse().unwrap())), Some(ticket));
        }
        for other in
            ["_INBOX.Ab3dEf", "_INBOX.a.1", "7~1~2", "a.7~1", "a.7~1~2~3", "a.7~1~", "a.7~1~x", "a.7~-1~2"]
        {
            assert_eq!(Ticket::at(&Subject::new(other).unwrap()), None, "{other}");
        }
    }
}
