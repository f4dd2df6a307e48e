//! The node's side of a connection.

mod line;

use std::collections::BTreeMap;
use std::fmt;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use futures_util::Stream;
use futures_util::future::{self, Either};
use slipring_core::{ByteStream, Effect, Environment, EnvironmentExt, Error, Message, Result, Task};
use tokio::io::{WriteHalf, split};
use tokio::sync::{Notify, oneshot};
use tokio::task::coop::poll_proceed;
use tokio::time::{Instant, sleep, timeout, timeout_at};

pub(super) use self::line::{Line, at_the_broker};
use super::frame::{Cause, Incoming, Outbox};
use super::{CONNECT_MAX, Down, Item, Reply, Request, SILENCE_MAX, Up};

/// The wait before the second attempt to connect; then twice as long each time.
const BACKOFF_MIN: Duration = Duration::from_millis(50);

/// The longest wait between two attempts.
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// A connection to a broker that is made again whenever it breaks. Clones are the same; with the last of them,
/// and of the streams over it, it ends.
///
/// A call that is made during an attempt to connect waits for its outcome, which takes 2 s at most; between two
/// attempts calls fail at once. What was sent when the connection breaks fails with what is known about it. A
/// broker that stands still is given up after 3 s.
#[derive(Clone)]
pub(crate) struct Client(Arc<Inner>);

struct Inner {
    shared: Arc<Shared>,
    _driver: Task,
}

struct Shared {
    state: Mutex<State>,
    changed: Notify,
    outbox: Outbox,
}

struct State {
    phase: Phase,
    /// Something between here and the broker refuses connections; such windows may overlap.
    refusals: u32,
    closed: bool,
    /// Was something published of which nobody knows whether the broker has it?
    unflushed: bool,
    last_id: u64,
    calls: BTreeMap<u64, Call>,
    lines: BTreeMap<u64, Line>,
}

enum Phase {
    Connecting,
    Connected,
    /// Until the next attempt.
    Broken(Cause),
}

/// A call that has no answer yet.
struct Call {
    /// What is known of it when the connection breaks.
    effect: Effect,
    tell: oneshot::Sender<Result<Reply>>,
}

impl Client {
    /// Begins to connect, as a task of this environment.
    pub(crate) fn start(environment: &Arc<dyn Environment>, address: &str) -> Self {
        let state = State {
            phase: Phase::Connecting,
            refusals: 0,
            closed: false,
            unflushed: false,
            last_id: 0,
            calls: BTreeMap::new(),
            lines: BTreeMap::new(),
        };
        let shared = Shared { state: Mutex::new(state), changed: Notify::new(), outbox: Outbox::default() };
        let shared = Arc::new(shared);
        let drive = drive(shared.clone(), environment.clone(), address.to_owned());
        Self(Arc::new(Inner { shared, _driver: environment.start("broker connection", drive) }))
    }

    /// Something in between resets the connection and refuses further ones, or no longer does.
    pub(crate) fn refuse(&self, begins: bool) {
        let mut state = self.0.shared.state();
        state.refusals = if begins { state.refusals + 1 } else { state.refusals.saturating_sub(1) };
        drop(state);
        self.0.shared.changed.notify_waiters();
    }

    /// A call; `effect` is its error's if the connection breaks before the answer. Dropped, it is forgotten at
    /// the far side too, where it may have been executed.
    pub(super) async fn call(&self, request: Request, effect: Effect) -> Result<Reply> {
        let mut waiting = self.begin(request, effect, None).await?;
        waiting.answer().await
    }

    /// A call that is answered by a stream, too.
    pub(super) async fn open(&self, request: Request, line: Line) -> Result<(Reply, Items)> {
        let mut waiting = self.begin(request, Effect::None, Some(line)).await?;
        let reply = waiting.answer().await?;
        Ok((reply, waiting.into_items()))
    }

