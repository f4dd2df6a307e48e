use std::collections::{BTreeMap, BTreeSet, VecDeque};

use slipring_core::{Pattern, QueueGroup};

use super::lines::Lines;
use super::{Findings, Terms};
use crate::history::{Event, History, Letter};

/// M1 to M5, and M9 to M11, where messages are told.
pub(super) fn check(history: &History, terms: &Terms, found: &mut Findings<'_>) {
    let payload_bytes_max = terms.profile.messaging.payload_bytes_max;
    let mut bus = Bus::default();
    for (place, moment) in history.moments().iter().enumerate() {
        match &moment.event {
            Event::Published(letter) => {
                if letter.bytes > payload_bytes_max {
                    let what = format!("a message of {} bytes, {payload_bytes_max} at most", letter.bytes);
                    found.add("M11", [place], what);
                }
                bus.publish(place, letter);
            }
            // What a request sends takes part in no order.
            Event::Request { step: crate::history::RequestStep::Arrived(letter), .. } => {
                bus.requests.insert(letter.digest);
            }
            Event::Subscribed { line, pattern, .. } => bus.subscribe(*line, pattern),
            Event::Delivered(letter) => {
                if let Err((invariant, places, what)) = bus.deliver(place, letter) {
                    bus.readers.remove(&letter.line);
                    bus.given_up.insert(letter.line);
                    found.add(invariant, places, format!("subscription {} {what}", letter.line));
                }
            }
            Event::Lagged { line, missed } => bus.lag(*line, *missed),
            _ => {}
        }
        bus.lines.follow(&moment.event);
    }
    bus.end(found);
}

#[derive(Default)]
struct Bus<'a> {
    lines: Lines<'a>,
    readers: BTreeMap<u64, Reader<'a>>,
    given_up: BTreeSet<u64>,
    requests: BTreeSet<u64>,
    /// Where a message was published, by its digest.
    published: BTreeMap<u64, usize>,
    /// Who of a group got a message, by the place of its publication.
    taken: BTreeMap<(usize, &'a QueueGroup), u64>,
}

/// The far end of a subscription.
struct Reader<'a> {
    pattern: &'a Pattern,
    /// What it is to get, in the order of publication.
    expected: VecDeque<Expected<'a>>,
    /// What it has got, and where.
    got: BTreeMap<u64, usize>,
    /// It was restored after a cut, and not told so yet.
    cut: bool,
    /// It was told that so many messages are missing here.
    lag: Option<u64>,
}

struct Expected<'a> {
    place: usize,
    digest: u64,
    publisher: u64,
    queue: Option<&'a QueueGroup>,
    /// Another message of its publisher overtook it, there.
    overtaken: Option<usize>,
}

