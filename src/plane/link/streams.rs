//! The streams of a link and what waits for the wire: all that is behind its one lock.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Waker;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::Sink;
use super::assembly::Opening;
use super::batch::Batch;
use super::frame::{CHUNK_BYTES, HEAD_BYTES, Kind, LAST, MORE};
use super::hello::Allowance;
use super::limits::LinkLimits;
use super::outbound::{Bodies, Body, What, write_items};
use super::reason::{CloseReason, Violation};
use super::table::Table;
use super::taking::{Taking, cost};
use crate::plane::report::ConnectionTotals;

/// A batch takes chunks until it has so many bytes.
const FILL_BYTES: usize = 256 * 1024;

/// The streams, and what waits for the wire.
#[derive(Debug)]
pub(super) struct Streams {
    /// What goes out next.
    pub(super) batch: Batch,
    /// Bytes that went out, or are about to, before those of the batch.
    before: u64,
    pub(super) bodies: Bodies,
    /// Bytes of pongs, resets, refusals and window updates in the batch.
    pub(super) control_bytes: usize,
    /// Bytes of answers in the batch.
    answer_bytes: usize,
    /// Streams whose items this end takes.
    pub(super) taking: Table<Taking>,
    /// Streams that this end answers.
    pub(super) answering: Table<Answering>,
    /// Requests whose payload is not whole yet.
    pub(super) opening: BTreeMap<u64, Opening>,
    /// What those and the items that arrive in chunks will have in all.
    pub(super) assembling_bytes: usize,
    /// What those requests take beside their payload.
    opening_bytes: usize,
    /// The number of the next stream that this end opens, and of the next that the peer does.
    pub(super) next_own: u64,
    pub(super) next_peer: u64,
    /// Streams that are open: opened by this end, and by the peer.
    pub(super) own_open: usize,
    pub(super) peer_open: usize,
    /// This end has gone away, and took streams up to this number.
    pub(super) gone_away: Option<u64>,
    /// The peer has gone away.
    pub(super) peer_gone: bool,
    /// The link is to be closed.
    pub(super) closing: Option<CloseReason>,
    /// It is closed.
    pub(super) closed: bool,
    /// The link's task is running or about to run: nobody has to wake it.
    pub(super) awake: bool,
    pub(super) waker: Option<Waker>,
    /// The link's task sleeps for long: it has to know when a stream is opened.
    pub(super) dozing: bool,
    /// When the next sink has to be woken, and whether the link's task does not know that yet.
    pub(super) wakes_at: Option<Instant>,
    pub(super) wakes_sooner: bool,
    /// How many streams the last read was about.
    pub(super) recent: usize,
    pub(super) totals: ConnectionTotals,
    theirs: Allowance,
}

/// A stream that this end answers.
#[derive(Debug)]
pub(super) struct Answering {
    pub(super) stream: Arc<AnswerState>,
    /// What may still be sent.
    pub(super) credit: i64,
    /// How many items were sent.
    sent: u64,
    /// What has to wait for credit, or for a chunked item before it.
    pending: VecDeque<Pending>,
    /// An item of it travels in chunks.
    chunked: bool,
}

/// What those who answer see of a stream without the lock.
#[derive(Debug, Default)]
pub(super) struct AnswerState {
    pub(super) number: u64,
    /// It may send.
    pub(super) room: AtomicBool,
    pub(super) room_changed: Notify,
    /// Cancelled by the peer, or the link is closed.
    pub(super) gone: AtomicBool,
    pub(super) went: Notify,
    /// All was said.
    pub(super) over: AtomicBool,
}

#[derive(Debug)]
enum Pending {
    Item { payload: Bytes, last: bool, load: u32 },
    End { load: u32 },
    Fail(Bytes),
}

impl Streams {
    pub(super) fn new(dialler: bool, theirs: Allowance) -> Self {
        let (next_own, next_peer) = if dialler { (1, 2) } else { (2, 1) };
        Self {
            batch: Batch::default(),
            before: 0,
            bodies: Bodies::new(usize::try_from(theirs.assembling_bytes).unwrap_or(usize::MAX)),
            control_bytes: 0,
            answer_bytes: 0,
            taking: Table::new(next_own & 1),
            answering: Table::new(next_peer & 1),
            opening: BTreeMap::new(),
            assembling_bytes: 0,
            opening_bytes: 0,
            next_own,
            next_peer,
            own_open: 0,
            peer_open: 0,
            gone_away: None,
            peer_gone: false,
            closing: None,
            closed: false,
            awake: true,
            waker: None,
            dozing: false,
            wakes_at: None,
            wakes_sooner: false,
            recent: 0,
            totals: ConnectionTotals::default(),
            theirs,
        }
    }

