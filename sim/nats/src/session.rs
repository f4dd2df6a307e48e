//! What one client says, and what it is answered: the protocol, without I/O.

use std::sync::Arc;

use bytes::Bytes;
use slipring_memory::ConnectionId;
use tokio::time::Instant;

use crate::arguments::{Announced, Unwanted, Wanted};
use crate::connect::Connect;
use crate::info::Info;
use crate::options::{Access, Options, Version};
use crate::parser::{Fault, Input, Parser, Verb};
use crate::router::{Refusal, Router};

/// One connection, from what it says first.
pub(crate) struct Session {
    options: Options,
    info: Arc<Info>,
    /// Where it comes from, and the how manieth it is.
    from: (String, u64),
    id: ConnectionId,
    parser: Parser,
    /// Its wishes.
    connect: Connect,
    is_connected: bool,
    /// Was it answered since it is connected?
    was_answered: bool,
    /// A message whose body is still to come.
    announced: Option<Announced>,
}

/// The connection is to be closed. Why was told, where nats-server tells it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Closed;

/// How it went: does a receiver not keep up?
type Handled = Result<bool, Closed>;

impl Session {
    pub(crate) fn new(options: Options, info: Arc<Info>, from: (String, u64), id: ConnectionId) -> Self {
        let parser = Parser::new(options.line_bytes_max);
        Self {
            options,
            info,
            from,
            id,
            parser,
            connect: Connect::default(),
            is_connected: false,
            was_answered: false,
            announced: None,
        }
    }

    /// What is said to everybody who comes.
    pub(crate) fn greet(&self, router: &mut Router) {
        let info = self.info.line(&self.options, self.from.1, &self.from.0, false);
        router.tell(self.id, &info);
    }

    /// Takes what the client says now, and answers it.
    ///
    /// # Errors
    /// Nothing more is to be taken from it.
    pub(crate) fn handle(&mut self, now: Instant, bytes: &[u8], router: &mut Router) -> Handled {
        router.client(self.id).pulse.heard = now;
        self.parser.feed(bytes);
        let mut is_behind = false;
        loop {
            let is_known = self.is_connected || self.options.access == Access::Open;
            is_behind |= match self.parser.next(is_known) {
                Ok(Some(Input::Line(verb, line))) => self.line(now, verb, &line, router)?,
                Ok(Some(Input::Body(body))) => self.body(body, router),
                Ok(None) => return Ok(is_behind),
                Err(fault) => {
                    let text = match fault {
                        Fault::Nonsense => "Unknown Protocol Operation",
                        Fault::TooLong => "maximum control line exceeded",
                        Fault::Stranger => "Authorization Violation",
                    };
                    return Err(self.refuse(text, router));
                }
            };
        }
    }

    fn line(&mut self, now: Instant, verb: Verb, line: &Bytes, router: &mut Router) -> Handled {
        match verb {
            Verb::Connect => self.connect(now, line, router)?,
            Verb::Ping => self.answer(router),
            Verb::Pong => router.client(self.id).pulse.pings = 0,
            Verb::Okay => {}
            Verb::Info => {
                serde_json::from_slice::<Option<serde_json::Map<_, _>>>(line).map_err(|_| Closed)?;
            }
            // Whoever complains is let go.
            Verb::Error => return Err(Closed),
            Verb::Publish => {
                let announced = Announced::parse(line).ok_or(Closed)?;
                self.announce(announced, router)?;
            }
            Verb::HeaderPublish if self.connect.headers => {
                let announced = Announced::parse_with_headers(line).ok_or(Closed)?;
                self.announce(announced, router)?;
            }
            Verb::HeaderPublish => return Err(Closed),
            Verb::Subscribe => {
                let wanted = Wanted::parse(line).ok_or(Closed)?;
                self.subscribe(&wanted, router);
            }
            Verb::Unsubscribe => {
                let unwanted = Unwanted::parse(line).ok_or(Closed)?;
                router.unsubscribe(self.id, &unwanted);
                self.acknowledge(router);
            }
        }
        Ok(false)
    }