    /// Says something that is not answered.
    pub(super) async fn publish(&self, message: Message) -> Result<()> {
        let bytes = message.wire_bytes();
        let fits = self.connected(|state, outbox| {
            state.unflushed = true;
            outbox.push(&Up::Publish { message })
        });
        if fits.await? { Ok(()) } else { Err(Error::payload_too_large(super::FRAME_BYTES_MAX, bytes)) }
    }

    /// Waits until the far side has all that was published.
    pub(super) async fn flush(&self) -> Result<()> {
        let flushed = self.call(Request::Flush, Effect::Unknown).await;
        let mut state = self.0.shared.state();
        match flushed {
            Ok(_) => {
                state.unflushed = false;
                Ok(())
            }
            Err(error) if state.unflushed => Err(error.raise(Effect::Unknown)),
            Err(error) => Err(error),
        }
    }

    /// Takes no call any more, has the far side end all subscriptions, and waits for that.
    pub(super) async fn close(&self, grace: Duration) -> Result<()> {
        if self.0.shared.state().closed {
            return Ok(());
        }
        let closing = async {
            let mut waiting = self.begin(Request::Close, Effect::Unknown, None).await?;
            self.0.shared.state().closed = true;
            waiting.answer().await
        };
        let closed = timeout(grace, closing).await;
        let lost = {
            let mut state = self.0.shared.state();
            state.closed = true;
            std::mem::take(&mut state.unflushed)
        };
        match closed {
            Ok(Ok(_)) => return Ok(()),
            // Nothing can come any more.
            _ => self.0.shared.end_lines(),
        }
        match closed {
            Err(_) => Err(Error::deadline_exceeded("closing", grace, Effect::Unknown)),
            Ok(Err(error)) if lost => Err(error.raise(Effect::Unknown)),
            Ok(_) => Ok(()),
        }
    }

    /// Sends a call.
    async fn begin(&self, request: Request, effect: Effect, line: Option<Line>) -> Result<Waiting> {
        let (tell, told) = oneshot::channel();
        let begun = self.connected(|state, outbox| {
            state.last_id += 1;
            let id = state.last_id;
            if !outbox.push(&Up::Call { id, request }) {
                return Err(Error::payload_too_large(super::FRAME_BYTES_MAX, usize::MAX));
            }
            state.calls.insert(id, Call { effect, tell });
            if let Some(line) = line {
                state.lines.insert(id, line);
            }
            Ok(id)
        });
        let id = begun.await??;
        Ok(Waiting { of: Ended { client: self.clone(), id, over: false }, told })
    }

