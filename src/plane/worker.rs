//! Works on requests, whichever plane brought them.

mod answers;
mod pace;

use std::panic::{AssertUnwindSafe, resume_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{Either, select};
use futures_util::{FutureExt, StreamExt, poll};
use slipring_core::mutation::Mutation;
use slipring_core::service::{EndpointStats, InFlight};
use slipring_core::{BoxFuture, BoxStream, Effect, Error, Fact, Result};
use tokio::sync::Semaphore;
use tokio::task::coop::unconstrained;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub(crate) use self::answers::{Answers, Asker, LinkAnswers};
use self::pace::Pace;
use crate::LeasePolicy;
use crate::codec::Codec;
use crate::endpoint::{Context, Handler, Metadata, Output, panicked};
use crate::lifecycle::LeaseHolder;
use crate::name::EndpointPath;
use crate::plane::Plane;
use crate::plane::traffic::{Flow, Tally};
use crate::platform::Platform;

/// Items that travel together have at most so many bytes; a larger one travels alone.
const BATCH_BYTES_MAX: usize = 32 * 1024;
/// An item waits no longer than this, and the making of one more item, for those that travel with it: a handler
/// that computes without a pause is always ready.
const BATCH_TIME_MAX: Duration = Duration::from_millis(1);
/// A deadline too far to be told is as good as a year.
const DEADLINE_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

/// A request's task is no larger: what exceeds a kilobyte is given and taken back slowly by the usual allocators, and
/// with thousands of requests under way it adds up.
const WORK_BYTES_MAX: usize = 1024;

/// How many requests an endpoint works on, and how many may wait.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) concurrency: usize,
    pub(crate) queue: usize,
}

/// What a worker is made of.
pub(crate) struct Plan {
    pub(crate) platform: Arc<Platform>,
    pub(crate) lease: Arc<LeaseHolder>,
    pub(crate) endpoint: EndpointPath,
    pub(crate) handler: Arc<dyn Handler>,
    pub(crate) codec: Codec,
    pub(crate) limits: Limits,
}

/// A request on its way in.
pub(crate) struct Inbound {
    pub(crate) metadata: Metadata,
    pub(crate) payload: Bytes,
    /// What is left of its deadline; none if its caller said nothing.
    pub(crate) deadline: Option<Duration>,
    pub(crate) answers: Answers,
}

/// A request that is not worked on, and whom to tell why.
#[must_use = "the caller has to be told"]
pub(crate) struct Refused {
    answers: Answers,
    error: Error,
}

/// Admits the requests of one endpoint and works on them.
pub(crate) struct Worker {
    platform: Arc<Platform>,
    lease: Arc<LeaseHolder>,
    endpoint: Arc<EndpointPath>,
    name: Arc<str>,
    handler: Arc<dyn Handler>,
    codec: Codec,
    limits: Limits,
    pace: Pace,
    permits: Semaphore,
    stats: Arc<EndpointStats>,
    tally: Arc<Tally>,
    refusing: AtomicBool,
    /// Cancels the requests in flight.
    abandon: CancellationToken,
}

impl Refused {
    /// Answers with the error.
    pub(crate) async fn tell(self) {
        self.answers.fail(&self.error).await;
    }
}

impl Worker {
    pub(crate) fn new(plan: Plan, stats: Arc<EndpointStats>) -> Self {
        let name: Arc<str> = plan.endpoint.to_string().into();
        Self {
            tally: plan.platform.traffic.served(&name),
            name,
            pace: Pace::new(),
            permits: Semaphore::new(plan.limits.concurrency),
            stats,
            refusing: AtomicBool::new(false),
            abandon: CancellationToken::new(),
            platform: plan.platform,
            lease: plan.lease,
            endpoint: plan.endpoint.into(),
            handler: plan.handler,
            codec: plan.codec,
            limits: plan.limits,
        }
    }

    /// The endpoint, as `namespace/component/endpoint`.
    pub(crate) fn name(&self) -> &Arc<str> {
        &self.name
    }

    pub(crate) fn platform(&self) -> &Arc<Platform> {
        &self.platform
    }

