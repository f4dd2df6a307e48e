//! What arrives: frames are read, and what they bring is sorted by stream and delivered.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use slipring_core::{Effect, Error};

use super::assembly::{Added, Assembly, ItemAssembly, Opening};
use super::flow::{Outflow, failure};
use super::frame::{HEAD_BYTES, Head, Kind, LAST, MORE, Preamble, Reader};
use super::reason::{CloseReason, Violation};
use super::shared::Shared;
use super::streams::Streams;
use super::taking::Taking;
use super::targets::Targets;
use super::{Arrival, Inbound, Sink};
use crate::plane::wire::decode_failure;

/// So many frames are taken in before others get at the streams.
const FRAMES_PER_LOCK: usize = 32;
/// What is shorter is copied, so that a small message never keeps a large buffer alive.
const COPY_BELOW_BYTES: usize = 8 * 1024;
/// The reason in a close: the protocol was broken.
pub(super) const ACCUSED: u8 = 1;

/// What was read and not taken in yet, and what it brought.
#[derive(Debug, Default)]
pub(super) struct Intake {
    pub(super) input: BytesMut,
    deliveries: Vec<Delivery>,
    /// How many of the deliveries are of this round; the others keep their room for later.
    used: usize,
    round: u64,
    requests: Vec<Inbound>,
    targets: Targets,
}

/// What one round brought for one stream.
#[derive(Debug, Default)]
struct Delivery {
    sink: Option<Arc<dyn Sink>>,
    arrivals: Vec<Arrival>,
    load: Option<u64>,
}

/// How a group of frames ended.
enum Group {
    /// Nothing whole is left.
    Done,
    /// There is more.
    More,
    /// The peer wants to deliver the answers of a call of ours.
    Attach { stream: u64, call: u64, token: u64 },
}

impl Intake {
    /// Takes in all whole frames and delivers what they bring; that is done even if one of them is wrong.
    pub(super) fn take(&mut self, shared: &Arc<Shared>) -> Result<(), CloseReason> {
        self.round += 1;
        let taken = self.take_all(shared);
        let streams = self.used + self.requests.len();
        shared.streams().recent = streams;
        for request in self.requests.drain(..) {
            shared.local.host.handle_request(request);
        }
        for delivery in &mut self.deliveries[..self.used] {
            if let Some(sink) = delivery.sink.take() {
                sink.deliver(&mut delivery.arrivals, delivery.load.take());
            }
            delivery.arrivals.clear();
        }
        self.used = 0;
        taken
    }

    /// Gives up the room that is kept.
    pub(super) fn shrink(&mut self) {
        if self.input.is_empty() {
            self.input = BytesMut::new();
        }
        (self.deliveries, self.requests) = (Vec::new(), Vec::new());
    }

    fn take_all(&mut self, shared: &Arc<Shared>) -> Result<(), CloseReason> {
        loop {
            match self.group(shared)? {
                Group::Done => return Ok(()),
                Group::More => {}
                Group::Attach { stream, call, token } => self.attach(shared, stream, call, token),
            }
        }
    }

    fn group(&mut self, shared: &Arc<Shared>) -> Result<Group, CloseReason> {
        let mut streams = shared.streams();
        for _ in 0..FRAMES_PER_LOCK {
            let Some(head) = Head::read(&self.input)? else { return Ok(Group::Done) };
            let bytes = HEAD_BYTES + head.length;
            let Some(rest) = self.input.len().checked_sub(bytes) else { return Ok(Group::Done) };
            let attach = self.frame(&mut streams, shared, head)?;
            // Most frames take their body away.
            self.input.advance(self.input.len() - rest);
            if let Some(attach) = attach {
                return Ok(attach);
            }
        }
        Ok(Group::More)
    }

