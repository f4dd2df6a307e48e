//! What a worker answers to one request.

use std::sync::Arc;

use bytes::Bytes;
use slipring_core::service::EndpointStats;
use slipring_core::{Effect, Error, Headers, Message, Result, Subject};

use crate::plane::wire;
use crate::platform::Platform;

/// Where the answers to one request go.
pub(super) struct Answers {
    platform: Arc<Platform>,
    stats: Arc<EndpointStats>,
    pub(super) reply: Subject,
    /// The caller's number; none for a plain request.
    pub(super) call: Option<u64>,
    /// Items sent so far.
    pub(super) sent: u64,
}

impl Answers {
    pub(super) fn to(
        platform: &Arc<Platform>,
        stats: &Arc<EndpointStats>,
        message: &Message,
    ) -> Result<Self> {
        let reply = message.reply.clone().ok_or_else(|| {
            Error::invalid("request", message.subject.as_str(), "it has no reply subject to answer at")
        })?;
        let call = wire::number(&message.headers, wire::CALL)?;
        Ok(Self { platform: platform.clone(), stats: stats.clone(), reply, call, sent: 0 })
    }

    pub(super) async fn item(&mut self, payload: Bytes, last: bool) -> Result<()> {
        let number = self.sent + 1;
        let headers = match self.call {
            // Plain and whole: what any client expects.
            None if last => Headers::new(),
            None => wire::headers([(wire::ITEM, number)]),
            Some(call) if last => wire::headers([
                (wire::CALL, call),
                (wire::ITEM, number),
                (wire::END, number),
                (wire::LOAD, self.load()),
            ]),
            Some(call) => wire::headers([(wire::CALL, call), (wire::ITEM, number)]),
        };
        self.publish(payload, headers).await.map_err(|error| error.raise(Effect::Applied))?;
        self.sent = number;
        Ok(())
    }

    pub(super) async fn end(&self) -> Result<()> {
        let mut headers = wire::headers([(wire::END, self.sent), (wire::LOAD, self.load())]);
        self.name_call(&mut headers)?;
        self.publish(Bytes::new(), headers).await
    }

    pub(super) async fn alive(&self, alive: bool) {
        let answer = if alive { "yes" } else { "no" };
        let mut headers = wire::headers([(wire::LOAD, self.load())]);
        let named = headers.append(wire::ALIVE, answer).and_then(|()| self.name_call(&mut headers));
        let sent = match named {
            Ok(()) => self.platform.within("answering", self.publish(Bytes::new(), headers)).await,
            Err(error) => Err(error),
        };
        if let Err(error) = sent {
            tracing::debug!(%error, "a probe was not answered");
        }
    }

    /// Sends the error. If that fails too, the caller finds out by asking.
    pub(super) async fn fail(&self, error: &Error) {
        let mut headers = wire::headers([(wire::LOAD, self.load())]);
        let named = headers.append(wire::ERROR, error.code()).and_then(|()| match self.call {
            Some(_) => self.name_call(&mut headers),
            // As clients of NATS services expect it.
            None => headers
                .append("Nats-Service-Error", error.to_string().replace(['\r', '\n'], " ").trim())
                .and_then(|()| headers.append("Nats-Service-Error-Code", "500")),
        });
        let sent = match named {
            Ok(()) => {
                let answering = self.publish(wire::encode_failure(error).into(), headers);
                self.platform.within("answering", answering).await
            }
            Err(error) => Err(error),
        };
        if let Err(failed) = sent {
            tracing::debug!(%error, %failed, "an error was not delivered");
        }
    }

    fn name_call(&self, headers: &mut Headers) -> Result<()> {
        match self.call {
            None => Ok(()),
            Some(call) => headers.append_number(wire::CALL, call),
        }
    }

    /// How many requests are in flight beside this one.
    fn load(&self) -> u64 {
        self.stats.in_flight().saturating_sub(1)
    }

    async fn publish(&self, payload: Bytes, headers: Headers) -> Result<()> {
        let message = Message::new(self.reply.clone(), payload).with_headers(headers);
        self.platform.messaging.publish(message).await
    }
}
