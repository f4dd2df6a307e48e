//! The broker's side of a connection.

use std::collections::BTreeMap;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::select;
use futures_util::{Stream, StreamExt};
use slipring_core::{
    ByteStream, Commit, Discovery, Environment, EnvironmentExt, Error, Message, Messaging, Result,
    Subscriber, Subscription, Task, Txn, Watch,
};
use tokio::sync::oneshot;
use tokio::task::{consume_budget, unconstrained};
use tokio::time::timeout;

use super::discovery::NO_NUMBER;
use super::frame::{Incoming, Outbox};
use super::{CLIENT_SILENCE_MAX, Down, Item, Reply, Request, Up};
use crate::history::{Failure, TxnStep};

/// What is served.
#[derive(Clone)]
pub(crate) struct Broker {
    /// The store.
    pub(crate) discovery: Arc<dyn Discovery>,
    /// The bus: a handle for each connection, which is closed with it.
    pub(crate) messaging: Arc<dyn Fn() -> Arc<dyn Messaging> + Send + Sync>,
    /// Who is told what happens to a transaction here, by its number.
    pub(crate) told: Arc<dyn Fn(u64, TxnStep) + Send + Sync>,
}

/// Serves one connection until it ends, or says nothing for too long. Calls are executed in the order in which
/// they were sent, each before the next; requests to subscribers are waited for on the side.
pub(crate) async fn serve(environment: Arc<dyn Environment>, broker: Broker, stream: Box<dyn ByteStream>) {
    let (read, write) = tokio::io::split(stream);
    let outbox = Arc::new(Outbox::default());
    let (messaging, heard) = ((broker.messaging)(), Arc::new(AtomicU64::new(0)));
    let mut session = Session {
        environment,
        discovery: broker.discovery,
        told: broker.told,
        messaging,
        outbox: outbox.clone(),
        running: BTreeMap::new(),
        heard: heard.clone(),
    };
    let beat = || Down::Beat { heard: heard.load(Ordering::Relaxed) };
    let _fits = outbox.push(&beat());
    let reading = pin!(session.read(Incoming::new(read)));
    let writing = pin!(outbox.drain(write, beat));
    select(reading, writing).await;
}

struct Session {
    environment: Arc<dyn Environment>,
    discovery: Arc<dyn Discovery>,
    told: Arc<dyn Fn(u64, TxnStep) + Send + Sync>,
    messaging: Arc<dyn Messaging>,
    outbox: Arc<Outbox>,
    running: BTreeMap<u64, Running>,
    /// Frames that arrived.
    heard: Arc<AtomicU64>,
}

/// A stream, or a request that waits for its reply. Dropped, it ends.
struct Running {
    task: Task,
    stop: Option<oneshot::Sender<()>>,
}

impl Session {
    async fn read(&mut self, mut incoming: Incoming) {
        loop {
            // Who does not read its answers is not given more of them.
            self.outbox.room().await;
            match timeout(CLIENT_SILENCE_MAX, incoming.next()).await {
                Ok(Ok(up)) => {
                    self.heard.fetch_add(1, Ordering::Relaxed);
                    self.receive(up).await;
                }
                Ok(Err(_)) | Err(_) => return,
            }
        }
    }

    async fn receive(&mut self, up: Up) {
        match up {
            Up::Beat => {}
            Up::Call { id, request } => self.call(id, request).await,
            Up::Publish { message } => {
                // The publisher has checked it, and does not wait for an answer.
                let _refused = self.messaging.publish(message).await;
            }
            Up::Stop { id } => {
                let stop = self.running.get_mut(&id).and_then(|running| running.stop.take());
                if let Some(stop) = stop {
                    // A stream that is over needs not stop.
                    let _ = stop.send(());
                }
            }
            Up::Forget { id } => drop(self.running.remove(&id)),
        }
    }