    fn frame(
        &mut self,
        streams: &mut Streams,
        shared: &Arc<Shared>,
        head: Head,
    ) -> Result<Option<Group>, CloseReason> {
        let stream = head.stream;
        match head.kind {
            Kind::Open => self.open(streams, shared, head)?,
            Kind::Item => self.item(streams, shared, head)?,
            Kind::Items => self.items(streams, head)?,
            Kind::Data => self.data(streams, shared, head)?,
            Kind::Attach => {
                let mut body = Reader(self.body(head));
                let (call, token) = (body.u64()?, body.u64()?);
                number(streams, stream)?;
                if streams.gone_away.is_some() {
                    return Ok(None);
                }
                streams.totals.streams_accepted += 1;
                streams.peer_open += 1;
                return Ok(Some(Group::Attach { stream, call, token }));
            }
            Kind::End => {
                let mut body = Reader(self.body(head));
                let (load, count) = (body.u32()?, body.u64()?);
                // Before it is removed: what was broken has to be told.
                if streams.taking.get_mut(stream).is_some_and(|taking| taking.items != count) {
                    return Err(Violation::Count.into());
                }
                let Some(taking) = self.ended(streams, stream)? else { return Ok(None) };
                self.last_arrival(taking, Arrival::End { count }, Some(load));
            }
            Kind::Fail => {
                let mut body = Reader(self.body(head));
                let load = body.u32()?;
                let error = decode_failure(body.0).map_err(|_| Violation::Malformed)?;
                let Some(taking) = self.ended(streams, stream)? else { return Ok(None) };
                streams.totals.failures_received += 1;
                self.last_arrival(taking, Arrival::Failed(error), Some(load));
            }
            Kind::Reset => {
                let Some(taking) = streams.stop_taking(stream) else {
                    return Ok(streams.check_late(stream).map(|()| None)?);
                };
                streams.totals.resets_received += 1;
                let error = Error::stream_interrupted(0, "the answering side broke it off");
                self.last_arrival(taking, Arrival::Failed(error), None);
            }
            Kind::Cancel => {
                if streams.stop_opening(stream).is_some() {
                    streams.totals.cancels_received += 1;
                } else if let Some(answering) = streams.stop_answering(stream) {
                    streams.totals.cancels_received += 1;
                    answering.stream.leave();
                } else {
                    streams.check_late(stream)?;
                }
            }
            Kind::Window => {
                let bytes = Reader(self.body(head)).u32()?;
                streams.allow(stream, bytes)?;
            }
            Kind::Ping => {
                streams.totals.pings_received += 1;
                streams.control(Kind::Pong, 0, &self.input[HEAD_BYTES..HEAD_BYTES + head.length]);
            }
            // That something came is all that counts.
            Kind::Pong => {}
            Kind::GoAway => {
                let last = Reader(self.body(head)).u64()?;
                self.gone_away(streams, shared, last)?;
            }
            Kind::Close => {
                return Err(match self.body(head) {
                    [ACCUSED] => CloseReason::Accused,
                    // The peer was the first to see that nothing is left.
                    [0] if streams.is_drained() => CloseReason::Drained,
                    [0] => CloseReason::PeerClosed,
                    _ => Violation::Malformed.into(),
                });
            }
        }
        Ok(None)
    }

    /// The body of the frame at the front.
    fn body(&self, head: Head) -> &[u8] {
        &self.input[HEAD_BYTES..HEAD_BYTES + head.length]
    }

    /// Takes the frame at the front away, and of its body what is behind so many bytes.
    fn take_body(&mut self, head: Head, behind: usize) -> Bytes {
        let (start, end) = (HEAD_BYTES + behind, HEAD_BYTES + head.length);
        if end - start < COPY_BELOW_BYTES {
            let body = Bytes::copy_from_slice(&self.input[start..end]);
            self.input.advance(end);
            return body;
        }
        let mut frame = self.input.split_to(end).freeze();
        frame.advance(start);
        frame
    }

    fn open(&mut self, streams: &mut Streams, shared: &Arc<Shared>, head: Head) -> Result<(), CloseReason> {
        let stream = head.stream;
        number(streams, stream)?;
        if streams.gone_away.is_some() {
            // The peer learns from our going away that this one was not taken.
            streams.totals.refused_draining += 1;
            return Ok(());
        }
        let limits = &shared.local.limits;
        if streams.peer_open >= limits.streams_max {
            return Err(Violation::TooManyStreams.into());
        }
        let body = &self.input[HEAD_BYTES..HEAD_BYTES + head.length];
        let Preamble { deadline, payload_bytes, target, headers, bytes } = Preamble::read(body)?;
        let target = self.targets.shared(target);
        if payload_bytes > limits.message_bytes_max {
            return Err(Violation::TooLong.into());
        }
        let carried = head.length - bytes;
        if carried != if head.flags & MORE == 0 { payload_bytes } else { 0 } {
            return Err(Violation::Malformed.into());
        }
        if head.flags & MORE == 0 {
            streams.totals.streams_accepted += 1;
            streams.peer_open += 1;
            let payload = self.take_body(head, bytes);
            self.request(streams, shared, stream, target, deadline, headers, payload);
            return Ok(());
        }
        if payload_bytes == 0 {
            return Err(Violation::Malformed.into());
        }
        let assembly = Assembly::new(payload_bytes);
        let opening = Opening { target, deadline, headers, assembly };
        match streams.begin_opening(stream, opening, limits.openings_bytes_max) {
            Some(()) => streams.totals.streams_accepted += 1,
            None => refuse(streams, stream, "requests that are not whole"),
        }
        Ok(())
    }