    /// Does something with the connection as soon as there is one that has room.
    async fn connected<T>(&self, act: impl FnOnce(&mut State, &Outbox) -> T) -> Result<T> {
        let shared = &*self.0.shared;
        loop {
            let changed = shared.changed.notified();
            let full = {
                let mut state = shared.state();
                match &state.phase {
                    _ if state.closed => return Err(unavailable("this handle is closed", Effect::None)),
                    Phase::Broken(cause) => return Err(unavailable(cause, Effect::None)),
                    Phase::Connecting => false,
                    Phase::Connected if shared.outbox.has_room() => {
                        return Ok(act(&mut state, &shared.outbox));
                    }
                    Phase::Connected => true,
                }
            };
            // A connection that breaks makes room.
            if full { shared.outbox.room().await } else { changed.await }
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

fn unavailable(cause: &str, effect: Effect) -> Error {
    Error::unavailable("the broker", cause, effect)
}

/// A call under way.
struct Waiting {
    of: Ended,
    told: oneshot::Receiver<Result<Reply>>,
}

/// Something that the far side is told to forget unless it is over.
struct Ended {
    client: Client,
    id: u64,
    over: bool,
}

impl Waiting {
    async fn answer(&mut self) -> Result<Reply> {
        let answer = (&mut self.told).await;
        self.of.over = true;
        answer.unwrap_or_else(|_| Err(unavailable("the node is gone", Effect::Unknown)))
    }

    fn into_items(mut self) -> Items {
        self.of.over = false;
        Items(self.of)
    }
}

impl Drop for Ended {
    fn drop(&mut self) {
        if !self.over {
            self.client.0.shared.forget(self.id);
        }
    }
}

/// What a stream yields. Dropped, it ends at the far side.
pub(super) struct Items(Ended);

impl Items {
    /// What ends the stream after what the broker has accepted for it.
    pub(super) fn stopper(&self) -> impl FnOnce() + Send + use<> {
        let (shared, id) = (Arc::downgrade(&self.0.client.0.shared), self.0.id);
        move || {
            if let Some(shared) = shared.upgrade() {
                shared.stop(id);
            }
        }
    }
}

impl Stream for Items {
    type Item = Result<Item>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let budget = ready!(poll_proceed(cx));
        let next = self.0.client.0.shared.poll_line(self.0.id, cx);
        if next.is_ready() {
            budget.made_progress();
        }
        next
    }
}

/// Connects, again and again, and has the connection serve those who wait.
async fn drive(shared: Arc<Shared>, environment: Arc<dyn Environment>, address: String) {
    let mut wait = BACKOFF_MIN;
    loop {
        let cause = match connect(&shared, &*environment, &address).await {
            Ok((stream, incoming)) => {
                wait = BACKOFF_MIN;
                shared.converse(stream, incoming).await
            }
            Err(cause) => cause,
        };
        shared.disconnected(cause);
        if shared.state().closed {
            return;
        }
        // Up to a half is taken off, so that many do not come at once.
        let half_micros = u64::try_from(wait.as_micros() / 2).expect("the wait is a second at most");
        let less = environment.random("reconnecting") % (half_micros + 1);
        sleep(wait - Duration::from_micros(less)).await;
        wait = BACKOFF_MAX.min(2 * wait);
        shared.begin_connecting();
    }
}

/// A connection counts once the server has spoken.
async fn connect(
    shared: &Shared,
    environment: &dyn Environment,
    address: &str,
) -> Result<(WriteHalf<Box<dyn ByteStream>>, Incoming), Cause> {
    let attempt = async {
        if shared.state().refusals > 0 {
            return Err("the connection was refused".to_owned());
        }
        let stream = environment.connect(address).await.map_err(|error| error.to_string())?;
        let (read, write) = split(stream);
        let mut incoming = Incoming::new(read);
        match incoming.next().await? {
            Down::Beat { .. } => Ok((write, incoming)),
            other => Err(format!("the server began with {other:?}")),
        }
    };
    timeout(CONNECT_MAX, attempt)
        .await
        .unwrap_or_else(|_| Err(format!("it did not answer within {CONNECT_MAX:?}")))
}

impl Shared {
    /// Until the connection breaks, and why it did.
    async fn converse(&self, stream: WriteHalf<Box<dyn ByteStream>>, mut incoming: Incoming) -> Cause {
        self.begin_connected();
        let reading = async {
            let (mut alive_at, mut heard_before) = (Instant::now(), 0);
            loop {
                match timeout_at(alive_at + SILENCE_MAX, incoming.next()).await {
                    // It hears, if it has heard everything, or more than before.
                    Ok(Ok(Down::Beat { heard })) => {
                        if heard > heard_before || heard == self.outbox.frames() {
                            (alive_at, heard_before) = (Instant::now(), heard);
                        }
                    }
                    Ok(Ok(down)) => self.receive(down),
                    Ok(Err(cause)) => return cause,
                    Err(_) => return format!("it heard or said nothing for {SILENCE_MAX:?}"),
                }
            }
        };
        let writing = async {
            let written = self.outbox.drain(stream, || Up::Beat).await;
            written.err().unwrap_or_else(|| "nothing is left to say".to_owned())
        };
        let (reading, writing) = (pin!(reading), pin!(writing));
        let refused = pin!(self.refused());
        match future::select(refused, future::select(reading, writing)).await {
            Either::Left(_) => "the connection was reset".to_owned(),
            Either::Right((talked, _)) => talked.factor_first().0,
        }
    }

    async fn refused(&self) {
        loop {
            let changed = self.changed.notified();
            if self.state().refusals > 0 {
                return;
            }
            changed.await;
        }
    }

    fn begin_connecting(&self) {
        self.state().phase = Phase::Connecting;
    }

    /// Restores the subscriptions before anything else is said.
    fn begin_connected(&self) {
        let mut state = self.state();
        state.phase = Phase::Connected;
        for (id, line) in &mut state.lines {
            if let Some(subscription) = line.restore() {
                let _fits =
                    self.outbox.push(&Up::Call { id: *id, request: Request::Subscribe { subscription } });
            }
        }
        drop(state);
        self.changed.notify_waiters();
    }

    /// The connection broke, or was not made: tells all who wait.
    fn disconnected(&self, cause: Cause) {
        let mut state = self.state();
        let calls = std::mem::take(&mut state.calls);
        // A stream that was not open yet ends with its call.
        let opening: Vec<_> = calls.keys().map(|id| state.lines.remove(id)).collect();
        let (closed, lost) = (state.closed, unavailable(&cause, Effect::None));
        let lines = state.lines.values_mut();
        let wakers: Vec<Waker> = lines.filter_map(|line| line.disconnected(&lost, closed)).collect();
        state.phase = Phase::Broken(cause.clone());
        self.outbox.clear();
        drop(state);
        drop(opening);
        for Call { effect, tell } in calls.into_values() {
            // Whoever gave up does not want to know.
            let _ = tell.send(Err(unavailable(&cause, effect)));
        }
        wakers.into_iter().for_each(Waker::wake);
        self.changed.notify_waiters();
    }

    fn receive(&self, down: Down) {
        let mut state = self.state();
        let (told, waker) = match down {
            Down::Beat { .. } => (None, None),
            Down::Answer { id, answer } => match state.calls.remove(&id) {
                Some(call) => {
                    if answer.is_err() {
                        state.lines.remove(&id);
                    }
                    (Some((call.tell, answer)), None)
                }
                None => (None, state.lines.get_mut(&id).and_then(|line| line.restored(answer))),
            },
            Down::Item { id, item } => {
                let line = state.lines.get_mut(&id);
                let overflows = line.is_some_and(|line| line.overflows(&item));
                if overflows {
                    let _fits = self.outbox.push(&Up::Forget { id });
                }
                (None, state.lines.get_mut(&id).and_then(|line| line.push(item)))
            }
            Down::End { id } => (None, state.lines.get_mut(&id).and_then(Line::end)),
        };
        drop(state);
        if let Some((tell, answer)) = told {
            // Whoever gave up does not want to know.
            let _ = tell.send(answer);
        }
        waker.into_iter().for_each(Waker::wake);
    }

    fn poll_line(&self, id: u64, cx: &mut Context<'_>) -> Poll<Option<Result<Item>>> {
        let mut state = self.state();
        let Some(line) = state.lines.get_mut(&id) else { return Poll::Ready(None) };
        let (next, replaced) = line.poll(cx);
        drop(state);
        // A waker may run foreign code when it is dropped.
        drop(replaced);
        next
    }

    fn stop(&self, id: u64) {
        let mut state = self.state();
        let connected = matches!(state.phase, Phase::Connected);
        let Some(line) = state.lines.get_mut(&id) else { return };
        let waker = line.stop(connected);
        if connected {
            let _fits = self.outbox.push(&Up::Stop { id });
        }
        drop(state);
        waker.into_iter().for_each(Waker::wake);
    }

    fn forget(&self, id: u64) {
        let mut state = self.state();
        let (call, line) = (state.calls.remove(&id), state.lines.remove(&id));
        if matches!(state.phase, Phase::Connected) && (call.is_some() || line.is_some()) {
            let _fits = self.outbox.push(&Up::Forget { id });
        }
        drop(state);
        drop((call, line));
    }

    fn end_lines(&self) {
        let wakers: Vec<Waker> = self.state().lines.values_mut().filter_map(Line::end).collect();
        wakers.into_iter().for_each(Waker::wake);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no code panics while it holds the lock")
    }
}
