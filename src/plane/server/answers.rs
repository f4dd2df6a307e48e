//! What a worker answers to one request over the broker.

use std::sync::Arc;

use bytes::Bytes;
use slipring_core::service::EndpointStats;
use slipring_core::{BoxFuture, Effect, Error, Headers, Message, Result, Subject};

use super::{Job, Jobs};
use crate::plane::wire::{self, Answer, Ticket};
use crate::plane::worker::Worker;
use crate::platform::Platform;

/// Where the answers to one request over the broker go. When it is dropped, the request is over.
pub(crate) struct BrokerAnswers {
    platform: Arc<Platform>,
    stats: Arc<EndpointStats>,
    job: Arc<Job>,
    pub(super) reply: Subject,
    /// What the caller said with its request; none with a plain one.
    pub(super) ticket: Option<Ticket>,
    /// Items sent so far.
    sent: u64,
}

impl BrokerAnswers {
    pub(super) fn to(worker: &Worker, jobs: &Jobs, message: &Message) -> Result<Self> {
        let reply = message.reply.clone().ok_or_else(|| {
            Error::invalid("request", message.subject.as_str(), "it has no reply subject to answer at")
        })?;
        let ticket = Ticket::of(message);
        let job = Job::new(jobs, ticket, &reply);
        let (platform, stats) = (worker.platform().clone(), worker.stats().clone());
        Ok(Self { platform, stats, job, reply, ticket, sent: 0 })
    }

    pub(crate) fn job(&self) -> &Arc<Job> {
        &self.job
    }

    /// Waits until the caller takes another item.
    pub(crate) async fn room(&self) {
        self.job.credit_for(self.sent + 1).await;
    }

    /// Does the caller take so many items more?
    pub(crate) fn has_room_for(&self, items: u64) -> bool {
        self.job.has_credit_for(self.sent + items)
    }

    /// Sends the one item of a unary answer.
    pub(crate) async fn only(&mut self, item: Bytes) -> Result<()> {
        match self.ticket {
            // What any client expects.
            None => self.publish(item, Headers::new()).await.map_err(|error| error.raise(Effect::Applied)),
            Some(_) => self.items(&[item], true).await,
        }
    }

    /// Sends the next items of a stream, at least one; `last` if nothing follows.
    pub(crate) async fn items(&mut self, items: &[Bytes], last: bool) -> Result<()> {
        let sending = async {
            match self.ticket {
                Some(Ticket { call, .. }) => {
                    let payload = Answer::items(call, self.load(), self.sent + 1, items, last);
                    self.answer(payload).await
                }
                None => self.plain_items(items, last).await,
            }
        };
        sending.await.map_err(|error| error.raise(Effect::Applied))?;
        self.sent += items.len() as u64;
        Ok(())
    }

    /// A message each.
    async fn plain_items(&self, items: &[Bytes], last: bool) -> Result<()> {
        let mut number = self.sent;
        for item in items {
            number += 1;
            self.publish(item.clone(), wire::headers([(wire::ITEM, number)])).await?;
        }
        if last { self.plain_end(number).await } else { Ok(()) }
    }

    pub(crate) async fn end(&self) -> Result<()> {
        match self.ticket {
            Some(Ticket { call, .. }) => self.answer(Answer::end(call, self.load(), self.sent)).await,
            None => self.plain_end(self.sent).await,
        }
    }

    async fn plain_end(&self, count: u64) -> Result<()> {
        self.publish(Bytes::new(), wire::headers([(wire::END, count)])).await
    }

    pub(super) async fn alive(&self, alive: bool) {
        let Some(Ticket { call, .. }) = self.ticket else { return };
        let answering = self.answer(Answer::alive(call, self.load(), alive));
        if let Err(error) = self.platform.within("answering", answering).await {
            tracing::debug!(%error, "a probe was not answered");
        }
    }

    /// Sends the error. If that fails too, the caller finds out by asking.
    pub(crate) async fn fail(&self, error: &Error) {
        let answering = async {
            match self.ticket {
                Some(Ticket { call, .. }) => self.answer(Answer::failed(call, self.load(), error)).await,
                None => self.plain_failure(error).await,
            }
        };
        if let Err(failed) = self.platform.within("answering", answering).await {
            tracing::debug!(%error, %failed, "an error was not delivered");
        }
    }

    async fn plain_failure(&self, error: &Error) -> Result<()> {
        let mut headers = Headers::with_capacity(3);
        headers.append(wire::ERROR, error.code())?;
        // As clients of NATS services expect it.
        headers.append("Nats-Service-Error", error.to_string().replace(['\r', '\n'], " ").trim())?;
        headers.append("Nats-Service-Error-Code", "500")?;
        self.publish(wire::encode_failure(error).into(), headers).await
    }

    /// How many requests are in flight beside this one.
    fn load(&self) -> u64 {
        self.stats.in_flight().saturating_sub(1)
    }

    fn answer(&self, payload: Vec<u8>) -> BoxFuture<'_, Result<()>> {
        self.publish(payload.into(), Headers::new())
    }

    /// No `async fn`: it would keep room for its arguments in the task of every request.
    fn publish(&self, payload: Bytes, headers: Headers) -> BoxFuture<'_, Result<()>> {
        self.platform.publish(Message::new(self.reply.clone(), payload).with_headers(headers))
    }
}

impl Drop for BrokerAnswers {
    fn drop(&mut self) {
        self.job.unlist();
    }
}
