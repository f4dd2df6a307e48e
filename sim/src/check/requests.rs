use std::collections::BTreeMap;

use super::lines::Lines;
use super::{Findings, Terms};
use crate::history::{Event, History, Letter, RequestStep};

/// M6, M7: requests over the bus, where messages are told.
pub(super) fn check(history: &History, terms: &Terms, found: &mut Findings<'_>) {
    let mut requests = Requests {
        told: terms.profile.messaging.no_responders && !terms.foreign_calls,
        lines: Lines::default(),
        arrived: BTreeMap::new(),
        inboxes: BTreeMap::new(),
        first: BTreeMap::new(),
        asked: BTreeMap::new(),
    };
    for (place, moment) in history.moments().iter().enumerate() {
        match &moment.event {
            Event::Published(letter) => requests.publish(place, letter),
            Event::Delivered(letter) if letter.no_responders => requests.nobody(place, letter, found),
            Event::Request { request, step: RequestStep::Arrived(letter) } => {
                let heard = requests.lines.is_heard(&letter.subject);
                requests.arrived.insert(*request, (place, letter, heard));
            }
            Event::Request { request, step: RequestStep::Executed(end) } => {
                let Some((arrived, asked, heard)) = requests.arrived.remove(request) else { continue };
                let still = requests.lines.is_heard(&asked.subject);
                match end {
                    Ok(reply) => requests.reply(arrived, place, reply, found),
                    Err(failure) if failure.code == "no_responders" && heard && still => {
                        let what = format!("nobody is said to be at {}, and somebody is", asked.subject);
                        found.add("M7", [arrived, place], what);
                    }
                    Err(failure) if failure.code == "deadline_exceeded" && !heard && !still => {
                        if requests.told {
                            let what = format!("nobody is at {}, and that is not said", asked.subject);
                            found.add("M7", [arrived, place], what);
                        }
                    }
                    Err(_) => {}
                }
            }
            _ => {}
        }
        requests.lines.follow(&moment.event);
    }
}

struct Requests<'a> {
    /// Does the broker say that nobody is there?
    told: bool,
    lines: Lines<'a>,
    /// Requests at the broker; was somebody there?
    arrived: BTreeMap<u64, (usize, &'a Letter, bool)>,
    /// Where requests had their answers, and where that was.
    inboxes: BTreeMap<&'a str, usize>,
    /// The first message to a subject that no subscription hears, as the inboxes of requests.
    first: BTreeMap<&'a str, (usize, u64)>,
    /// Messages that ask for an answer, by where: was one of them heard by nobody?
    asked: BTreeMap<&'a str, (usize, bool)>,
}

impl<'a> Requests<'a> {
    fn publish(&mut self, place: usize, letter: &'a Letter) {
        let heard = self.lines.is_heard(&letter.subject);
        if !heard {
            self.first.entry(letter.subject.as_str()).or_insert((place, letter.digest));
        }
        if let Some(reply) = &letter.reply {
            let (at, unheard) = self.asked.entry(reply.as_str()).or_insert((place, false));
            (*at, *unheard) = (place, *unheard || !heard);
        }
    }

    fn nobody(&self, place: usize, letter: &Letter, found: &mut Findings<'_>) {
        if let Some((asked, false)) = self.asked.get(letter.subject.as_str()) {
            let what = format!("nobody is said to be there at {}, and somebody was", letter.subject);
            found.add("M7", [*asked, place], what);
        }
    }

    fn reply(&mut self, arrived: usize, place: usize, reply: &'a Letter, found: &mut Findings<'_>) {
        let inbox = reply.subject.as_str();
        if let Some(before) = self.inboxes.insert(inbox, place) {
            found.add("M6", [before, arrived, place], "two requests have the same reply".to_owned());
        } else if let Some((first, _)) = self.first.get(inbox).filter(|(_, digest)| *digest != reply.digest) {
            found.add(
                "M6",
                [arrived, *first, place],
                "a request gets another reply than the first".to_owned(),
            );
        }
    }
}
