use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use slipring_core::mutation::Mutation;
use slipring_core::{Error, Fact, Result};
use tokio::time::Instant;

use super::responses::{Ended, Limits, Reply};
use super::retry::{Decision, Retry, RetryPolicy};
use super::route::Choice;
use super::send::Outbound;
use super::{Client, Responses};
use crate::endpoint::{Context, Metadata, TraceContext};
use crate::plane::caller::Call;
use crate::registry::{Busy, Instance, WatchState};

/// The longest deadline and inactivity limit: a year, which no clock overflows.
const DURATION_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

/// A call about to be made: set what differs from the defaults, then [`generate`](Self::generate) or
/// [`call`](Self::call).
#[must_use = "nothing is sent until generate or call is awaited"]
pub struct Request<'a, Req, Resp> {
    client: &'a Client<Req, Resp>,
    request: &'a Req,
    deadline: Duration,
    /// The deadline of the request that this call is part of.
    outer: Option<Instant>,
    inactivity_max: Duration,
    key: Option<String>,
    direct: Option<u64>,
    idempotent: bool,
    fail_fast: bool,
    metadata: Metadata,
    /// The first option that was wrong; said when the call is made.
    problem: Option<Error>,
}

impl<'a, Req, Resp> Request<'a, Req, Resp> {
    pub(super) fn new(client: &'a Client<Req, Resp>, request: &'a Req) -> Self {
        let settings = &client.runtime().platform().settings;
        Self {
            client,
            request,
            deadline: settings.call_deadline,
            outer: None,
            inactivity_max: settings.inactivity_max,
            key: None,
            direct: None,
            idempotent: false,
            fail_fast: false,
            metadata: Metadata::default(),
            problem: None,
        }
    }

