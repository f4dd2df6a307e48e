use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;

use crate::parse::reject_at;
use crate::{Error, Result, Subject};

/// The headers of a message: names with values. A name may occur more than once; its values keep their order,
/// names among each other need not.
///
/// Names are case-sensitive ASCII without space and `:`; values are text without line breaks and without
/// white space at either end.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Headers {
    /// Each name, and where its value ends in `values`.
    fields: Vec<(Cow<'static, str>, usize)>,
    values: String,
}

impl Headers {
    /// Room is made for values of this length: most are numbers.
    const VALUE_BYTES: usize = 8;

    /// No headers.
    pub fn new() -> Self {
        Self::default()
    }

    /// Room for a number of headers.
    pub fn with_capacity(headers: usize) -> Self {
        Self {
            fields: Vec::with_capacity(headers),
            values: String::with_capacity(headers * Self::VALUE_BYTES),
        }
    }

    /// Adds a header.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid) if the name or the value could not be sent as it is.
    pub fn append(&mut self, name: impl Into<Cow<'static, str>>, value: impl AsRef<str>) -> Result<()> {
        let (name, value) = (name.into(), value.as_ref());
        check_name(&name)?;
        check_value(value)?;
        self.push(name, value);
        Ok(())
    }

    /// Adds a header whose value is a decimal number. Costs less than making a text of it.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid) if the name could not be sent as it is.
    pub fn append_number(&mut self, name: impl Into<Cow<'static, str>>, value: u64) -> Result<()> {
        let name = name.into();
        check_name(&name)?;
        self.push(name, itoa::Buffer::new().format(value));
        Ok(())
    }

    fn push(&mut self, name: Cow<'static, str>, value: &str) {
        self.values.push_str(value);
        self.fields.push((name, self.values.len()));
    }

    /// The first value under a name.
    pub fn first(&self, name: &str) -> Option<&str> {
        let at = self.fields.iter().position(|(have, _)| have == name)?;
        let start = at.checked_sub(1).map_or(0, |before| self.fields[before].1);
        Some(&self.values[start..self.fields[at].1])
    }

    /// All headers, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let mut start = 0;
        self.fields.iter().map(move |(name, end)| {
            let value = &self.values[start..*end];
            start = *end;
            (name.as_ref(), value)
        })
    }

    /// Are there none?
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// Bytes that they take on the wire: each as `name: value` and a line break, inside the version line and
    /// the empty line of the NATS protocol. 0 without headers.
    pub fn wire_bytes(&self) -> usize {
        const FRAME: usize = "NATS/1.0\r\n\r\n".len();
        const LINE: usize = ": \r\n".len();
        if self.is_empty() {
            return 0;
        }
        FRAME + self.values.len() + self.fields.iter().map(|(name, _)| name.len() + LINE).sum::<usize>()
    }
}

fn check_name(name: &str) -> Result<()> {
    let bad = |b: u8| !b.is_ascii_graphic() || b == b':';
    // Without an early end: that is many bytes at a time, and hardly ever is one of them bad.
    if !name.bytes().fold(name.is_empty(), |found, b| found | bad(b)) {
        return Ok(());
    }
    let position = name.bytes().position(bad).unwrap_or(0);
    Err(reject_at("header name", name, position, "allowed: visible ASCII characters other than ':'"))
}

fn check_value(value: &str) -> Result<()> {
    if let Some(position) = value.bytes().position(|b| b == b'\r' || b == b'\n') {
        return Err(reject_at("header value", value, position, "a line break is not allowed"));
    }
    if value.trim() != value {
        let start = value.len() - value.trim_start().len();
        let position = if start > 0 { 0 } else { value.trim_end().len() };
        return Err(reject_at("header value", value, position, "white space at an end is not allowed"));
    }
    Ok(())
}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

/// A message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Where it goes.
    pub subject: Subject,
    /// Where an answer is awaited.
    pub reply: Option<Subject>,
    /// Its headers.
    pub headers: Headers,
    /// Its body; may be empty.
    pub payload: Bytes,
    /// Set by the broker alone (from a publisher it means nothing), on a message to the reply subject of a publish that nobody was subscribed to.
    pub no_responders: bool,
}

impl Message {
    /// A message without reply subject and headers.
    pub fn new(subject: Subject, payload: impl Into<Bytes>) -> Self {
        Self { subject, reply: None, headers: Headers::new(), payload: payload.into(), no_responders: false }
    }

    /// With a reply subject.
    #[must_use]
    pub fn with_reply(mut self, reply: Subject) -> Self {
        self.reply = Some(reply);
        self
    }

    /// With these headers.
    #[must_use]
    pub fn with_headers(mut self, headers: Headers) -> Self {
        self.headers = headers;
        self
    }

    /// What counts against the payload limit: headers and payload, in bytes.
    pub fn wire_bytes(&self) -> usize {
        self.headers.wire_bytes() + self.payload.len()
    }

    /// What every backend checks before it sends.
    ///
    /// # Errors
    /// [`Error::PayloadTooLarge`] with both figures if headers and payload together exceed the limit.
    pub fn check(&self, payload_bytes_max: usize) -> Result<()> {
        let actual = self.wire_bytes();
        if actual > payload_bytes_max {
            return Err(Error::payload_too_large(payload_bytes_max, actual));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every value stays under its name, in order, whatever was refused in between; what is refused leaves
    /// nothing.
    #[test]
    fn refused_headers_leave_nothing() {
        let mut headers = Headers::with_capacity(1);
        for (name, value, legal) in [
            ("a", "1", true),
            ("", "lost", false),
            ("b:", "lost", false),
            ("b", "", true),
            ("c", "lost\n", false),
            ("c", " lost", false),
            ("c", "lost ", false),
            ("a", "two é", true),
            ("é", "lost", false),
            ("d", "4", true),
        ] {
            assert_eq!(headers.append(name, value).is_ok(), legal, "{name:?}: {value:?}");
        }
        let all: Vec<_> = headers.iter().collect();
        assert_eq!(all, [("a", "1"), ("b", ""), ("a", "two é"), ("d", "4")]);
        assert_eq!(
            (headers.first("a"), headers.first("d"), headers.first("c")),
            (Some("1"), Some("4"), None)
        );
        let lines: usize = all.iter().map(|(name, value)| format!("{name}: {value}\r\n").len()).sum();
        assert!(headers.append_number("e:", 5).is_err());
        headers.append_number("e", u64::MAX).unwrap();
        assert_eq!(headers.first("e"), Some("18446744073709551615"));
        assert_eq!(
            headers.wire_bytes() - "e: 18446744073709551615\r\n".len(),
            "NATS/1.0\r\n\r\n".len() + lines
        );
    }

    /// Headers are equal when their names and values are, whatever their room and history.
    #[test]
    fn equal_headers_are_equal() {
        let mut one = Headers::with_capacity(9);
        let mut other = Headers::new();
        assert!(other.append("n", "x\n").is_err());
        for headers in [&mut one, &mut other] {
            headers.append_number("n", 12).unwrap();
        }
        assert_eq!(one, other);
        other.append("n", "").unwrap();
        assert_ne!(one, other);
        let (mut ab, mut ba) = (Headers::new(), Headers::new());
        for (first, second, headers) in [("a", "bc", &mut ab), ("ab", "c", &mut ba)] {
            headers.append("n", first).unwrap();
            headers.append("n", second).unwrap();
        }
        assert_ne!(ab, ba);
    }
}
