//! The worker's side of the broker plane: one subject per instance of an endpoint.

mod answers;
mod arrivals;
mod pace;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, poll};
use slipring_core::mutation::Mutation;
use slipring_core::service::{EndpointSpec, EndpointStats, InFlight, Service};
use slipring_core::{BoxFuture, BoxStream, Effect, Error, Fact, Message, Result, Subject, Task};
use tokio::sync::{Notify, Semaphore};
use tokio::task::coop::unconstrained;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use self::answers::Answers;
use self::arrivals::Arrivals;
use self::pace::Pace;
use super::wire::{self, Control, Ticket};
use crate::LeasePolicy;
use crate::codec::Codec;
use crate::endpoint::{Context, Handler, Metadata, Output, panicked};
use crate::lifecycle::LeaseHolder;
use crate::name::EndpointPath;
use crate::platform::Platform;

/// How long to wait for the task of a dropped predecessor, each time.
const PREDECESSOR_PAUSE: Duration = Duration::from_millis(1);

/// Items that travel together have at most so many bytes; a larger one travels alone.
const BATCH_BYTES_MAX: usize = 32 * 1024;
/// An item waits no longer than this, and the making of one more item, for those that travel with it: a handler
/// that computes without a pause is always ready.
const BATCH_TIME_MAX: Duration = Duration::from_millis(1);

/// How many requests an endpoint works on, and how many may wait.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) concurrency: usize,
    pub(crate) queue: usize,
}

/// A served endpoint. Dropping it stops its subscription and cancels the requests in flight.
pub(crate) struct Server {
    shared: Arc<Shared>,
    task: Task,
    _abandon: DropGuard,
}

struct Shared {
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
    refusing: AtomicBool,
    stop: CancellationToken,
    abandon: CancellationToken,
    jobs: Mutex<BTreeMap<JobId, Arc<Job>>>,
}

/// The caller's number for it, and where its answers go. In this order, in which few comparisons are of texts.
type JobId = (u64, Subject);

/// A request that is being worked on.
struct Job {
    id: Option<JobId>,
    cancel: CancellationToken,
    began: Instant,
    /// When the caller was heard last, in milliseconds after `began`.
    heard_ms: AtomicU64,
    /// How many items the caller takes in all.
    credit: AtomicU64,
    more_credit: Notify,
}

/// What a server is made of.
pub(crate) struct Plan {
    pub(crate) platform: Arc<Platform>,
    pub(crate) lease: Arc<LeaseHolder>,
    pub(crate) endpoint: EndpointPath,
    pub(crate) handler: Arc<dyn Handler>,
    pub(crate) codec: Codec,
    pub(crate) limits: Limits,
}

impl Server {
    /// Subscribes and serves: when it resolves, requests are routed to it.
    pub(crate) async fn start(plan: Plan, service: &Service, spec: EndpointSpec) -> Result<Self> {
        let requests = loop {
            match service.add(spec.clone()).await {
                // The claim is ours: this is a dropped predecessor, whose task is about to end.
                Err(Error::AlreadyExists { .. }) => tokio::time::sleep(PREDECESSOR_PAUSE).await,
                added => break added?,
            }
        };
        let abandon = CancellationToken::new();
        let shared = Arc::new(Shared {
            name: plan.endpoint.to_string().into(),
            pace: Pace::new(),
            permits: Semaphore::new(plan.limits.concurrency),
            stats: requests.stats().clone(),
            refusing: AtomicBool::new(false),
            stop: CancellationToken::new(),
            abandon: abandon.clone(),
            jobs: Mutex::default(),
            platform: plan.platform,
            lease: plan.lease,
            endpoint: plan.endpoint.into(),
            handler: plan.handler,
            codec: plan.codec,
            limits: plan.limits,
        });
        let task = shared.platform.spawn("endpoint", serve(shared.clone(), Arrivals::new(requests)));
        Ok(Self { shared, task, _abandon: abandon.drop_guard() })
    }

    pub(crate) fn stats(&self) -> &Arc<EndpointStats> {
        &self.shared.stats
    }

    /// From now on new requests are answered with `draining`.
    pub(crate) fn refuse(&self) {
        self.shared.refusing.store(true, Ordering::Release);
    }