    /// How many streams are open.
    pub(super) fn open(&self) -> usize {
        self.own_open + self.peer_open
    }

    /// Have both ends gone away, and is no stream open?
    pub(super) fn is_drained(&self) -> bool {
        self.peer_gone && self.gone_away.is_some() && self.open() == 0
    }

    /// How many bytes went out before this point of the order in which things go out.
    pub(super) fn appended(&self) -> u64 {
        self.before + self.batch.bytes() as u64
    }

    /// Was this stream opened by this end?
    pub(super) fn is_own(&self, stream: u64) -> bool {
        stream & 1 == self.next_own & 1
    }

    /// A frame about a stream that is not there: late ones are of no interest, others cannot be.
    pub(super) fn check_late(&self, stream: u64) -> Result<(), Violation> {
        let next = if self.is_own(stream) { self.next_own } else { self.next_peer };
        if stream < next { Ok(()) } else { Err(Violation::NeverOpened) }
    }

    /// A number for a stream of this end.
    pub(super) fn number(&mut self) -> u64 {
        let number = self.next_own;
        self.next_own += 2;
        self.own_open += 1;
        number
    }

    fn count_out(&mut self, stream: u64) {
        if self.is_own(stream) {
            self.own_open -= 1;
        } else {
            self.peer_open -= 1;
        }
    }

    /// Does so much wait for the wire that the peer has to be cut off?
    pub(super) fn is_unread(&self, limits: &LinkLimits) -> bool {
        let answers = self.answer_bytes + self.bodies.items_left_bytes();
        self.control_bytes > limits.control_bytes_max
            || answers > limits.answers_bytes_max.saturating_add(limits.message_bytes_max)
    }

    /// Adds answers, and counts what that adds to the batch.
    pub(super) fn answers<T>(&mut self, add: impl FnOnce(&mut Self) -> T) -> T {
        let before = self.batch.bytes();
        let added = add(self);
        self.answer_bytes += self.batch.bytes() - before;
        added
    }

    /// Adds a frame that the peer makes us send.
    pub(super) fn control(&mut self, kind: Kind, stream: u64, body: &[u8]) {
        self.control_bytes += HEAD_BYTES + body.len();
        self.batch.head(kind, 0, stream, body.len());
        self.batch.part(body);
    }

    /// Adds a stream whose items are taken.
    pub(super) fn take(&mut self, stream: u64, sink: Arc<dyn Sink>, window: u32) {
        let credit = i64::from(window);
        let taking = Taking {
            sink,
            credit,
            items: 0,
            leaves_at: u64::MAX,
            wake_at: None,
            delivery: (0, 0),
            assembly: None,
        };
        self.taking.insert(stream, taking);
    }

    /// Has the sink of a stream woken at this time.
    pub(super) fn wake(&mut self, stream: u64, at: Option<Instant>) {
        if let (Some(at), Some(taking)) = (at, self.taking.get_mut(stream)) {
            taking.wake_at = Some(at);
            if self.wakes_at.is_none_or(|next| at < next) {
                (self.wakes_at, self.wakes_sooner) = (Some(at), true);
            }
        }
    }

    /// Those whose time to be woken has come.
    pub(super) fn due(&mut self, now: Instant) -> Vec<Arc<dyn Sink>> {
        let (mut due, mut next) = (Vec::new(), None::<Instant>);
        if self.wakes_at.is_some_and(|at| at <= now) {
            for taking in self.taking.values_mut() {
                match taking.wake_at {
                    Some(at) if at <= now => {
                        taking.wake_at = None;
                        due.push(taking.sink.clone());
                    }
                    Some(at) => next = Some(next.map_or(at, |next| next.min(at))),
                    None => {}
                }
            }
            self.wakes_at = next;
        }
        due
    }

    /// Removes a stream whose items were taken.
    pub(super) fn stop_taking(&mut self, stream: u64) -> Option<Taking> {
        let taking = self.taking.remove(stream)?;
        if let Some(item) = &taking.assembly {
            self.assembling_bytes -= item.assembly.charged();
        }
        self.count_out(stream);
        Some(taking)
    }

