use std::borrow::Cow;

use bytes::Bytes;

use crate::parse::reject_at;
use crate::{Error, Result, Subject};

/// The headers of a message: names with values. A name may occur more than once; its values keep their order,
/// names among each other need not.
///
/// Names are case-sensitive ASCII without space and `:`; values are text without line breaks and without
/// white space at either end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Headers(Vec<(Cow<'static, str>, String)>);

impl Headers {
    /// No headers.
    pub fn new() -> Self {
        Self::default()
    }

    /// Room for a number of headers.
    pub fn with_capacity(headers: usize) -> Self {
        Self(Vec::with_capacity(headers))
    }

    /// Adds a header.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid) if the name or the value could not be sent as it is.
    pub fn append(&mut self, name: impl Into<Cow<'static, str>>, value: impl Into<String>) -> Result<()> {
        let (name, value) = (name.into(), value.into());
        let bad_name = name.bytes().position(|b| !b.is_ascii_graphic() || b == b':');
        if let Some(position) = bad_name.or(name.is_empty().then_some(0)) {
            let problem = "allowed: visible ASCII characters other than ':'";
            return Err(reject_at("header name", &name, position, problem));
        }
        if let Some(position) = value.bytes().position(|b| b == b'\r' || b == b'\n') {
            return Err(reject_at("header value", &value, position, "a line break is not allowed"));
        }
        if value.trim() != value {
            let start = value.len() - value.trim_start().len();
            let position = if start > 0 { 0 } else { value.trim_end().len() };
            return Err(reject_at("header value", &value, position, "white space at an end is not allowed"));
        }
        self.0.push((name, value));
        Ok(())
    }

    /// The first value under a name.
    pub fn first(&self, name: &str) -> Option<&str> {
        self.iter().find(|(have, _)| *have == name).map(|(_, value)| value)
    }

    /// All headers, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_ref(), value.as_str()))
    }

    /// Are there none?
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Bytes that they take on the wire: each as `name: value` and a line break, inside the version line and
    /// the empty line of the NATS protocol. 0 without headers.
    pub fn wire_bytes(&self) -> usize {
        const FRAME: usize = "NATS/1.0\r\n\r\n".len();
        const LINE: usize = ": \r\n".len();
        if self.0.is_empty() {
            return 0;
        }
        FRAME + self.0.iter().map(|(name, value)| name.len() + value.len() + LINE).sum::<usize>()
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