    /// Waits for the requests in flight, cancels those that take longer than `timeout`, and returns how many
    /// that were. Their callers are told, as far as that can be done within `grace`.
    pub(crate) async fn drain(&self, timeout: Duration, grace: Duration) -> u64 {
        if tokio::time::timeout(timeout, self.shared.stats.idle()).await.is_ok() {
            return 0;
        }
        let left = self.shared.stats.in_flight();
        self.shared.abandon.cancel();
        // A silent broker, or a handler that blocks its thread, must not hold up the stop.
        let _ = tokio::time::timeout(grace, self.shared.stats.idle()).await;
        left
    }

    /// Unsubscribes, refuses what had already arrived, and ends.
    ///
    /// # Errors
    /// `DeadlineExceeded` if that takes longer than `grace`; it ends all the same.
    pub(crate) async fn finish(&mut self, grace: Duration) -> Result<()> {
        self.shared.stop.cancel();
        let ended = tokio::time::timeout(grace, self.task.end()).await;
        self.task.abort();
        match ended {
            Ok(_) => Ok(()),
            Err(_) => Err(Error::deadline_exceeded("unsubscribing", grace, Effect::Unknown)),
        }
    }
}

async fn serve(shared: Arc<Shared>, mut arrivals: Arrivals) {
    let mut stop = pin!(shared.stop.cancelled());
    let mut stopping = false;
    loop {
        let message = tokio::select! {
            biased;
            () = &mut stop, if !stopping => {
                stopping = true;
                arrivals.stop();
                continue;
            }
            message = arrivals.next() => message,
        };
        match message {
            Some(Ok(message)) => shared.clone().accept(message, arrivals.are_few()).await,
            Some(Err(Error::Lagged { missed, .. })) => {
                tracing::warn!(endpoint = %shared.name, missed, "requests were lost to a full buffer");
            }
            _ if stopping => return,
            None | Some(Err(_)) => {
                tracing::warn!(endpoint = %shared.name, "the subscription broke; it is opened anew");
                tokio::select! {
                    biased;
                    () = shared.stop.cancelled() => return,
                    () = arrivals.reopen() => {}
                }
            }
        }
    }
}

impl Shared {
    /// Admits a request and works on it: right here if it is likely to be done soon, and if few others wait.
    async fn accept(self: Arc<Self>, message: Message, are_few: bool) {
        if let Some(control) = Control::of(&message.headers) {
            return self.control(control, message).await;
        }
        let answers = match Answers::to(&self.platform, &self.stats, &message) {
            Ok(answers) => answers,
            Err(error) => {
                tracing::debug!(endpoint = %self.name, %error, "a request that cannot be answered is dropped");
                return;
            }
        };
        let (job, deadline) = match self.admit(&answers) {
            Ok(admitted) => admitted,
            Err(error) => return answers.fail(&error).await,
        };
        let context = Context::new(
            self.endpoint.clone(),
            self.platform.instance,
            deadline,
            job.cancel.clone(),
            Metadata::read(&message.headers),
        );
        let listed = Listed { shared: self.clone(), job: job.clone() };
        let counted = self.stats.begin();
        let mut work: BoxFuture<'static, ()> =
            Box::pin(listed.work(context, answers, message.payload, counted));
        if are_few && self.pace.is_quick() && self.is_done_at_once(work.as_mut()).await {
            return;
        }
        // In time: what its caller says about it comes behind it, and is read here.
        if let Some(id) = &job.id {
            self.jobs().insert(id.clone(), job.clone());
        }
        self.platform.environment.spawn("request", work).detach();
    }

