use std::collections::VecDeque;

#[cfg(feature = "_mutants")]
use slipring_core::mutation::{Mutated, Mutation};
use slipring_core::{Error, Message, Result};

/// The messages that wait for one reader: bounded; when full, the newest are dropped and counted.
///
/// [`Error::Lagged`] comes out exactly where the dropped messages would have been.
#[derive(Debug, Clone)]
pub struct Buffer {
    waiting: VecDeque<Waiting>,
    messages_max: usize,
    /// Dropped after the last message that waits.
    missed: u64,
}

#[derive(Debug, Clone)]
struct Waiting {
    /// Dropped between the message before and this one, and not yet told to the reader.
    missed_before: u64,
    message: Message,
}

impl Buffer {
    /// Room for this many messages, at least 1.
    pub fn new(messages_max: usize) -> Self {
        Self { waiting: VecDeque::new(), messages_max: messages_max.max(1), missed: 0 }
    }

    /// Adds a message, or counts it as missed if there is no room.
    pub fn push(&mut self, message: Message) {
        if self.waiting.len() >= self.messages_max {
            self.missed += 1;
            return;
        }
        let missed_before = std::mem::take(&mut self.missed);
        self.waiting.push_back(Waiting { missed_before, message });
    }

    /// What is left to be pushed of a message.
    #[cfg(feature = "_mutants")]
    pub(super) fn mutated_push(&mut self, message: Message, mutation: Mutated) -> Option<Message> {
        if mutation.is(Mutation::LossIsNotCounted) && self.waiting.len() >= self.messages_max {
            return None;
        }
        if mutation.is(Mutation::MessageTwice) {
            self.push(message.clone());
        }
        if mutation.is(Mutation::NewestFirst) && !self.waiting.is_empty() {
            self.waiting.push_front(Waiting { missed_before: 0, message });
            return None;
        }
        Some(message)
    }

    /// The next message, or how many are missing here.
    pub fn pop(&mut self) -> Option<Result<Message>> {
        let missed = match self.waiting.front_mut() {
            Some(next) => &mut next.missed_before,
            None => &mut self.missed,
        };
        match std::mem::take(missed) {
            0 => self.waiting.pop_front().map(|next| Ok(next.message)),
            missed => Some(Err(Error::lagged(missed))),
        }
    }

    /// Is there nothing to be read?
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.missed == 0
    }
}

#[cfg(test)]
mod tests {
    use slipring_core::Subject;

    use super::*;

    fn message(text: &'static str) -> Message {
        Message::new(Subject::new("s").unwrap(), text)
    }

    /// M10: the newest are dropped; the exact number stands where they would have been, also at the end.
    #[test]
    fn m10_the_gap_stands_where_the_messages_are_missing() {
        let mut buffer = Buffer::new(2);
        for text in ["a", "b", "lost", "lost"] {
            buffer.push(message(text));
        }
        assert_eq!(buffer.pop(), Some(Ok(message("a"))));
        buffer.push(message("c"));
        buffer.push(message("lost"));
        assert_eq!(buffer.pop(), Some(Ok(message("b"))));
        assert_eq!(buffer.pop(), Some(Err(Error::lagged(2))));
        assert_eq!(buffer.pop(), Some(Ok(message("c"))));
        assert!(!buffer.is_empty());
        assert_eq!(buffer.pop(), Some(Err(Error::lagged(1))));
        assert!(buffer.is_empty());
        assert_eq!(buffer.pop(), None);
    }
}