    /// Adds a request that is not whole; `None` if there is no room for it.
    pub(super) fn begin_opening(&mut self, stream: u64, opening: Opening, max: usize) -> Option<()> {
        if self.opening_bytes + opening.bytes() > max {
            return None;
        }
        self.opening_bytes += opening.bytes();
        self.peer_open += 1;
        self.opening.insert(stream, opening);
        Some(())
    }

    /// Removes a request that became whole; its stream goes on.
    pub(super) fn end_opening(&mut self, stream: u64) -> Option<Opening> {
        let opening = self.opening.remove(&stream)?;
        self.opening_bytes -= opening.bytes();
        Some(opening)
    }

    /// Removes a request that is not whole.
    pub(super) fn stop_opening(&mut self, stream: u64) -> Option<Opening> {
        let opening = self.end_opening(stream)?;
        self.assembling_bytes -= opening.assembly.charged();
        self.count_out(stream);
        Some(opening)
    }

    /// Adds a stream that is answered.
    pub(super) fn answer(&mut self, stream: u64) -> Arc<AnswerState> {
        let credit = i64::from(self.theirs.window_bytes);
        let room = AtomicBool::new(credit > 0);
        let state = Arc::new(AnswerState { number: stream, room, ..AnswerState::default() });
        let (sent, chunked) = (0, false);
        let pending = VecDeque::new();
        self.answering.insert(stream, Answering { stream: state.clone(), credit, sent, pending, chunked });
        state
    }

    /// Removes a stream that was answered; nothing more is sent on it.
    pub(super) fn stop_answering(&mut self, stream: u64) -> Option<Answering> {
        let answering = self.answering.remove(stream)?;
        self.count_out(stream);
        Some(answering)
    }

    /// Sends items, as far as there is credit; the others wait for it.
    pub(super) fn items(&mut self, stream: u64, items: &[Bytes], last: bool, load: u32) {
        let Some(answering) = self.answering.get_mut(stream) else { return };
        self.totals.items_sent += items.len() as u64;
        let mut now = 0;
        if answering.pending.is_empty() && !answering.chunked {
            while let Some(item) = items.get(now)
                && answering.credit > 0
                && item.len() <= CHUNK_BYTES
            {
                answering.credit -= cost(item.len());
                now += 1;
            }
        }
        let (now, later) = items.split_at(now);
        write_items(&mut self.batch, stream, load, &mut answering.sent, now, last && later.is_empty());
        if later.is_empty() {
            if last {
                self.stop_answering(stream);
            } else if answering.credit <= 0 {
                answering.stream.room.store(false, Ordering::Release);
                self.totals.credit_stalls += 1;
            }
            return;
        }
        let count = later.len();
        answering.pending.extend(later.iter().enumerate().map(|(at, item)| Pending::Item {
            payload: item.clone(),
            last: last && at + 1 == count,
            load,
        }));
        self.pump(stream);
    }

    /// Ends a stream.
    pub(super) fn end(&mut self, stream: u64, load: u32) {
        self.finish(stream, Pending::End { load });
    }

    /// Ends a stream with an error; the body says which.
    pub(super) fn fail(&mut self, stream: u64, body: Bytes) {
        self.finish(stream, Pending::Fail(body));
    }

    fn finish(&mut self, stream: u64, last: Pending) {
        if let Some(answering) = self.answering.get_mut(stream) {
            answering.pending.push_back(last);
            self.pump(stream);
        }
    }

    /// Gives credit back to a stream.
    pub(super) fn allow(&mut self, stream: u64, bytes: u32) -> Result<(), Violation> {
        let Some(answering) = self.answering.get_mut(stream) else { return self.check_late(stream) };
        answering.credit += i64::from(bytes);
        if answering.credit > i64::from(self.theirs.window_bytes) {
            return Err(Violation::TooMuchCredit);
        }
        self.answers(|streams| streams.pump(stream));
        Ok(())
    }

