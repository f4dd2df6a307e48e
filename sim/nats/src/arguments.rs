//! What stands behind the first word of a line.

use bytes::Bytes;

use crate::parser::is_blank;

/// A message whose body is still to come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Announced {
    pub(crate) subject: Bytes,
    pub(crate) reply: Option<Bytes>,
    /// How many of its bytes are headers, and that number as it was written; none without headers.
    pub(crate) headers: Option<(usize, Bytes)>,
    /// Its length, and that number as it was written: it is passed on like that.
    pub(crate) size: (usize, Bytes),
}

/// A subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) subject: Bytes,
    pub(crate) queue: Option<Bytes>,
    pub(crate) sid: Bytes,
}

/// The end of a subscription, at once or after so many messages in all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unwanted {
    pub(crate) sid: Bytes,
    pub(crate) after: Option<u64>,
}

impl Announced {
    /// The arguments of `PUB`; none if that is what they are not.
    pub(crate) fn parse(line: &Bytes) -> Option<Self> {
        let (subject, reply, size) = match &fields(line, is_blank)[..] {
            [subject, size] => (subject.clone(), None, size.clone()),
            [subject, reply, size] => (subject.clone(), Some(reply.clone()), size.clone()),
            _ => return None,
        };
        Some(Self { subject, reply, headers: None, size: (number(&size)?, size) })
    }

    /// The arguments of `HPUB`.
    pub(crate) fn parse_with_headers(line: &Bytes) -> Option<Self> {
        let (subject, reply, headers, size) = match &fields(line, is_blank)[..] {
            [subject, headers, size] => (subject.clone(), None, headers.clone(), size.clone()),
            [subject, reply, headers, size] => {
                (subject.clone(), Some(reply.clone()), headers.clone(), size.clone())
            }
            _ => return None,
        };
        let (headers_bytes, size_bytes) = (number(&headers)?, number(&size)?);
        if headers_bytes > size_bytes {
            return None;
        }
        let headers = (headers_bytes > 0).then_some((headers_bytes, headers));
        Some(Self { subject, reply, headers, size: (size_bytes, size) })
    }
}

impl Wanted {
    /// The arguments of `SUB`.
    pub(crate) fn parse(line: &Bytes) -> Option<Self> {
        let (subject, queue, sid) = match &fields(line, is_space)[..] {
            [subject, sid] => (subject.clone(), None, sid.clone()),
            [subject, queue, sid] => (subject.clone(), Some(queue.clone()), sid.clone()),
            _ => return None,
        };
        Some(Self { subject, queue, sid })
    }
}

impl Unwanted {
    /// The arguments of `UNSUB`. What is no number of messages means at once.
    pub(crate) fn parse(line: &Bytes) -> Option<Self> {
        let (sid, after) = match &fields(line, is_space)[..] {
            [sid] => (sid.clone(), None),
            [sid, after] => (sid.clone(), number(after)),
            _ => return None,
        };
        Some(Self { sid, after: after.and_then(|after| u64::try_from(after).ok()) })
    }
}

/// A number as lines have it: one to nine digits.
fn number(text: &[u8]) -> Option<usize> {
    const DIGITS_MAX: usize = 9;
    let is_number = (1..=DIGITS_MAX).contains(&text.len()) && text.iter().all(u8::is_ascii_digit);
    is_number.then(|| text.iter().fold(0, |number, digit| number * 10 + usize::from(digit - b'0')))
}

/// Subscriptions are read less strictly than messages.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

fn fields(line: &Bytes, is_between: impl Fn(u8) -> bool) -> Vec<Bytes> {
    line.split(|byte| is_between(*byte))
        .filter(|field| !field.is_empty())
        .map(|f| line.slice_ref(f))
        .collect()
}