    fn admit(&self, answers: &Answers) -> Result<(Arc<Job>, Instant)> {
        if self.refusing.load(Ordering::Acquire) {
            return Err(Error::draining(format!("instance {:x} of {}", self.platform.instance, self.name)));
        }
        let now = Instant::now();
        let tenure = self.lease.tenure(now, &*self.platform.environment);
        let fenced = self.platform.settings.lease_policy == LeasePolicy::Fence;
        if tenure.is_none() && fenced && !self.platform.mutated(Mutation::FenceIsOpen) {
            return Err(Error::lease_lost(self.lease.id()));
        }
        if self.stats.in_flight() >= (self.limits.concurrency.saturating_add(self.limits.queue)) as u64 {
            let Limits { concurrency, queue } = self.limits;
            let what =
                format!("{} (at most {concurrency} requests at a time and {queue} waiting)", self.name);
            return Err(Error::overloaded(what));
        }
        let left = answers.ticket.map_or(self.platform.settings.call_deadline, |ticket| ticket.deadline);
        // A deadline too far to be told is as good as a year.
        let deadline = now + left.min(Duration::from_secs(365 * 24 * 3600));
        let job = Job {
            id: answers.ticket.map(|ticket| (ticket.call, answers.reply.clone())),
            cancel: self.abandon.child_token(),
            began: now,
            heard_ms: AtomicU64::new(0),
            credit: AtomicU64::new(answers.ticket.map_or(u64::MAX, |ticket| ticket.credit)),
            more_credit: Notify::new(),
        };
        self.platform.environment.observe(&Fact::RequestAccepted {
            endpoint: self.name.clone(),
            instance: self.platform.instance,
            epoch: tenure,
        });
        Ok((Arc::new(job), deadline))
    }

    /// Works on a request until it has to wait for something. Is it done?
    async fn is_done_at_once(&self, work: Pin<&mut (dyn Future<Output = ()> + Send)>) -> bool {
        // A task of its own would keep a panic to itself. And it would not be told to wait because those before it
        // have done enough for now: how many there are in a row is bounded where they are read.
        match poll!(pin!(unconstrained(AssertUnwindSafe(work).catch_unwind()))) {
            Poll::Ready(Ok(())) => true,
            Poll::Ready(Err(panic)) => {
                tracing::error!(endpoint = %self.name, error = %panicked(&*panic), "a request panicked");
                true
            }
            Poll::Pending => false,
        }
    }

    /// Works on an answer until it is given, or until nobody can be waiting for it any more.
    async fn in_time(
        &self,
        job: &Job,
        deadline: Instant,
        mut answering: Pin<&mut impl Future<Output = std::thread::Result<Result<()>>>>,
    ) -> Result<()> {
        let mut end = Poll::Pending;
        let began = Instant::now();
        // Many answers are given at once: those need neither a timer nor the room for one.
        if !job.cancel.is_cancelled() && began < deadline {
            end = poll!(&mut answering);
        }
        match end {
            Poll::Ready(_) => self.pace.answered(began.elapsed()),
            Poll::Pending => self.pace.paused(),
        }
        let end = match end {
            Poll::Ready(end) => end,
            Poll::Pending => tokio::select! {
                biased;
                () = job.cancel.cancelled() => return Err(Error::cancelled(&*self.name, Effect::Unknown)),
                error = Box::pin(job.overdue(deadline, self.platform.settings.caller_silence_max)) => {
                    return Err(error);
                }
                end = answering => end,
            },
        };
        end.unwrap_or_else(|panic| Err(panicked(&*panic)))
    }