    /// Sends what waits on a stream, as far as it may.
    fn pump(&mut self, stream: u64) {
        let mut group = Vec::new();
        loop {
            let Some(answering) = self.answering.get_mut(stream) else { return };
            if answering.chunked {
                break;
            }
            let (mut done, mut ended) = (false, false);
            let mut said = 0;
            group.clear();
            while let Some(Pending::Item { payload, last, load }) = answering.pending.front()
                && answering.credit > 0
                && payload.len() <= CHUNK_BYTES
                && (group.is_empty() || said == *load)
            {
                answering.credit -= cost(payload.len());
                (ended, said) = (*last, *load);
                group.push(payload.clone());
                answering.pending.pop_front();
            }
            if !group.is_empty() {
                write_items(&mut self.batch, stream, said, &mut answering.sent, &group, ended);
            } else if matches!(answering.pending.front(), Some(Pending::Item { .. }) if answering.credit <= 0)
            {
                self.totals.credit_stalls += 1;
                done = true;
            } else {
                match answering.pending.pop_front() {
                    None => done = true,
                    Some(Pending::Item { payload, last, load }) => {
                        answering.credit -= cost(payload.len());
                        answering.chunked = true;
                        let what = What::Item { last, load, begun: false };
                        self.bodies.push(Body { stream, what, rest: payload });
                    }
                    Some(Pending::End { load }) => {
                        let mut body = [0; 12];
                        body[..4].copy_from_slice(&load.to_le_bytes());
                        body[4..].copy_from_slice(&answering.sent.to_le_bytes());
                        self.batch.head(Kind::End, 0, stream, body.len());
                        self.batch.part(&body);
                        ended = true;
                    }
                    Some(Pending::Fail(body)) => {
                        self.totals.failures_sent += 1;
                        self.batch.head(Kind::Fail, 0, stream, body.len());
                        self.batch.payload(&body);
                        ended = true;
                    }
                }
            }
            if ended {
                self.stop_answering(stream);
                return;
            }
            if done {
                break;
            }
        }
        let Some(answering) = self.answering.get_mut(stream) else { return };
        let room = answering.credit > 0 && answering.pending.is_empty() && !answering.chunked;
        let had = answering.stream.room.swap(room, Ordering::AcqRel);
        if room && !had {
            answering.stream.room_changed.notify_waiters();
        }
    }

    /// Adds chunks of long messages to the batch, in turns.
    pub(super) fn fill(&mut self) {
        let mut first = true;
        while first || self.batch.bytes() < FILL_BYTES {
            let Some((body, bytes)) = self.bodies.next() else { return };
            self.turn(body, bytes);
            first = false;
        }
    }

    fn turn(&mut self, mut body: Body, bytes: usize) {
        let Body { stream, what, .. } = body;
        let wanted = match what {
            What::Request => self.taking.contains(stream),
            What::Item { .. } => self.answering.contains(stream),
        };
        // It was given up: the peer has been told.
        if !wanted {
            self.bodies.over(bytes);
            return;
        }
        if let What::Item { last, load, begun: false } = what
            && let Some(answering) = self.answering.get_mut(stream)
        {
            self.batch.head(Kind::Item, MORE | if last { LAST } else { 0 }, stream, 12);
            self.batch.part(&load.to_le_bytes());
            self.batch.part(&(answering.sent as u32).to_le_bytes());
            self.batch.part(&(bytes as u32).to_le_bytes());
            answering.sent += 1;
            body.what = What::Item { last, load, begun: true };
        }
        let offset = (bytes - body.rest.len()) as u32;
        let chunk = body.rest.split_to(body.rest.len().min(CHUNK_BYTES));
        self.batch.head(Kind::Data, 0, stream, 4 + chunk.len());
        self.batch.part(&offset.to_le_bytes());
        self.batch.payload(&chunk);
        if !body.rest.is_empty() {
            self.bodies.again(body, bytes);
            return;
        }
        self.bodies.over(bytes);
        match what {
            What::Request => {
                let appended = self.appended();
                if let Some(taking) = self.taking.get_mut(stream) {
                    taking.leaves_at = appended;
                }
            }
            What::Item { last: true, .. } => drop(self.stop_answering(stream)),
            What::Item { .. } => {
                if let Some(answering) = self.answering.get_mut(stream) {
                    answering.chunked = false;
                }
                self.pump(stream);
            }
        }
    }

    /// Takes the batch, for the wire; an empty one is put in its place.
    pub(super) fn take_batch(&mut self, empty: &mut Batch) {
        debug_assert!(empty.is_empty());
        self.before += self.batch.bytes() as u64;
        (self.control_bytes, self.answer_bytes) = (0, 0);
        std::mem::swap(&mut self.batch, empty);
    }
}

impl AnswerState {
    pub(super) fn leave(&self) {
        self.gone.store(true, Ordering::Release);
        self.went.notify_waiters();
        self.room_changed.notify_waiters();
    }
}