    async fn call(&mut self, id: u64, request: Request) {
        let answer = match request {
            Request::Read { range } => {
                self.discovery.read(range).await.map(|snapshot| Reply::Snapshot { snapshot })
            }
            Request::Commit { number, txn } => {
                self.commit(number, txn).await.map(|commit| Reply::Commit { commit })
            }
            Request::Grant { ttl } => self.discovery.grant(ttl).await.map(|lease| Reply::Lease { lease }),
            Request::KeepAlive { lease } => {
                self.discovery.keep_alive(lease).await.map(|ttl| Reply::Ttl { ttl })
            }
            Request::Revoke { lease } => self.discovery.revoke(lease).await.map(|()| Reply::Done),
            Request::Watch { range, start } => match self.discovery.watch(range, start).await {
                Ok(watch) => return self.watch(id, watch),
                Err(error) => Err(error),
            },
            Request::Subscribe { subscription } => return self.subscribe(id, subscription).await,
            Request::Ask { message, timeout } => return self.ask(id, message, timeout),
            Request::Flush => self.messaging.flush().await.map(|()| Reply::Done),
            Request::Close => self.messaging.close(Duration::ZERO).await.map(|()| Reply::Done),
        };
        self.answer(id, answer);
    }

    /// As over a link in memory, nobody comes between the arrival and the end.
    async fn commit(&self, number: u64, txn: Txn) -> Result<Commit> {
        consume_budget().await;
        let tell = |step| {
            if number != NO_NUMBER {
                (self.told)(number, step);
            }
        };
        tell(TxnStep::Arrived);
        let answer = unconstrained(self.discovery.commit(txn)).await;
        tell(TxnStep::Executed(answer.as_ref().copied().map_err(Failure::from)));
        answer
    }

    fn watch(&mut self, id: u64, watch: Watch) {
        self.answer(id, Ok(Reply::Base { base: watch.base }));
        let items = watch.events.map(|batch| Ok(Item::Batch { batch: batch? }));
        let task = self.environment.start("watch", pump(self.outbox.clone(), id, items));
        self.run(id, task, None);
    }

    async fn subscribe(&mut self, id: u64, subscription: Subscription) {
        match self.messaging.subscribe(subscription).await {
            Ok(subscriber) => {
                self.answer(id, Ok(Reply::Done));
                let (stop, stopped) = oneshot::channel();
                let items = until_stopped(subscriber, stopped);
                let task = self.environment.start("subscription", pump(self.outbox.clone(), id, items));
                self.run(id, task, Some(stop));
            }
            Err(error) => self.answer(id, Err(error)),
        }
    }

    fn ask(&mut self, id: u64, message: Message, timeout: Duration) {
        let (messaging, outbox) = (self.messaging.clone(), self.outbox.clone());
        let ask = async move {
            let answer = messaging.request(message, timeout).await;
            answer_with(&outbox, id, answer.map(|message| Reply::Message { message }));
        };
        let task = self.environment.start("request", ask);
        self.run(id, task, None);
    }

    fn run(&mut self, id: u64, task: Task, stop: Option<oneshot::Sender<()>>) {
        self.running.retain(|_, running| !running.task.is_finished());
        self.running.insert(id, Running { task, stop });
    }

    fn answer(&self, id: u64, answer: Result<Reply>) {
        answer_with(&self.outbox, id, answer);
    }
}

fn answer_with(outbox: &Outbox, id: u64, answer: Result<Reply>) {
    if !outbox.push(&Down::Answer { id, answer }) {
        let error = Error::payload_too_large(super::FRAME_BYTES_MAX, usize::MAX);
        let _fits = outbox.push(&Down::Answer { id, answer: Err(error) });
    }
}

/// Sends the items of a stream as there is room, and then its end.
async fn pump(outbox: Arc<Outbox>, id: u64, items: impl Stream<Item = Result<Item>> + Send) {
    let mut items = pin!(items);
    loop {
        outbox.room().await;
        let Some(item) = items.next().await else { break };
        let _fits = outbox.push(&Down::Item { id, item });
    }
    let _fits = outbox.push(&Down::End { id });
}

/// The messages of a subscription, which stops when it is told to.
fn until_stopped(
    mut subscriber: Subscriber,
    stopped: oneshot::Receiver<()>,
) -> impl Stream<Item = Result<Item>> + Send {
    let mut stopped = Some(stopped);
    futures_util::stream::poll_fn(move |cx| {
        if stopped.as_mut().is_some_and(|stopped| Pin::new(stopped).poll(cx).is_ready()) {
            stopped = None;
            subscriber.stop();
        }
        let next = subscriber.poll_next_unpin(cx);
        next.map(|next| next.map(|item| item.map(|message| Item::Message { message })))
    })
}