    pub(crate) fn stats(&self) -> &Arc<EndpointStats> {
        &self.stats
    }

    /// From now on new requests are answered with `draining`.
    pub(crate) fn refuse(&self) {
        self.refusing.store(true, Ordering::Release);
    }

    /// Cancels the requests in flight.
    pub(crate) fn abandon(&self) {
        self.abandon.cancel();
    }

    /// Waits for the requests in flight, cancels those that take longer than `timeout`, and returns how many
    /// that were. Their callers are told, as far as that can be done within `grace`.
    pub(crate) async fn drain(&self, timeout: Duration, grace: Duration) -> u64 {
        if tokio::time::timeout(timeout, self.stats.idle()).await.is_ok() {
            return 0;
        }
        let left = self.stats.in_flight();
        self.abandon();
        // A silent broker, or a handler that blocks its thread, must not hold up the stop.
        let _ = tokio::time::timeout(grace, self.stats.idle()).await;
        left
    }

    /// Admits a request and works on it: `at_once`, right here, if it is likely to be done soon.
    ///
    /// # Errors
    /// Whom to tell, and what, if it is not admitted.
    pub(crate) fn take(
        self: &Arc<Self>,
        request: Inbound,
        at_once: bool,
    ) -> std::result::Result<(), Box<Refused>> {
        let Inbound { metadata, payload, deadline, answers } = request;
        let (plane, now) = (answers.plane(), Instant::now());
        match self.admit(now, deadline, plane) {
            Ok(admission) => self.begin(admission, metadata, payload, answers, at_once),
            Err(error) => return Err(Box::new(Refused { answers, error })),
        }
        Ok(())
    }

    /// Admits a request, on the plane that it is likely to be answered on: from now on its deadline runs, and a drain
    /// waits for it.
    ///
    /// # Errors
    /// Why it is not admitted.
    pub(crate) fn admit(
        self: &Arc<Self>,
        now: Instant,
        deadline: Option<Duration>,
        plane: Plane,
    ) -> Result<Admission> {
        match self.check(now, deadline) {
            Ok(deadline) => {
                let admitted = Admitted { worker: self.clone(), plane: None };
                Ok(Admission { admitted, now, deadline, counted: self.stats.begin_at(now) })
            }
            Err(error) => {
                self.tally.flow(plane).reset(error.code());
                Err(error)
            }
        }
    }

    /// Works on a request that this worker admitted: `at_once`, right here, if it is likely to be done soon.
    pub(crate) fn begin(
        &self,
        Admission { mut admitted, now, deadline, counted }: Admission,
        metadata: Metadata,
        payload: Bytes,
        answers: Answers,
        at_once: bool,
    ) {
        let context = Context::new(self.endpoint.clone(), self.platform.instance, deadline, metadata);
        let plane = answers.plane();
        self.tally.flow(plane).begin();
        admitted.plane = Some(plane);
        let at_once = at_once && self.pace.is_quick();
        let job = answers.job();
        let work = admitted.work(context, answers, payload, counted, at_once.then_some(now));
        debug_assert!(size_of_val(&work) <= WORK_BYTES_MAX, "a request's task has {}", size_of_val(&work));
        let mut work: BoxFuture<'static, ()> = Box::pin(work);
        if at_once && self.is_done_at_once(work.as_mut()) {
            return;
        }
        // It gets a task of its own, and its caller may ask after it from now on. In time: what that says about it
        // comes behind it.
        if let Some(job) = job {
            job.list();
        }
        self.platform.environment.spawn("request", work).detach();
    }