/// The invariant, the places that matter, and what is wrong.
type Broken = (&'static str, Vec<usize>, String);

impl<'a> Bus<'a> {
    fn publish(&mut self, place: usize, letter: &Letter) {
        self.published.insert(letter.digest, place);
        for (line, queue) in self.lines.matching(&letter.subject) {
            let Some(reader) = self.readers.get_mut(&line) else { continue };
            let (digest, publisher) = (letter.digest, letter.line);
            reader.expected.push_back(Expected { place, digest, publisher, queue, overtaken: None });
        }
    }

    fn subscribe(&mut self, line: u64, pattern: &'a Pattern) {
        let (expected, got) = Default::default();
        let again = self.readers.contains_key(&line);
        if !self.given_up.contains(&line) {
            self.readers.insert(line, Reader { pattern, expected, got, cut: again, lag: None });
        }
    }

    fn lag(&mut self, line: u64, missed: u64) {
        if let Some(reader) = self.readers.get_mut(&line) {
            let restored = std::mem::take(&mut reader.cut);
            // After a reconnection nothing from before comes any more, and nothing after it is missing.
            reader.lag = if restored { None } else { Some(reader.lag.unwrap_or_default() + missed) };
        }
    }

    fn deliver(&mut self, place: usize, letter: &Letter) -> Result<(), Broken> {
        if letter.no_responders || self.given_up.contains(&letter.line) {
            return Ok(());
        }
        let Some(reader) = self.readers.get_mut(&letter.line) else {
            return Err(("M3", vec![place], "gets a message, and was never there".to_owned()));
        };
        if !reader.pattern.matches(&letter.subject) {
            let what = format!("to {} gets a message to {}", reader.pattern, letter.subject);
            return Err(("M5", vec![place], what));
        }
        if reader.cut {
            let what = "goes on after a reconnection as if nothing could be missing".to_owned();
            return Err(("M9", vec![place], what));
        }
        let Some(at) = reader.expected.iter().position(|expected| expected.digest == letter.digest) else {
            return self.deliver_unexpected(place, letter);
        };
        reader.skip(at, place).map_err(|(places, what)| ("M10", places, what))?;
        let at = reader.expected.iter().position(|expected| expected.digest == letter.digest);
        let Some(expected) = at.and_then(|at| reader.expected.remove(at)) else { return Ok(()) };
        reader.got.insert(letter.digest, place);
        if let Some(overtaken) = expected.overtaken {
            let what = "gets a message after a later one of the same publisher".to_owned();
            return Err(("M2", vec![expected.place, overtaken, place], what));
        }
        let Some(queue) = expected.queue else { return Ok(()) };
        match self.taken.insert((expected.place, queue), letter.line) {
            Some(other) if other != letter.line => {
                let what = format!("gets a message that {other} of its group {queue} has got");
                Err(("M4", vec![expected.place, place], what))
            }
            _ => Ok(()),
        }
    }

    fn deliver_unexpected(&self, place: usize, letter: &Letter) -> Result<(), Broken> {
        let got = self.readers.get(&letter.line).and_then(|reader| reader.got.get(&letter.digest));
        match (got, self.published.get(&letter.digest)) {
            _ if self.requests.contains(&letter.digest) => Ok(()),
            (Some(before), _) => Err(("M1", vec![*before, place], "gets a message twice".to_owned())),
            (None, Some(published)) => {
                let what = "gets a message from before its beginning, or after its end".to_owned();
                Err(("M3", vec![*published, place], what))
            }
            // It was published past the links.
            (None, None) => Ok(()),
        }
    }

    /// M4: what was overtaken, and never came.
    fn end(self, found: &mut Findings<'_>) {
        for (line, reader) in self.readers {
            let lost = reader.expected.iter().find(|expected| expected.queue.is_none());
            let lost = lost.and_then(|expected| Some((expected.place, expected.overtaken?)));
            if let Some((published, overtaken)) = lost {
                let what = format!("subscription {line} does not get a message, and gets the next one");
                found.add("M4", [published, overtaken], what);
            }
        }
    }
}

impl Reader<'_> {
    /// The message at `at` comes now. What is before it was said to be missing, or is overtaken.
    fn skip(&mut self, at: usize, place: usize) -> Result<(), (Vec<usize>, String)> {
        match self.lag.take() {
            None => {
                let publisher = self.expected[at].publisher;
                for expected in self.expected.iter_mut().take(at) {
                    if expected.publisher == publisher {
                        expected.overtaken.get_or_insert(place);
                    }
                }
            }
            // How many is not known.
            Some(0) => drop(self.expected.drain(..at)),
            Some(missed) => {
                let plain = self.expected.iter().take(at).filter(|expected| expected.queue.is_none()).count();
                let counted = self.expected.iter().any(|expected| expected.queue.is_some());
                let published = self.expected[at].place;
                self.expected.drain(..at);
                if !counted && plain as u64 != missed {
                    let what = format!("is told that {missed} messages are missing, and {plain} are");
                    return Err((vec![published, place], what));
                }
            }
        }
        Ok(())
    }
}
