//! One of two buses that are compared.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use slipring_core::{
    Effect, EnvironmentExt, Error, Message, Messaging, MessagingExt, Pattern, QueueGroup, Result, Subject,
    Subscriber, Subscription, SystemEnvironment, Task,
};
use tokio::time::{Instant, timeout_at};

use crate::step::Wanted;

/// How long a message may take that has to come.
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// How long a request waits for an answer that does not come.
const REQUEST_MAX: Duration = Duration::from_millis(150);
/// How long a request waits for an answer that comes.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// Marks what wants an answer.
const ASKED: &str = "asked";

/// What a bus says.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Answer {
    Done,
    Failed(Failure),
    Replied(Bytes),
    Took(Option<Item>),
}

/// An error as far as buses have to agree on it: not its words.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Failure {
    code: &'static str,
    effect: Effect,
    about: Vec<u64>,
}

/// What a subscription yields.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Item {
    Message {
        payload: Bytes,
        subject: String,
        /// The reply subject; what a request made up is `inbox`.
        reply: Option<String>,
        headers: BTreeMap<String, Vec<String>>,
        no_responders: bool,
    },
    Missed(u64),
    Failed(Failure),
}

/// The reading end of a subscription.
enum Reader {
    Open(Subscriber),
    /// It was stopped; what it had not been asked for yet.
    Ended(VecDeque<Item>),
}

/// A bus under comparison, by several handles.
pub(crate) struct Side {
    handles: Vec<Arc<dyn Messaging>>,
    /// The first token of all subjects, with its dot.
    below: String,
    /// Those that were opened; `None` when dropped.
    readers: Vec<Option<Reader>>,
    servers: Vec<Task>,
}

impl Side {
    pub(crate) fn new(handles: Vec<Arc<dyn Messaging>>, below: String) -> Self {
        Self { handles, below, readers: Vec::new(), servers: Vec::new() }
    }

    pub(crate) async fn subscribe(&mut self, wanted: &Wanted) -> Answer {
        let mut subscription = Subscription::new(self.pattern(&wanted.pattern));
        if let Some(queue) = wanted.queue {
            subscription = subscription.with_queue(QueueGroup::new(queue).unwrap());
        }
        if let Some(messages_max) = wanted.messages_max {
            subscription = subscription.with_messages_max(messages_max);
        }
        match self.handles[wanted.handle].subscribe(subscription).await {
            Ok(subscriber) => {
                self.readers.push(Some(Reader::Open(subscriber)));
                Answer::Done
            }
            Err(error) => Answer::Failed(failure(&error)),
        }
    }

    pub(crate) async fn serve(&mut self, handle: usize, pattern: &str) -> Answer {
        let messaging = self.handles[handle].clone();
        let mut requests = match messaging.subscribe(Subscription::new(self.pattern(pattern))).await {
            Ok(requests) => requests,
            Err(error) => return Answer::Failed(failure(&error)),
        };
        self.servers.push(SystemEnvironment::new().start("server", async move {
            while let Some(Ok(request)) = requests.next().await {
                if request.headers.first(ASKED).is_some() {
                    // Refused once the handle is closed: then another one answers, or nobody.
                    let _ = messaging.respond(&request, request.payload.clone()).await;
                }
            }
        }));
        Answer::Done
    }

    /// Publishes, and waits until the bus has it: then there is an order between publishers.
    pub(crate) async fn publish(&self, handle: usize, message: Message) -> Answer {
        let published = self.handles[handle].publish(message).await;
        self.settle().await;
        answer(published)
    }

    /// With `answered`, somebody is there who answers.
    pub(crate) async fn request(&self, handle: usize, mut message: Message, answered: bool) -> Answer {
        message.headers.append(ASKED, "yes").unwrap();
        let wait = if answered { ANSWER_MAX } else { REQUEST_MAX };
        let reply = self.handles[handle].request(message, wait).await;
        self.settle().await;
        match reply {
            Ok(reply) => Answer::Replied(reply.payload),
            Err(error) => Answer::Failed(failure(&error)),
        }
    }

    /// Waits until the bus has all that was sent. Handles that are closed have nothing to wait for.
    pub(crate) async fn settle(&self) {
        for handle in &self.handles {
            match handle.flush().await {
                Ok(()) | Err(Error::Unavailable { effect: Effect::None, .. }) => {}
                Err(error) => panic!("a bus that is well cannot flush: {error}"),
            }
        }
    }