    /// Checks whether a request is worked on, and returns when its caller stops waiting.
    fn check(&self, now: Instant, deadline: Option<Duration>) -> Result<Instant> {
        if self.refusing.load(Ordering::Acquire) {
            return Err(Error::draining(format!("instance {:x} of {}", self.platform.instance, self.name)));
        }
        let fenced = self.platform.settings.lease_policy == LeasePolicy::Fence;
        let asked = fenced || self.platform.observed;
        let tenure = asked.then(|| self.lease.tenure(now, &*self.platform.environment)).flatten();
        if tenure.is_none() && fenced && !self.platform.mutated(Mutation::FenceIsOpen) {
            return Err(Error::lease_lost(self.lease.id()));
        }
        if self.stats.in_flight() >= (self.limits.concurrency.saturating_add(self.limits.queue)) as u64 {
            let Limits { concurrency, queue } = self.limits;
            let what =
                format!("{} (at most {concurrency} requests at a time and {queue} waiting)", self.name);
            return Err(Error::overloaded(what));
        }
        self.platform.tell(|| Fact::RequestAccepted {
            endpoint: self.name.clone(),
            instance: self.platform.instance,
            epoch: tenure,
        });
        Ok(now + deadline.unwrap_or(self.platform.settings.call_deadline).min(DEADLINE_MAX))
    }

    /// Works on a request until it has to wait for something. Is it done?
    fn is_done_at_once(&self, work: Pin<&mut (dyn Future<Output = ()> + Send)>) -> bool {
        // Whoever goes on with it polls it again, and is woken then. A task of its own would keep a panic to
        // itself, and would not be told to wait because those before it have done enough for now: how many there
        // are in a row is bounded where they are read.
        let mut cx = std::task::Context::from_waker(Waker::noop());
        match pin!(unconstrained(AssertUnwindSafe(work).catch_unwind())).poll(&mut cx) {
            Poll::Ready(Ok(())) => true,
            Poll::Ready(Err(panic)) => {
                tracing::error!(endpoint = %self.name, error = %panicked(&*panic), "a request panicked");
                true
            }
            Poll::Pending => false,
        }
    }

    /// Works on an answer until it is given, or until nobody can be waiting for it any more.
    #[expect(clippy::manual_async_fn, reason = "an async fn keeps room for its arguments twice")]
    fn in_time(
        &self,
        asker: &Asker,
        began: Option<Instant>,
        deadline: Instant,
        mut answering: Pin<&mut (impl Future<Output = std::thread::Result<Result<()>>> + Send)>,
    ) -> impl Future<Output = Result<()>> + Send {
        async move {
            let mut end = Poll::Pending;
            // In a task of its own it begins when the task does.
            let began = began.unwrap_or_else(Instant::now);
            // Many answers are given at once: those need neither a timer nor the room for one.
            if !self.abandon.is_cancelled() && !asker.is_gone() && began < deadline {
                end = poll!(&mut answering);
            }
            match end {
                Poll::Ready(_) => self.pace.answered(began.elapsed()),
                Poll::Pending => self.pace.paused(),
            }
            let end = match end {
                Poll::Ready(end) => end,
                Poll::Pending => {
                    let given_up = Box::pin(self.given_up(asker, began, deadline));
                    match select(given_up, answering).await {
                        Either::Left((error, _)) => return Err(error),
                        Either::Right((end, _)) => end,
                    }
                }
            };
            end.unwrap_or_else(|panic| Err(panicked(&*panic)))
        }
    }

    /// Resolves when the endpoint waits no longer, or nobody can be waiting any more.
    async fn given_up(&self, asker: &Asker, began: Instant, deadline: Instant) -> Error {
        tokio::select! {
            biased;
            () = self.abandon.cancelled() => Error::cancelled(&*self.name, Effect::Unknown),
            what = asker.gone(&self.name, self.platform.settings.caller_silence_max) => {
                Error::cancelled(what, Effect::Unknown)
            }
            () = tokio::time::sleep_until(deadline) => {
                let given = deadline.saturating_duration_since(began);
                Error::deadline_exceeded("the request", given, Effect::Unknown)
            }
        }
    }

    #[expect(clippy::manual_async_fn, reason = "an async fn keeps room for its arguments twice")]
    fn answer(
        &self,
        answers: &mut Answers,
        payload: Bytes,
        context: Context,
    ) -> impl Future<Output = Result<()>> + Send {
        async move {
            let _permit = self.permit().await?;
            match self.handler.handle(self.codec, payload, context).await? {
                Output::One(bytes) => {
                    self.tally.flow(answers.plane()).items(1, bytes.len() as u64);
                    answers.only(bytes).await
                }
                Output::Many(items) => {
                    let flow = self.tally.flow(answers.plane());
                    Box::pin(stream(answers, items, self.batch_bytes_max(), flow)).await
                }
            }
        }
    }

