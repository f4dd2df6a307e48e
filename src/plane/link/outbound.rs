use std::collections::VecDeque;

use bytes::Bytes;

use super::batch::Batch;
use super::frame::{BODY_BYTES_MAX, CHUNK_BYTES, Kind, LAST};

/// So many messages travel in chunks side by side; the others wait for their turn.
const TURNS_MAX: usize = 16;
/// Items of this length and more travel in frames of their own, uncopied.
const ALONE_BYTES: usize = 16 * 1024;

/// A message that travels in chunks.
#[derive(Debug)]
pub(super) struct Body {
    pub(super) stream: u64,
    pub(super) what: What,
    /// What was not sent yet.
    pub(super) rest: Bytes,
}

/// What travels in chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    /// The payload of a request, whose head is out already.
    Request,
    /// An item, whose head goes out when its first turn comes.
    Item { last: bool, load: u32, begun: bool },
}

/// The messages that travel in chunks, taking turns, so that none of them holds up another.
#[derive(Debug)]
pub(super) struct Bodies {
    turns: VecDeque<(Body, usize)>,
    waiting: VecDeque<Body>,
    /// What those that take turns have in all.
    turning_bytes: usize,
    /// What the peer is willing to assemble at once.
    assembling_bytes: usize,
    /// What was not sent of all of them, and of the items among them.
    left_bytes: usize,
    items_left_bytes: usize,
}

impl Bodies {
    pub(super) fn new(assembling_bytes: usize) -> Self {
        let (turns, waiting) = Default::default();
        let (turning_bytes, left_bytes, items_left_bytes) = (0, 0, 0);
        Self { turns, waiting, turning_bytes, assembling_bytes, left_bytes, items_left_bytes }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.turns.is_empty() && self.waiting.is_empty()
    }

    pub(super) fn left_bytes(&self) -> usize {
        self.left_bytes
    }

    /// The same of answers alone.
    pub(super) fn items_left_bytes(&self) -> usize {
        self.items_left_bytes
    }

    pub(super) fn push(&mut self, body: Body) {
        self.count_in(&body);
        self.waiting.push_back(body);
    }

    /// The one whose turn it is, with what it had in all.
    pub(super) fn next(&mut self) -> Option<(Body, usize)> {
        while let Some(body) = self.waiting.front() {
            let bytes = body.rest.len();
            let fits = self.turns.len() < TURNS_MAX && self.turning_bytes + bytes <= self.assembling_bytes;
            if !fits && self.turning_bytes > 0 {
                break;
            }
            self.turning_bytes += bytes;
            self.turns.extend(self.waiting.pop_front().map(|body| (body, bytes)));
        }
        let (body, bytes) = self.turns.pop_front()?;
        self.left_bytes -= body.rest.len();
        if body.what != What::Request {
            self.items_left_bytes -= body.rest.len();
        }
        Some((body, bytes))
    }

    /// It has more to send, and waits for its next turn.
    pub(super) fn again(&mut self, body: Body, bytes: usize) {
        self.count_in(&body);
        self.turns.push_back((body, bytes));
    }

    fn count_in(&mut self, body: &Body) {
        self.left_bytes += body.rest.len();
        if body.what != What::Request {
            self.items_left_bytes += body.rest.len();
        }
    }

    /// It is over, of this many bytes in all.
    pub(super) fn over(&mut self, bytes: usize) {
        self.turning_bytes -= bytes;
    }
}

/// Writes items of one stream that need no chunks, as few frames as they fit in.
/// `sent` is how many were sent before, and then how many with these.
pub(super) fn write_items(
    out: &mut Batch,
    stream: u64,
    load: u32,
    sent: &mut u64,
    items: &[Bytes],
    last: bool,
) {
    let mut rest = items;
    while let Some((first, others)) = rest.split_first() {
        let count = 1 + if first.len() < ALONE_BYTES { fitting(first.len(), others) } else { 0 };
        let (frame, after) = rest.split_at(count);
        rest = after;
        let flags = if last && rest.is_empty() { LAST } else { 0 };
        let number = (*sent as u32).to_le_bytes();
        *sent += count as u64;
        match frame {
            [item] => {
                debug_assert!(item.len() <= CHUNK_BYTES);
                out.head(Kind::Item, flags, stream, 8 + item.len());
                out.part(&load.to_le_bytes());
                out.part(&number);
                out.payload(item);
            }
            _ => {
                let bytes: usize = frame.iter().map(Bytes::len).sum();
                out.head(Kind::Items, flags, stream, 12 + 4 * frame.len() + bytes);
                out.part(&load.to_le_bytes());
                out.part(&number);
                out.part(&(frame.len() as u32).to_le_bytes());
                frame.iter().for_each(|item| out.part(&(item.len() as u32).to_le_bytes()));
                frame.iter().for_each(|item| out.part(item));
            }
        }
    }
}

/// How many more items fit into the frame of one.
fn fitting(first: usize, others: &[Bytes]) -> usize {
    let mut bytes = 12 + 4 + first;
    let fits = |item: &&Bytes| {
        bytes += 4 + item.len();
        item.len() < ALONE_BYTES && bytes <= BODY_BYTES_MAX
    };
    others.iter().take_while(fits).count()
}