    /// The next item that is there by now, or, if there has to be one, when it comes.
    pub(crate) async fn take(&mut self, subscription: usize, has_one: bool) -> Answer {
        let item = match &mut self.readers[subscription] {
            None => return Answer::Took(None),
            Some(Reader::Ended(items)) => return Answer::Took(items.pop_front()),
            Some(Reader::Open(subscriber)) => match subscriber.next().now_or_never() {
                Some(item) => item,
                None if has_one => next(subscriber, Instant::now() + SILENCE_MAX).await,
                None => None,
            },
        };
        Answer::Took(item.map(|item| self.item(item)))
    }

    /// Stops a subscription, and waits until the bus knows: that is told by its end alone.
    pub(crate) async fn stop(&mut self, subscription: usize) {
        let Some(Reader::Open(subscriber)) = &mut self.readers[subscription] else { return };
        subscriber.stop();
        let deadline = Instant::now() + SILENCE_MAX;
        let mut items = Vec::new();
        while let Some(item) = next(subscriber, deadline).await {
            let late = matches!(&item, Err(error) if !matches!(error, Error::Lagged { .. }));
            items.push(item);
            if late {
                break;
            }
        }
        let items = items.into_iter().map(|item| self.item(item)).collect();
        self.readers[subscription] = Some(Reader::Ended(items));
    }

    /// Unsubscribes, and waits until the bus knows.
    pub(crate) async fn discard(&mut self, subscription: usize) {
        self.readers[subscription] = None;
        self.settle().await;
    }

    pub(crate) async fn close(&self, handle: usize) -> Answer {
        answer(self.handles[handle].close(SILENCE_MAX).await)
    }

    /// Stops all subscriptions and reads each to its end.
    pub(crate) async fn finish(&mut self) -> Vec<Option<Vec<Item>>> {
        self.settle().await;
        for subscription in 0..self.readers.len() {
            self.stop(subscription).await;
        }
        let items = |reader| match reader {
            Reader::Ended(items) => items.into(),
            Reader::Open(_) => unreachable!("all are stopped"),
        };
        std::mem::take(&mut self.readers).into_iter().map(|reader| reader.map(items)).collect()
    }

    fn pattern(&self, pattern: &str) -> Pattern {
        Pattern::new(format!("{}{pattern}", self.below)).unwrap()
    }

    pub(crate) fn subject(&self, subject: &str) -> Subject {
        Subject::new(format!("{}{subject}", self.below)).unwrap()
    }

    fn item(&self, item: Result<Message>) -> Item {
        let message = match item {
            Ok(message) => message,
            Err(Error::Lagged { missed, .. }) => return Item::Missed(missed),
            Err(error) => return Item::Failed(failure(&error)),
        };
        let ours = |subject: &Subject| match subject.as_str().strip_prefix(&self.below) {
            Some(subject) => subject.to_owned(),
            None => "inbox".to_owned(),
        };
        let mut headers: BTreeMap<String, Vec<String>> = BTreeMap::new();
        // nats-server 2.15 adds the subject to the news that nobody was there, 2.9 does not.
        for (name, value) in message.headers.iter().filter(|_| !message.no_responders) {
            headers.entry(name.to_owned()).or_default().push(value.to_owned());
        }
        Item::Message {
            payload: message.payload,
            subject: ours(&message.subject),
            reply: message.reply.as_ref().map(ours),
            headers,
            no_responders: message.no_responders,
        }
    }
}

impl Answer {
    /// What kind of answer it is, for counting.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed(failure) => failure.code,
            Self::Replied(_) => "replied",
            Self::Took(_) => "took",
        }
    }
}

fn answer(result: Result<()>) -> Answer {
    result.map_or_else(|error| Answer::Failed(failure(&error)), |()| Answer::Done)
}

fn failure(error: &Error) -> Failure {
    let about = match error {
        Error::PayloadTooLarge { limit, actual, .. } => vec![*limit as u64, *actual as u64],
        _ => vec![],
    };
    Failure { code: error.code(), effect: error.effect(), about }
}

async fn next(subscriber: &mut Subscriber, deadline: Instant) -> Option<Result<Message>> {
    let silent = || Some(Err(Error::deadline_exceeded("the subscription", SILENCE_MAX, Effect::None)));
    timeout_at(deadline, subscriber.next()).await.unwrap_or_else(|_| silent())
}