    #[expect(clippy::too_many_arguments, reason = "they are what a request is made of")]
    fn request(
        &mut self,
        streams: &mut Streams,
        shared: &Arc<Shared>,
        stream: u64,
        target: Arc<str>,
        deadline: Duration,
        headers: slipring_core::Headers,
        payload: Bytes,
    ) {
        let answers = Outflow::new(shared.clone(), streams.answer(stream));
        self.requests.push(Inbound { target, deadline, headers, payload, answers });
    }

    fn item(&mut self, streams: &mut Streams, shared: &Arc<Shared>, head: Head) -> Result<(), CloseReason> {
        let mut body = Reader(self.body(head));
        let (load, number) = (body.u32()?, body.u32()?);
        let last = head.flags & LAST != 0;
        let chunked = head.flags & MORE != 0;
        let bytes = if chunked { body.u32()? as usize } else { body.0.len() };
        if chunked && (bytes == 0 || !body.0.is_empty()) {
            return Err(Violation::Malformed.into());
        }
        if bytes > shared.local.limits.message_bytes_max {
            return Err(Violation::TooLong.into());
        }
        let Some(taking) = streams.taking.get_mut(head.stream) else {
            return Ok(streams.check_late(head.stream)?);
        };
        taking.check_next(number)?;
        taking.charge(bytes)?;
        if chunked {
            let assembly = Assembly::new(bytes);
            taking.assembly = Some(Box::new(ItemAssembly { last, load: u64::from(load), assembly }));
            return Ok(());
        }
        streams.totals.items_received += 1;
        let payload = self.take_body(head, 8);
        let item = Arrival::Item { payload, last };
        self.arrive(streams, head.stream, [item], last, load.into());
        Ok(())
    }

    fn items(&mut self, streams: &mut Streams, head: Head) -> Result<(), CloseReason> {
        let mut body = Reader(self.body(head));
        let (load, number, count) = (body.u32()?, body.u32()?, body.u32()? as usize);
        let lengths = body.take(count.checked_mul(4).ok_or(Violation::Malformed)?)?;
        let lengths = || lengths.chunks_exact(4).map(|l| u32::from_le_bytes([l[0], l[1], l[2], l[3]]));
        let sum: u64 = lengths().map(u64::from).sum();
        if count == 0 || sum != body.0.len() as u64 {
            return Err(Violation::Malformed.into());
        }
        let Some(taking) = streams.taking.get_mut(head.stream) else {
            return Ok(streams.check_late(head.stream)?);
        };
        taking.check_next(number)?;
        for length in lengths() {
            taking.charge(length as usize)?;
        }
        streams.totals.items_received += count as u64;
        let mut bodies = self.take_body(head, 12);
        let mut lengths = bodies.split_to(4 * count);
        let last = head.flags & LAST != 0;
        let items = (1..=count).map(|at| {
            let payload = bodies.split_to(lengths.get_u32_le() as usize);
            Arrival::Item { payload, last: last && at == count }
        });
        self.arrive(streams, head.stream, items, last, load.into());
        Ok(())
    }

    /// Puts items of a stream with what else came for it in this round.
    fn arrive(
        &mut self,
        streams: &mut Streams,
        stream: u64,
        items: impl IntoIterator<Item = Arrival>,
        last: bool,
        load: u64,
    ) {
        let Some(taking) = streams.taking.get_mut(stream) else { return };
        let (round, at) = taking.delivery;
        let at = if round == self.round { at } else { self.delivery(taking) };
        let delivery = &mut self.deliveries[at];
        delivery.load = Some(load);
        delivery.arrivals.extend(items);
        if last {
            streams.stop_taking(stream);
        }
    }

    /// A delivery of this round for a stream that has none yet.
    fn delivery(&mut self, taking: &mut Taking) -> usize {
        let at = self.used;
        self.used += 1;
        if at == self.deliveries.len() {
            self.deliveries.push(Delivery::default());
        }
        self.deliveries[at].sink = Some(taking.sink.clone());
        taking.delivery = (self.round, at);
        at
    }

    /// The last that a stream gets, which is no item.
    fn last_arrival(&mut self, mut taking: Taking, arrival: Arrival, load: Option<u32>) {
        let (round, at) = taking.delivery;
        let at = if round == self.round { at } else { self.delivery(&mut taking) };
        let delivery = &mut self.deliveries[at];
        delivery.load = load.map(u64::from).or(delivery.load);
        delivery.arrivals.push(arrival);
    }

    /// A stream whose items end here.
    fn ended(&self, streams: &mut Streams, stream: u64) -> Result<Option<Taking>, Violation> {
        match streams.taking.get_mut(stream) {
            None => streams.check_late(stream).map(|()| None),
            Some(taking) if taking.assembly.is_some() => Err(Violation::Chunk),
            Some(_) => Ok(streams.stop_taking(stream)),
        }
    }

