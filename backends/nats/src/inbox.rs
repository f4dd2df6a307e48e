use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::Waker;

use slipring_core::{Effect, Error, Result, Subject};
use tokio::sync::{Notify, oneshot};

use crate::error;
use crate::tap::{Sink, Tap};

/// Where the answers to all requests of one connection arrive: one subscription, and a number for each request.
///
/// The client library has one too, but keeps what it knows of a request that is never answered for ever.
pub(crate) struct Inbox {
    subject: String,
    state: Mutex<State>,
    ended: Notify,
}

#[derive(Default)]
struct State {
    asked: u64,
    waiting: BTreeMap<u64, Waiting>,
    /// Why no answer will come any more.
    end: Option<Error>,
    /// The last complaint of the server, which may be why it closed the connection.
    complaint: Option<String>,
}

struct Waiting {
    handle: u64,
    asked: Option<Subject>,
    answer: oneshot::Sender<Result<async_nats::Message>>,
}

/// The right to one answer. Dropped, it leaves nothing.
pub(crate) struct Ticket {
    inbox: Arc<Tap<Inbox>>,
    number: u64,
    answer: oneshot::Receiver<Result<async_nats::Message>>,
}

impl Inbox {
    /// An inbox at a subject that nobody else has.
    pub(crate) fn new(subject: String) -> Self {
        Self { subject, state: Mutex::default(), ended: Notify::new() }
    }

    /// What to subscribe to.
    pub(crate) fn pattern(&self) -> String {
        format!("{}.*", self.subject)
    }

    /// No answer comes any more, for this reason. Whoever waits is told; the first reason counts.
    pub(crate) fn end(&self, cause: &str) {
        let waiting = {
            let mut state = self.lock();
            if state.end.is_none() {
                let complaint = state.complaint.take();
                let cause = complaint.map_or_else(|| cause.to_owned(), |said| format!("{cause} ({said})"));
                state.end = Some(error::unavailable(cause, Effect::None));
            }
            std::mem::take(&mut state.waiting)
        };
        drop(waiting);
        self.ended.notify_waiters();
    }

    /// Waits for the [end](Self::end), and says why.
    pub(crate) async fn ended(&self) -> Error {
        loop {
            let ended = self.ended.notified();
            if let Some(end) = self.lock().end.clone() {
                return end;
            }
            ended.await;
        }
    }

    /// The server complained: remembered as a likely reason, should the connection end.
    pub(crate) fn complaint(&self, text: String) {
        self.lock().complaint = Some(text);
    }

    /// The server did not let a message to this subject pass, or does not permit this inbox: who waits for an
    /// answer to it waits in vain.
    pub(crate) fn refuse(&self, subject: &str, error: &Error) {
        let is_refused = |waiting: &Waiting| match &waiting.asked {
            Some(asked) => asked.as_str() == subject,
            None => subject.starts_with(&self.subject),
        };
        for waiting in self.take(is_refused) {
            let _ = waiting.answer.send(Err(error.clone()));
        }
    }

    /// The requests of this handle wait no more.
    pub(crate) fn forget(&self, handle: u64) {
        drop(self.take(|waiting| waiting.handle == handle));
    }

    fn take(&self, is_taken: impl Fn(&Waiting) -> bool) -> Vec<Waiting> {
        let mut state = self.lock();
        let all = std::mem::take(&mut state.waiting).into_iter();
        let (taken, others): (BTreeMap<_, _>, _) = all.partition(|(_, waiting)| is_taken(waiting));
        state.waiting = others;
        taken.into_values().collect()
    }

    /// How many wait.
    pub(crate) fn waiting(&self) -> usize {
        self.lock().waiting.len()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Tap<Inbox> {
    /// A place for one answer, to a request of this handle or (without a subject) to a round trip.
    pub(crate) fn ask(self: &Arc<Self>, handle: u64, asked: Option<Subject>) -> Result<Ticket> {
        let (sender, answer) = oneshot::channel();
        let mut state = self.sink().lock();
        if let Some(end) = &state.end {
            return Err(end.clone());
        }
        let number = state.asked;
        state.asked += 1;
        state.waiting.insert(number, Waiting { handle, asked, answer: sender });
        drop(state);
        Ok(Ticket { inbox: self.clone(), number, answer })
    }
}

impl Sink for Inbox {
    fn accept(&self, message: async_nats::Message) -> Option<Waker> {
        let number = message.subject.strip_prefix(&self.subject)?.strip_prefix('.')?.parse().ok()?;
        // Nobody waits for a second answer, or for a late one.
        let waiting = self.lock().waiting.remove(&number)?;
        let _ = waiting.answer.send(Ok(message));
        None
    }

    fn cut(&self) {
        self.end("the connection was lost");
    }
}

impl Ticket {
    /// Where the answer is awaited.
    pub(crate) fn subject(&self) -> async_nats::Subject {
        format!("{}.{}", self.inbox.sink().subject, self.number).into()
    }

    /// The answer.
    pub(crate) async fn answer(mut self) -> Result<async_nats::Message> {
        match (&mut self.answer).await {
            Ok(answer) => answer,
            // The connection has ended, or else the handle.
            Err(_) => Err(match &self.inbox.sink().lock().end {
                Some(end) => end.clone().raise(Effect::Unknown),
                None => error::closed().raise(Effect::Unknown),
            }),
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let gone = self.inbox.sink().lock().waiting.remove(&self.number);
        drop(gone);
    }
}
