use std::fmt;
use std::future::poll_fn;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use serde::de::DeserializeOwned;
use slipring_core::{Effect, Environment, Error, Fact, Result};
use tokio::time::Instant;

use crate::alarm::Alarm;
use crate::codec::Codec;
use crate::plane::incoming::Incoming;
use crate::platform::Platform;
use crate::registry::{Busy, Instance};

/// The items of one response, as a stream.
///
/// `None` means that the end was announced and every item was yielded; anything else ends in an error, which
/// is the last item. At the deadline it ends, even if items wait to be read; only a response that was complete
/// by then may be read later. Dropping it gives the call up, and the handler at the far end is cancelled.
pub struct Responses<T> {
    reply: Reply,
    item: PhantomData<fn() -> T>,
}

/// A call that was answered: its first item, and what follows.
pub(crate) struct Reply {
    incoming: Incoming,
    codec: Codec,
    limits: Limits,
    /// The first item, until it is taken.
    first: Option<Bytes>,
    over: bool,
    /// When the silence began that the next item ends.
    heard: Instant,
    /// Set where the way that the items come does not wake by itself.
    alarm: Option<Alarm>,
    busy: Busy,
    /// Where calls are observed.
    ended: Option<Ended>,
}

/// When a call is given up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) began: Instant,
    pub(crate) deadline: Instant,
    pub(crate) inactivity_max: Duration,
}

/// Says that a call ended, when it does.
pub(crate) struct Ended {
    environment: Arc<dyn Environment>,
    call: u64,
    pub(crate) code: Option<&'static str>,
}

impl Ended {
    /// Of a call that begins, if anybody wants to know.
    pub(crate) fn tell(platform: &Platform, call: u64) -> Option<Self> {
        // Until something else is known: whoever drops a call cancels it.
        let code = Some("cancelled");
        platform.observed.then(|| Self { environment: platform.environment.clone(), call, code })
    }
}

impl Drop for Ended {
    fn drop(&mut self) {
        self.environment.observe(&Fact::CallEnded { call: self.call, code: self.code });
    }
}

impl Reply {
    /// Waits for the first item, or the end.
    ///
    /// # Errors
    /// Whatever came instead of an item.
    pub(crate) async fn first(
        incoming: Incoming,
        busy: Busy,
        now: Instant,
        limits: Limits,
        ended: &mut Option<Ended>,
    ) -> Result<Self> {
        let mut reply = Self {
            codec: busy.instance().codec(),
            incoming,
            limits,
            first: None,
            over: false,
            heard: now,
            alarm: None,
            busy,
            ended: None,
        };
        let first = poll_fn(|cx| reply.poll(cx)).await.transpose()?;
        reply.ended = ended.take();
        if first.is_none() {
            reply.finish();
        }
        reply.first = first;
        Ok(reply)
    }

    fn poll_next(&mut self, cx: &mut TaskContext<'_>) -> Poll<Option<Result<Bytes>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(first)));
        }
        if self.over {
            return Poll::Ready(None);
        }
        let next = std::task::ready!(self.poll(cx));
        match &next {
            Some(Ok(_)) => {}
            Some(Err(error)) => self.give_up(error),
            None => self.finish(),
        }
        Poll::Ready(next)
    }

    /// The next item, or the error of the limit that passed first.
    fn poll(&mut self, cx: &mut TaskContext<'_>) -> Poll<Option<Result<Bytes>>> {
        let Self { incoming, limits, alarm, heard, .. } = self;
        if incoming.is_over() {
            return Poll::Ready(None);
        }
        match incoming.poll_item(cx) {
            // Nothing follows, so that no limit is left to be looked at.
            Poll::Ready(next) if incoming.is_over() => return Poll::Ready(next),
            Poll::Ready(next) => {
                *heard = Instant::now();
                // Past the deadline only what is complete is still read: a worker that never stops sending is not
                // heard.
                if *heard < limits.deadline || incoming.is_complete() {
                    return Poll::Ready(next);
                }
            }
            Poll::Pending => {
                let (now, at) = (Instant::now(), limits.next(*heard));
                if now < at {
                    if !incoming.wakes(now, at) {
                        alarm.get_or_insert_with(|| incoming.alarm()).set(now, at, cx);
                    }
                    return Poll::Pending;
                }
            }
        }
        let effect = if incoming.received() > 0 { Effect::Applied } else { Effect::Unknown };
        let error = if Instant::now() >= limits.deadline {
            limits.late("the call", effect)
        } else {
            let what = format!("the next item (after {} of them)", incoming.received());
            Error::deadline_exceeded(what, limits.inactivity_max, effect)
        };
        Poll::Ready(Some(Err(error)))
    }

    /// The one item of a unary call.
    pub(crate) async fn only<T: DeserializeOwned>(mut self) -> Result<T> {
        let only = poll_fn(|cx| self.poll_next(cx)).await;
        let Some(bytes) = only.transpose()? else {
            return Err(self.broken("it ended without an item, and one was expected"));
        };
        match poll_fn(|cx| self.poll_next(cx)).await {
            None => self.decode(&bytes),
            Some(Err(error)) => Err(error),
            Some(Ok(_)) => Err(self.broken("it has more than one item, and one was expected: use generate")),
        }
    }

    fn decode<T: DeserializeOwned>(&mut self, bytes: &[u8]) -> Result<T> {
        self.codec.decode(bytes).map_err(|error| {
            self.give_up(&error);
            error.raise(Effect::Applied)
        })
    }

    fn broken(&mut self, problem: &str) -> Error {
        let error = Error::invalid("response", self.busy.instance().record().endpoint().to_string(), problem);
        self.give_up(&error);
        error.raise(Effect::Applied)
    }

    /// All was yielded.
    fn finish(&mut self) {
        self.over = true;
        if let Some(ended) = &mut self.ended {
            ended.code = None;
        }
    }

    /// Nothing is yielded after an error, and the worker does not go on for nobody.
    fn give_up(&mut self, error: &Error) {
        self.over = true;
        self.incoming.give_up();
        if let Some(ended) = &mut self.ended {
            ended.code = Some(error.code());
        }
    }
}

impl Limits {
    /// The error of a call whose deadline passed while it did this.
    pub(crate) fn late(&self, what: &str, effect: Effect) -> Error {
        Error::deadline_exceeded(what, self.deadline.saturating_duration_since(self.began), effect)
    }

    /// When the next item has to be there.
    pub(crate) fn next(&self, now: Instant) -> Instant {
        self.deadline.min(now + self.inactivity_max)
    }
}

impl<T> Responses<T> {
    pub(crate) fn new(reply: Reply) -> Self {
        Self { reply, item: PhantomData }
    }

    /// The instance that answers.
    pub fn instance(&self) -> &Arc<Instance> {
        self.reply.busy.instance()
    }
}

impl<T: DeserializeOwned> Stream for Responses<T> {
    type Item = Result<T>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Option<Self::Item>> {
        let next = std::task::ready!(self.reply.poll_next(cx));
        Poll::Ready(next.map(|item| item.and_then(|bytes| self.reply.decode(&bytes))))
    }
}

impl<T> fmt::Debug for Responses<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Responses").field("instance", &self.instance().id()).finish_non_exhaustive()
    }
}