    fn data(&mut self, streams: &mut Streams, shared: &Arc<Shared>, head: Head) -> Result<(), CloseReason> {
        let stream = head.stream;
        let mut body = Reader(&self.input[HEAD_BYTES..HEAD_BYTES + head.length]);
        let (offset, chunk) = (body.u32()?, body.0);
        let max = shared.local.limits.assembling_bytes_max;
        if let Some(opening) = streams.opening.get_mut(&stream) {
            match opening.assembly.add(offset, chunk, &mut streams.assembling_bytes, max)? {
                Added::More => {}
                Added::Whole(payload) => {
                    let opening = streams.end_opening(stream).expect("it was just there");
                    let Opening { target, deadline, headers, .. } = opening;
                    self.request(streams, shared, stream, target, deadline, headers, payload);
                }
                Added::Refused => {
                    streams.stop_opening(stream);
                    refuse(streams, stream, "bytes that arrive in chunks");
                }
            }
            return Ok(());
        }
        let Some(taking) = streams.taking.get_mut(stream) else {
            // A request that came whole has no more chunks; one that was refused has.
            if streams.answering.contains(stream) {
                return Err(Violation::Chunk.into());
            }
            return Ok(streams.check_late(stream)?);
        };
        let Some(item) = &mut taking.assembly else { return Err(Violation::Chunk.into()) };
        let (last, load) = (item.last, item.load);
        match item.assembly.add(offset, chunk, &mut streams.assembling_bytes, max)? {
            Added::More => {}
            Added::Whole(payload) => {
                taking.assembly = None;
                streams.totals.items_received += 1;
                self.arrive(streams, stream, [Arrival::Item { payload, last }], last, load);
            }
            Added::Refused => {
                let taking = streams.stop_taking(stream).expect("it was just there");
                streams.totals.refused_overloaded += 1;
                let what = "the link (its limit of bytes that arrive in chunks)";
                self.last_arrival(
                    taking,
                    Arrival::Failed(Error::overloaded(what).raise(Effect::Applied)),
                    None,
                );
                streams.control(Kind::Cancel, stream, &[]);
            }
        }
        Ok(())
    }

    /// The peer takes no more streams of ours, and did not take those beyond the last.
    fn gone_away(&mut self, streams: &mut Streams, shared: &Shared, last: u64) -> Result<(), Violation> {
        if streams.peer_gone {
            return Err(Violation::GoneAlready);
        }
        if last != 0 && (!streams.is_own(last) || last >= streams.next_own) {
            return Err(Violation::StreamNumber);
        }
        streams.peer_gone = true;
        tracing::debug!(peer = shared.peer_name(), last, "the peer goes away");
        for stream in streams.taking.numbers() {
            if streams.is_own(stream) && stream > last {
                let taking = streams.stop_taking(stream).expect("it was just listed");
                self.last_arrival(taking, Arrival::Failed(shared.draining()), None);
            }
        }
        for stream in streams.answering.numbers() {
            if streams.is_own(stream) && stream > last {
                let answering = streams.stop_answering(stream).expect("it was just listed");
                answering.stream.leave();
            }
        }
        Ok(())
    }

    fn attach(&mut self, shared: &Arc<Shared>, stream: u64, call: u64, token: u64) {
        let limits = &shared.local.limits;
        let window = super::hello::Allowance::of(limits).window_bytes;
        // Without the lock: the host has locks of its own.
        let inflow = super::flow::Inflow::new(shared.clone(), stream, window);
        // It outlives the lock below: the last hold on it gives the stream up.
        let sink = shared.local.host.adopt(call, token, inflow);
        let mut streams = shared.streams();
        if let Some(sink) = sink.as_ref().filter(|_| streams.peer_open <= limits.streams_max) {
            streams.take(stream, sink.clone(), window);
            // The request did not go this way: it is known to have left.
            if let Some(taking) = streams.taking.get_mut(stream) {
                taking.leaves_at = 0;
            }
            // Whoever gave it up before it was there could not say so.
            if !sink.is_over() {
                return;
            }
            streams.stop_taking(stream);
        } else {
            streams.peer_open -= 1;
        }
        streams.totals.cancels_sent += 1;
        streams.control(Kind::Cancel, stream, &[]);
    }
}

/// There is no room for a request, whose stream is over with that.
fn refuse(streams: &mut Streams, stream: u64, limit: &str) {
    streams.totals.refused_overloaded += 1;
    let error = Error::overloaded(format!("the link (its limit of {limit})"));
    streams.control(Kind::Fail, stream, &failure(&error, 0));
}

/// The peer opens a stream: they are numbered without holes.
fn number(streams: &mut Streams, stream: u64) -> Result<(), Violation> {
    if stream != streams.next_peer {
        return Err(Violation::StreamNumber);
    }
    streams.next_peer += 2;
    Ok(())
}