    fn connect(&mut self, now: Instant, line: &[u8], router: &mut Router) -> Result<(), Closed> {
        self.connect.update(line).ok_or(Closed)?;
        if self.is_connected && self.options.version == Version::V2_15 {
            router.clear(self.id);
        }
        if !self.connect.is_admitted(&self.options.access) {
            return Err(self.refuse("Authorization Violation", router));
        }
        self.is_connected = true;
        router.client(self.id).pulse.connected = Some(now);
        let Connect { headers, no_responders, echo, protocol, .. } = self.connect;
        if !(0..=1).contains(&protocol) {
            return Err(self.refuse("invalid client protocol", router));
        }
        if no_responders && !headers {
            return Err(self.refuse("no responders requires headers support", router));
        }
        router.set_wishes(self.id, headers, no_responders, echo);
        self.acknowledge(router);
        Ok(())
    }

    fn answer(&mut self, router: &mut Router) {
        router.tell(self.id, "PONG\r\n");
        let is_first = self.is_connected && !std::mem::replace(&mut self.was_answered, self.is_connected);
        if is_first && self.options.version == Version::V2_15 && self.connect.protocol >= 1 {
            let info = self.info.line(&self.options, self.from.1, &self.from.0, true);
            router.tell(self.id, &info);
        }
    }

    fn announce(&mut self, announced: Announced, router: &mut Router) -> Result<(), Closed> {
        let bytes = announced.size.0;
        if bytes > self.options.payload_bytes_max {
            return Err(self.refuse("Maximum Payload Violation", router));
        }
        if self.connect.pedantic && !is_literal(&announced.subject) {
            self.complain("Invalid Publish Subject", router);
        }
        self.announced = Some(announced);
        self.parser.expect_body(bytes);
        Ok(())
    }

    fn body(&mut self, body: Bytes, router: &mut Router) -> bool {
        let announced = self.announced.take().expect("a body is expected of an announced message alone");
        if let Some(reserved) = self.reserved(&announced) {
            self.complain(&reserved, router);
            return false;
        }
        self.acknowledge(router);
        router.publish(self.id, &announced, body)
    }

    /// What servers keep for themselves.
    fn reserved(&self, announced: &Announced) -> Option<String> {
        let newer = self.options.version == Version::V2_15;
        let begins = |text: &[u8], with: &str| text.len() > with.len() && text.starts_with(with.as_bytes());
        let subject = &announced.subject;
        let is_routed = |text: &[u8]| begins(text, "_GR_.") || (newer && begins(text, "$GR."));
        if is_routed(subject) || (newer && subject.starts_with(b"$NRG.")) {
            return Some(format!("Permissions Violation for Publish to {}", quoted(subject)));
        }
        let reply = announced.reply.as_ref()?;
        let is_reserved = reply.starts_with(b"_R_.") || begins(reply, "$JS.ACK.") || is_routed(reply);
        is_reserved.then(|| format!("Permissions Violation for Publish with Reply of {}", quoted(reply)))
    }

    fn subscribe(&mut self, wanted: &Wanted, router: &mut Router) {
        if let Some(queue @ b"_sys_") = wanted.queue.as_deref() {
            let (subject, queue) = (quoted(&wanted.subject), quoted(queue));
            let text = format!("Permissions Violation for Subscription to {subject} using queue {queue}");
            return self.complain(&text, router);
        }
        match router.subscribe(self.id, wanted) {
            Ok(()) => self.acknowledge(router),
            Err(Refusal::Malformed) => self.complain("Invalid Subject", router),
            Err(Refusal::LateWildcard) => self.complain("Not Simulated: A Wildcard After 60 Tokens", router),
            Err(Refusal::TooMany) => self.complain("maximum subscriptions exceeded", router),
        }
    }

    fn acknowledge(&self, router: &mut Router) {
        if self.connect.verbose {
            router.tell(self.id, "+OK\r\n");
        }
    }

    fn complain(&self, text: &str, router: &mut Router) {
        router.tell(self.id, &format!("-ERR '{text}'\r\n"));
    }

    fn refuse(&self, text: &str, router: &mut Router) -> Closed {
        self.complain(text, router);
        Closed
    }
}

/// Is every token there, and none a wildcard?
fn is_literal(subject: &[u8]) -> bool {
    subject.split(|byte| *byte == b'.').all(|token| !matches!(token, b"" | b"*" | b">"))
}

/// As nats-server quotes names.
fn quoted(text: &[u8]) -> String {
    format!("\"{}\"", String::from_utf8_lossy(text).replace('\\', "\\\\").replace('"', "\\\""))
}