    /// Together, items are well below the largest message.
    fn batch_bytes_max(&self) -> usize {
        BATCH_BYTES_MAX.min(self.platform.messaging_can.payload_bytes_max / 2)
    }

    async fn permit(&self) -> Result<tokio::sync::SemaphorePermit<'_>> {
        if let Ok(permit) = self.permits.try_acquire() {
            return Ok(permit);
        }
        Box::pin(self.permits.acquire()).await.map_err(|_| Error::draining(&*self.name))
    }
}

/// Sends a stream's items, each when the caller has room for it. Those that are ready at the same time travel
/// together; none waits for one that is not.
async fn stream(
    answers: &mut Answers,
    mut items: BoxStream<'static, Result<Bytes>>,
    bytes_max: usize,
    flow: &Flow,
) -> Result<()> {
    let mut next = items.next().await;
    while let Some(item) = next {
        let item = item?;
        if !answers.has_room_for(1) {
            flow.stalled();
            tracing::trace!(plane = %answers.plane(), "a stream waits for its reader");
            answers.room().await?;
        }
        let (mut bytes, mut batch, began) = (item.len(), vec![item], Instant::now());
        let ready = loop {
            let is_full = bytes >= bytes_max
                || !answers.has_room_for(batch.len() as u64 + 1)
                || began.elapsed() >= BATCH_TIME_MAX;
            if is_full {
                break None;
            }
            // A panic has to wait for the items before it.
            match AssertUnwindSafe(items.next()).catch_unwind().now_or_never() {
                Some(Ok(Some(Ok(item)))) if bytes + item.len() <= bytes_max => {
                    bytes += item.len();
                    batch.push(item);
                }
                ready => break ready,
            }
        };
        flow.items(batch.len() as u64, bytes as u64);
        answers.items(batch, matches!(ready, Some(Ok(None)))).await?;
        next = match ready {
            Some(Ok(None)) => return Ok(()),
            Some(Ok(item)) => item,
            Some(Err(panic)) => resume_unwind(panic),
            None => items.next().await,
        };
    }
    answers.end().await
}

/// A request that was admitted and is not worked on yet.
pub(crate) struct Admission {
    admitted: Admitted,
    now: Instant,
    deadline: Instant,
    counted: InFlight,
}

/// A request that was admitted. However it ends, its end is told.
struct Admitted {
    worker: Arc<Worker>,
    /// The plane that it is answered on, once it is worked on.
    plane: Option<Plane>,
}

impl Admitted {
    /// The task of one request. Thousands may run at a time, so it is kept small: what few of them need is
    /// boxed.
    #[expect(clippy::manual_async_fn, reason = "an async fn keeps room for its arguments twice")]
    fn work(
        self,
        context: Context,
        mut answers: Answers,
        payload: Bytes,
        counted: InFlight,
        began: Option<Instant>,
    ) -> impl Future<Output = ()> + Send {
        async move {
            let worker = &*self.worker;
            let (asker, deadline) = (answers.asker(), context.deadline());
            let outcome = worker
                .in_time(
                    &asker,
                    began,
                    deadline,
                    pin!(
                        AssertUnwindSafe(worker.answer(&mut answers, payload, context.clone()))
                            .catch_unwind()
                    ),
                )
                .await;
            if let Err(error) = outcome {
                // Tasks that the handler started are told that nobody waits any more.
                context.cancel();
                worker.tally.flow(answers.plane()).reset(error.code());
                counted.failed(error.to_string());
                Box::pin(answers.fail(&error)).await;
            }
        }
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let Worker { name, platform, tally, .. } = &*self.worker;
        if let Some(plane) = self.plane {
            tally.flow(plane).end();
        }
        platform.tell(|| Fact::RequestEnded { endpoint: name.clone(), instance: platform.instance });
    }
}
