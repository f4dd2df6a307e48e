//! The worker's side of the broker plane: one subject per instance of an endpoint.

mod answers;
mod arrivals;
mod job;

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use slipring_core::service::{EndpointSpec, Service};
use slipring_core::{Effect, Error, Headers, Message, Result, Task};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub(crate) use self::answers::BrokerAnswers;
use self::arrivals::Arrivals;
pub(crate) use self::job::Job;
use self::job::JobId;
use super::home::Home;
use super::link::Link;
use super::local::Listing;
use super::wire::{self, Control, Ticket};
use super::worker::{Answers, Inbound, LinkAnswers, Plan, Worker};
use crate::endpoint::Metadata;
use crate::plane::Plane;

/// How long to wait for the task of a dropped predecessor, each time.
const PREDECESSOR_PAUSE: Duration = Duration::from_millis(1);

/// A served endpoint. Dropping it stops its subscription and cancels the requests in flight.
pub(crate) struct Server {
    shared: Arc<Shared>,
    task: Task,
    /// It is found by callers in this process, until it is unsubscribed.
    listing: Option<Listing>,
}

struct Shared {
    worker: Arc<Worker>,
    stop: CancellationToken,
    jobs: Jobs,
}

/// The requests that are being worked on and may be asked after.
type Jobs = Arc<Mutex<BTreeMap<JobId, Arc<Job>>>>;

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
        let worker = Arc::new(Worker::new(plan, requests.stats().clone()));
        let platform = worker.platform().clone();
        let listing = platform.local.list(platform.instance, &spec.subject, &worker);
        let shared = Arc::new(Shared { worker, stop: CancellationToken::new(), jobs: Jobs::default() });
        let task = platform.spawn("endpoint", serve(shared.clone(), Arrivals::new(requests)));
        Ok(Self { shared, task, listing: Some(listing) })
    }

    pub(crate) fn worker(&self) -> &Arc<Worker> {
        &self.shared.worker
    }

    /// Unsubscribes, refuses what had already arrived, and ends.
    ///
    /// # Errors
    /// `DeadlineExceeded` if that takes longer than `grace`; it ends all the same.
    pub(crate) async fn finish(&mut self, grace: Duration) -> Result<()> {
        self.listing = None;
        self.shared.stop.cancel();
        let ended = tokio::time::timeout(grace, self.task.end()).await;
        self.task.abort();
        match ended {
            Ok(_) => Ok(()),
            Err(_) => Err(Error::deadline_exceeded("unsubscribing", grace, Effect::Unknown)),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.worker.abandon();
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
        let name = shared.worker.name();
        match message {
            Some(Ok(message)) => shared.accept(message, arrivals.are_few()).await,
            Some(Err(Error::Lagged { missed, .. })) => {
                tracing::warn!(endpoint = %name, missed, "requests were lost to a full buffer");
            }
            _ if stopping => return,
            None | Some(Err(_)) => {
                tracing::warn!(endpoint = %name, "the subscription broke; it is opened anew");
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
    /// Hands a request to the worker: to be worked on right here if few others wait.
    async fn accept(&self, message: Message, are_few: bool) {
        if let Some(control) = Control::of(&message.headers) {
            return self.control(control, message).await;
        }
        let worker = &self.worker;
        let answers = match BrokerAnswers::to(worker, &self.jobs, &message) {
            Ok(answers) => answers,
            Err(error) => {
                let name = worker.name();
                tracing::debug!(endpoint = %name, %error, "a request that cannot be answered is dropped");
                return;
            }
        };
        if let Some(home) = self.home_of(&message.headers, &answers) {
            return self.call_home(home, message, answers);
        }
        let request = inbound(message, answers.ticket, Answers::Broker(answers));
        if let Err(refused) = worker.take(request, are_few) {
            refused.tell().await;
        }
    }

    /// Where the caller may be answered over a connection, if both want that.
    fn home_of(&self, headers: &Headers, answers: &BrokerAnswers) -> Option<(Home, Ticket)> {
        let ticket = answers.ticket.filter(|_| self.worker.platform().links.calls_home())?;
        match Home::of(headers) {
            Ok(home) => home.map(|home| (home, ticket)),
            Err(error) => {
                tracing::debug!(endpoint = %self.worker.name(), %error, "it is answered over the broker");
                None
            }
        }
    }

    /// Works on a request and answers over a connection to its caller; over the broker if there is none to be had.
    fn call_home(&self, (home, ticket): (Home, Ticket), message: Message, answers: BrokerAnswers) {
        let (worker, platform) = (self.worker.clone(), self.worker.platform().clone());
        // One that was closed, or is going away, is not the way home: another one is dialled.
        if let Some(link) = platform.links.ready(home.peer.instance).filter(Link::is_usable) {
            let answers = attach(&link, &home, ticket, &worker, answers);
            if let Err(refused) = worker.take(inbound(message, Some(ticket), answers), true) {
                platform.spawn("refusal", refused.tell()).detach();
            }
            return;
        }
        let admission = match worker.admit(Instant::now(), Some(ticket.deadline), Plane::NatsTcp) {
            Ok(admission) => admission,
            Err(error) => {
                let refusing = async move { answers.fail(&error).await };
                return platform.spawn("refusal", refusing).detach();
            }
        };
        // Its caller may ask after it meanwhile.
        answers.job().list();
        let dialling = async move {
            let answers = match worker.platform().links.to(home.peer, &home.address).await {
                Ok(link) => attach(&link, &home, ticket, &worker, answers),
                Err(error) => {
                    tracing::debug!(endpoint = %worker.name(), %error, "it is answered over the broker");
                    Answers::Broker(answers)
                }
            };
            worker.begin(admission, Metadata::read(&message.headers), message.payload, answers, false);
        };
        platform.spawn("call home", dialling).detach();
    }

    /// A caller asks or tells about a call.
    async fn control(&self, control: Control, message: Message) {
        let Ok(answers) = BrokerAnswers::to(&self.worker, &self.jobs, &message) else { return };
        let Some(Ticket { call, .. }) = answers.ticket else { return };
        let job = lock(&self.jobs).get(&(call, answers.reply.clone())).cloned();
        match (control, job) {
            (Control::Cancel, Some(job)) => job.cancel(),
            (Control::Cancel, None) => {}
            (Control::Probe, job) => {
                if let Some(job) = &job {
                    job.heard(wire::number(&message.headers, wire::CREDIT).ok().flatten());
                }
                answers.alive(job.is_some()).await;
            }
        }
    }
}

/// The answers over a connection; over the broker if it is just going.
fn attach(link: &Link, home: &Home, ticket: Ticket, worker: &Worker, answers: BrokerAnswers) -> Answers {
    match link.attach(ticket.call, home.token) {
        Ok(outflow) => Answers::Link(LinkAnswers::new(outflow, worker.stats().clone(), Some(answers))),
        Err(_) => Answers::Broker(answers),
    }
}

fn inbound(message: Message, ticket: Option<Ticket>, answers: Answers) -> Inbound {
    Inbound {
        metadata: Metadata::read(&message.headers),
        payload: message.payload,
        deadline: ticket.map(|ticket| ticket.deadline),
        answers,
    }
}

fn lock(jobs: &Jobs) -> MutexGuard<'_, BTreeMap<JobId, Arc<Job>>> {
    // Single inserts and removals: whole whatever panics elsewhere.
    jobs.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
