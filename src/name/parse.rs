//! How names are read: what a name may hold, and a reader for texts made of several names.

use std::fmt::Display;
use std::str::FromStr;

use slipring_core::{Error, Result, Subject, reject_at};

const SEGMENT_BYTES_MAX: usize = 63;

/// What a name may hold: segments of permitted characters, joined by single separators.
pub(crate) struct Grammar {
    pub(crate) what: &'static str,
    pub(crate) separators: &'static [char],
    pub(crate) permits: fn(char) -> bool,
    pub(crate) reserved: Option<&'static str>,
    /// Completes the sentence "allowed: ...".
    pub(crate) allowed: &'static str,
}

impl Grammar {
    pub(crate) fn check(&self, text: &str) -> Result<()> {
        let reject = |position, problem| Err(reject_at(self.what, text, position, problem));
        let mut start = 0;
        for segment in text.split(self.separators) {
            if segment.is_empty() {
                let what = if text.is_empty() { "it is empty" } else { "a segment is empty" };
                return reject(start, format!("{what}; allowed: {}", self.allowed));
            }
            if let Some((at, c)) = segment.char_indices().find(|(_, c)| !(self.permits)(*c)) {
                return reject(start + at, format!("{c:?} is not allowed; allowed: {}", self.allowed));
            }
            if segment.len() > SEGMENT_BYTES_MAX {
                let problem =
                    format!("a segment has {} bytes; allowed: at most {SEGMENT_BYTES_MAX}", segment.len());
                return reject(start + SEGMENT_BYTES_MAX, problem);
            }
            if self.reserved == Some(segment) {
                return reject(start, format!("{segment:?} is a reserved word; allowed: any other segment"));
            }
            start += segment.len() + 1;
        }
        if text.len() > Subject::BYTES_MAX {
            let problem = format!("it has {} bytes; allowed: at most {}", text.len(), Subject::BYTES_MAX);
            return reject(Subject::BYTES_MAX, problem);
        }
        Ok(())
    }
}

/// Reads a text made of several names from left to right; its errors point into the whole text.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a> {
    what: &'static str,
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(what: &'static str, text: &'a str) -> Self {
        Self { what, text, at: 0 }
    }

    /// Goes past a word, if it is next.
    pub(super) fn skip(&mut self, word: &str) -> bool {
        let found = self.text[self.at..].starts_with(word);
        if found {
            self.at += word.len();
        }
        found
    }

    /// Goes past a word that must be next.
    pub(super) fn expect(&mut self, word: &str) -> Result<()> {
        if self.skip(word) { Ok(()) } else { Err(self.reject(format!("expected {word:?}"))) }
    }

    /// Reads a name that ends at the next `end`, and goes past it.
    pub(super) fn until<T: FromStr<Err = Error>>(&mut self, end: char) -> Result<T> {
        self.until_with(end, str::parse)
    }

    pub(super) fn until_with<T>(&mut self, end: char, parse: impl FnOnce(&str) -> Result<T>) -> Result<T> {
        let rest = &self.text[self.at..];
        let Some(bytes) = rest.find(end) else {
            self.at = self.text.len();
            return Err(self.reject(format!("it ends too early; expected {end:?} and more")));
        };
        let name = self.part(&rest[..bytes], parse)?;
        self.at += bytes + end.len_utf8();
        Ok(name)
    }

    /// Reads a name that is all that is left.
    pub(super) fn rest<T: FromStr<Err = Error>>(self) -> Result<T> {
        self.part(&self.text[self.at..], str::parse)
    }

    /// Reads a name and, behind the last `split`, an instance id in hexadecimal.
    pub(super) fn rest_with_id<T: FromStr<Err = Error>>(mut self, split: char) -> Result<(T, u64)> {
        let rest = &self.text[self.at..];
        let Some((name, id)) = rest.rsplit_once(split) else {
            self.at = self.text.len();
            return Err(self.reject(format!("expected {split:?} and an instance id")));
        };
        let name = self.part(name, str::parse)?;
        self.at = self.text.len() - id.len();
        let number = u64::from_str_radix(id, 16).ok();
        // One spelling per number: what was decoded is written back as the same text.
        let number = number.filter(|number| format!("{number:x}") == id);
        let allowed = "the instance id is lower-case hexadecimal without leading zeros, up to 64 bits";
        Ok((name, number.ok_or_else(|| self.reject(allowed))?))
    }

    fn part<T>(&self, part: &str, parse: impl FnOnce(&str) -> Result<T>) -> Result<T> {
        parse(part).map_err(|error| match error {
            Error::Invalid { what, position, problem, .. } => {
                let position = self.at + position.unwrap_or(0);
                reject_at(self.what, self.text, position, format!("{what}: {problem}"))
            }
            other => other,
        })
    }

    fn reject(&self, problem: impl Display) -> Error {
        reject_at(self.what, self.text, self.at, problem.to_string())
    }
}