    async fn answer(&self, job: &Job, answers: &mut Answers, payload: Bytes, context: Context) -> Result<()> {
        let _permit = self.permit().await?;
        match self.handler.handle(self.codec, payload, context).await? {
            Output::One(bytes) => answers.only(bytes).await,
            Output::Many(items) => Box::pin(stream(job, answers, items, self.batch_bytes_max())).await,
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
        self.permits.acquire().await.map_err(|_| Error::draining(&*self.name))
    }

    /// A caller asks or tells about a call.
    async fn control(&self, control: Control, message: Message) {
        let Ok(answers) = Answers::to(&self.platform, &self.stats, &message) else { return };
        let Some(Ticket { call, .. }) = answers.ticket else { return };
        let job = self.jobs().get(&(call, answers.reply.clone())).cloned();
        match (control, job) {
            (Control::Cancel, Some(job)) => job.cancel.cancel(),
            (Control::Cancel, None) => {}
            (Control::Probe, job) => {
                if let Some(job) = &job {
                    job.heard(wire::number(&message.headers, wire::CREDIT).ok().flatten());
                }
                answers.alive(job.is_some()).await;
            }
        }
    }

    fn jobs(&self) -> MutexGuard<'_, BTreeMap<JobId, Arc<Job>>> {
        // Single inserts and removals: whole whatever panics elsewhere.
        self.jobs.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// Sends a stream's items, each when the caller has room for it. Those that are ready at the same time travel
/// together; none waits for one that is not.
async fn stream(
    job: &Job,
    answers: &mut Answers,
    mut items: BoxStream<'static, Result<Bytes>>,
    bytes_max: usize,
) -> Result<()> {
    let mut next = items.next().await;
    while let Some(item) = next {
        let item = item?;
        job.credit_for(answers.sent + 1).await;
        let (mut bytes, mut batch, began) = (item.len(), vec![item], Instant::now());
        let ready = loop {
            let is_full = bytes >= bytes_max
                || !job.has_credit_for(answers.sent + batch.len() as u64 + 1)
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
        answers.items(&batch, matches!(ready, Some(Ok(None)))).await?;
        next = match ready {
            Some(Ok(None)) => return Ok(()),
            Some(Ok(item)) => item,
            Some(Err(panic)) => resume_unwind(panic),
            None => items.next().await,
        };
    }
    answers.end().await
}

impl Job {
    fn heard(&self, credit: Option<u64>) {
        let elapsed = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.heard_ms.store(elapsed, Ordering::Release);
        if let Some(credit) = credit {
            self.credit.fetch_max(credit, Ordering::AcqRel);
            self.more_credit.notify_one();
        }
    }

    fn has_credit_for(&self, item: u64) -> bool {
        self.credit.load(Ordering::Acquire) >= item
    }

    async fn credit_for(&self, item: u64) {
        while !self.has_credit_for(item) {
            self.more_credit.notified().await;
        }
    }

    /// Resolves when nobody can be waiting any more.
    async fn overdue(&self, deadline: Instant, silence_max: Duration) -> Error {
        // A plain client says nothing while it waits.
        let silence_max = self.id.as_ref().map(|_| silence_max);
        loop {
            let heard = self.began + Duration::from_millis(self.heard_ms.load(Ordering::Acquire));
            let silent = silence_max.map(|silence| heard + silence);
            tokio::time::sleep_until(silent.map_or(deadline, |silent| silent.min(deadline))).await;
            let now = Instant::now();
            if now >= deadline {
                let given = deadline.duration_since(self.began);
                return Error::deadline_exceeded("the request", given, Effect::Unknown);
            }
            let heard = self.began + Duration::from_millis(self.heard_ms.load(Ordering::Acquire));
            if silence_max.is_some_and(|silence| now >= heard + silence) {
                return Error::cancelled("the request (its caller fell silent)", Effect::Unknown);
            }
        }
    }
}

/// Takes a job off the list when it ends, however it ends.
struct Listed {
    shared: Arc<Shared>,
    job: Arc<Job>,
}

impl Listed {
    /// The task of one request. Thousands may run at a time, so it is kept small: what few of them need is
    /// boxed.
    #[expect(clippy::manual_async_fn, reason = "an async fn keeps room for its arguments twice")]
    fn work(
        self,
        context: Context,
        mut answers: Answers,
        payload: Bytes,
        counted: InFlight,
    ) -> impl Future<Output = ()> + Send {
        async move {
            let Self { shared, job } = &self;
            let deadline = context.deadline();
            let outcome = shared
                .in_time(
                    job,
                    deadline,
                    pin!(AssertUnwindSafe(shared.answer(job, &mut answers, payload, context)).catch_unwind()),
                )
                .await;
            if let Err(error) = outcome {
                // Tasks that the handler started are told that nobody waits any more.
                job.cancel.cancel();
                counted.failed(error.to_string());
                Box::pin(answers.fail(&error)).await;
            }
        }
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        if let Some(id) = &self.job.id {
            self.shared.jobs().remove(id);
        }
        let (endpoint, instance) = (self.shared.name.clone(), self.shared.platform.instance);
        self.shared.platform.environment.observe(&Fact::RequestEnded { endpoint, instance });
    }
}