    /// How long the whole call may take, to its last response. Default 10 s.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline.min(DURATION_MAX);
        self
    }

    /// How long it may be silent before a response. Default 30 s.
    pub fn inactivity(mut self, silence: Duration) -> Self {
        self.inactivity_max = silence.min(DURATION_MAX);
        self
    }

    /// The key of [`Routing::ConsistentHash`](crate::Routing::ConsistentHash).
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Only this instance will do.
    pub fn instance(mut self, id: u64) -> Self {
        self.direct = Some(id);
        self
    }

    /// Executing the request twice does no harm: it is tried again even where it may have been executed.
    pub fn idempotent(mut self) -> Self {
        self.idempotent = true;
        self
    }

    /// Fails at once, instead of waiting for an instance, if there is none, or none that is there.
    pub fn fail_fast(mut self) -> Self {
        self.fail_fast = true;
        self
    }

    /// Sends a piece of metadata along; the handler finds it in its [`Context`].
    pub fn metadata(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        if let Err(error) = self.metadata.insert(name.into(), value.into()) {
            self.problem.get_or_insert(error);
        }
        self
    }

    /// Makes the call part of a trace.
    pub fn trace(mut self, trace: TraceContext) -> Self {
        self.metadata.trace = Some(trace);
        self
    }

    /// Makes the call part of the request that a handler works on: it ends by that request's deadline, and
    /// metadata and trace travel on.
    pub fn within(mut self, context: &Context) -> Self {
        self.outer = Some(context.deadline());
        let Metadata { entries, trace } = context.travelling().clone();
        for (name, value) in entries {
            self.metadata.entries.entry(name).or_insert(value);
        }
        self.metadata.trace = self.metadata.trace.or(trace);
        self
    }

    /// Calls and returns the stream of responses, once the first one is there (or the end).
    ///
    /// # Errors
    /// `NoInstances`, `Draining`, `Overloaded`, `NoResponders`, `LeaseLost`, `Unavailable`: nobody did it (the
    /// effect says how sure that is). `DeadlineExceeded`, `StreamInterrupted`: it may have been done. `Fault`:
    /// the handler's own answer. `Invalid`, `PayloadTooLarge`: the request or an option cannot be sent.
    pub async fn generate(self) -> Result<Responses<Resp>>
    where
        Req: Serialize + Sync,
        Resp: DeserializeOwned,
    {
        self.run().await.map(Responses::new)
    }

    /// Calls and returns the one response.
    ///
    /// # Errors
    /// Those of [`generate`](Self::generate); `Invalid` (effect applied) if there is not exactly one response.
    pub async fn call(self) -> Result<Resp>
    where
        Req: Serialize + Sync,
        Resp: DeserializeOwned,
    {
        self.run().await?.only().await
    }

    async fn run(&self) -> Result<Reply>
    where
        Req: Serialize + Sync,
    {
        if let Some(problem) = &self.problem {
            return Err(problem.clone());
        }
        self.client.runtime().check_open()?;
        let began = Instant::now();
        let own = began + self.deadline;
        let deadline = self.outer.map_or(own, |outer| outer.min(own));
        let platform = self.client.runtime().platform();
        let patience = u32::from(platform.mutated(Mutation::DeadlineIsForgotten)) * DURATION_MAX;
        let limits = Limits { began, deadline: deadline + patience, inactivity_max: self.inactivity_max };
        let number = self.client.runtime().caller().number();
        platform.tell(|| Fact::CallStarted {
            endpoint: self.client.shared.watcher.name().clone(),
            call: number,
            deadline: deadline.saturating_duration_since(began),
            any: self.direct.is_none() && self.client.shared.labels.is_empty(),
        });
        let mut ended = Ended::tell(platform, number);
        let result = self.attempts(number, limits, &mut ended).await;
        if let (Err(error), Some(ended)) = (&result, &mut ended) {
            ended.code = Some(error.code());
        }
        result
    }

    async fn attempts(&self, number: u64, limits: Limits, ended: &mut Option<Ended>) -> Result<Reply>
    where
        Req: Serialize + Sync,
    {
        let runtime = self.client.runtime();
        let harmless = self.idempotent || runtime.platform().mutated(Mutation::UnknownIsRetried);
        let policy = RetryPolicy::new().with_idempotent(harmless).with_patient(!self.fail_fast);
        let mut retry = Retry::new(policy, limits.deadline);
        let mut tried = Vec::new();
        let mut number = number;
        runtime.budget().deposit(limits.began);
        loop {
            let instance = match self.choose(&limits, &tried).await {
                Ok(instance) => instance,
                Err(error) => return Err(retry.finish(error)),
            };
            let error = match self.attempt(number, &instance, limits, ended).await {
                Ok(reply) => return Ok(reply),
                Err(error) => error,
            };
            let away = matches!(
                error,
                Error::Draining { .. } | Error::LeaseLost { .. } | Error::NoResponders { .. }
            );
            if away {
                runtime.caller().set_aside(&instance, &self.client.shared.watcher);
            }
            tried.push(instance.id());
            number = runtime.caller().number();
            let jitter = runtime.platform().environment.random("retry jitter");
            let decide = |budget: &mut _| retry.handle_error(Instant::now(), &error, 0, budget, jitter);
            let decision = runtime.budget().take(decide);
            match decision {
                Decision::Again { at } => tokio::time::sleep_until(at).await,
                Decision::GiveUp => return Err(retry.finish(error)),
            }
        }
    }

    async fn attempt(
        &self,
        number: u64,
        instance: &Arc<Instance>,
        limits: Limits,
        ended: &mut Option<Ended>,
    ) -> Result<Reply>
    where
        Req: Serialize + Sync,
    {
        let platform = self.client.runtime().platform();
        let payload = instance.codec().encode(self.request)?;
        let now = Instant::now();
        let call = Call { number, now, remaining: limits.deadline.saturating_duration_since(now) };
        let trace = self.metadata.trace.as_ref().map(|trace| trace.hop(&*platform.environment));
        let metadata = Metadata { trace, ..self.metadata.clone() };
        let busy = Busy::begin(instance.clone());
        let incoming = self.client.send(Outbound { call, instance, metadata, payload, limits }).await?;
        Reply::first(incoming, busy, now, limits, ended).await
    }

    /// An instance to send to; waits for one until the deadline.
    async fn choose(&self, limits: &Limits, tried: &[u64]) -> Result<Arc<Instance>> {
        let now = if tried.is_empty() { limits.began } else { Instant::now() };
        match self.choose_now(tried, now) {
            Some(instance) => Ok(instance),
            // Seldom: the room is not kept for every call.
            None => Box::pin(self.choose_later(limits, tried)).await,
        }
    }

    async fn choose_later(&self, limits: &Limits, tried: &[u64]) -> Result<Arc<Instance>> {
        let watcher = &self.client.shared.watcher;
        let mut version = watcher.view().observe();
        let mut near = Vec::new();
        let mut looked = false;
        loop {
            version.mark_seen();
            if let Some(instance) = self.choose_now(tried, Instant::now()) {
                return Ok(instance);
            }
            let seeing = !matches!(watcher.view().lock().state, WatchState::Syncing);
            let over = Instant::now() >= limits.deadline;
            if over || (self.fail_fast && seeing && looked) {
                return Err(self.no_instances(near));
            }
            tokio::select! {
                biased;
                changed = version.changed() => {
                    // It lives in the view, which the client keeps.
                    let _ = changed;
                }
                () = tokio::time::sleep_until(limits.deadline) => {}
                found = watcher.near_misses(), if !looked && seeing => {
                    near = found;
                    looked = true;
                }
            }
        }
    }

    fn choose_now(&self, tried: &[u64], now: Instant) -> Option<Arc<Instance>> {
        let platform = self.client.runtime().platform();
        let members = self.client.shared.watcher.view().lock();
        let choice = Choice {
            routing: self.client.shared.routing,
            labels: &self.client.shared.labels,
            key: self.key.as_deref(),
            direct: self.direct,
            tried,
            // A call has one turn however often it is tried, or with two instances every call would begin
            // with the same one as long as that one refuses.
            turn: self.client.shared.turn.fetch_add(tried.is_empty().into(), Ordering::Relaxed),
            random: self.client.shared.routing.draw(&*platform.environment),
            now,
        };
        let chosen = choice.among(&members);
        let revision = members.revision;
        drop(members);
        if let Some(instance) = &chosen {
            platform.tell(|| {
                let endpoint = self.client.shared.watcher.name().clone();
                Fact::RouteChosen { endpoint, instance: instance.id(), revision }
            });
        }
        chosen
    }

    fn no_instances(&self, near: Vec<String>) -> Error {
        let watcher = &self.client.shared.watcher;
        let members = watcher.view().lock();
        let cause = match (&members.state, members.len(), self.direct) {
            (WatchState::Syncing, ..) => "the discovery backend was not reached yet".to_owned(),
            (WatchState::Failed(code), ..) => format!("the discovery backend refuses: {code}"),
            (WatchState::Stale { cause, .. }, 0, _) => {
                format!("none was known when the watch broke: {cause}")
            }
            (_, _, Some(id)) => format!("instance {id:x} is not registered"),
            (_, 0, None) => "none is registered".to_owned(),
            (_, count, None) if self.client.shared.labels.is_empty() => {
                format!("none of {count} has a transport that this version knows")
            }
            (_, count, None) => format!("none of {count} has the labels {:?}", self.client.shared.labels),
        };
        drop(members);
        Error::no_instances(watcher.name().to_string(), cause, near)
    }
}

impl<Req, Resp> fmt::Debug for Request<'_, Req, Resp> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("endpoint", self.client.endpoint())
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}
