use std::fmt;
use std::sync::Arc;

use crate::key::text;
use crate::parse::{check, check_length, reject_at};
use crate::{Error, Result};

const ALLOWED: &str = "tokens of visible characters, joined by single dots";

/// Where a message goes: tokens joined by single dots, without white space, at most 255 bytes, and without
/// the wildcard tokens `*` and `>`.
///
/// An empty token is refused here because brokers lose such messages silently.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subject(Arc<str>);

impl Subject {
    /// The longest subject, in bytes.
    pub const BYTES_MAX: usize = 255;

    /// Parses a subject.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the position of an empty token, white space, a wildcard, or the excess.
    pub fn new(text: impl AsRef<str>) -> Result<Self> {
        let text = text.as_ref();
        if is_plain(text) {
            return Ok(Self(text.into()));
        }
        check_tokens("subject", text)?;
        if let Some((position, token)) = tokens(text).find(|(_, token)| matches!(*token, "*" | ">")) {
            let problem = format!("the wildcard {token:?} is for patterns; allowed: {ALLOWED}");
            return Err(reject_at("subject", text, position, problem));
        }
        Ok(Self(text.into()))
    }

    /// This subject with one more token: what tells many answers at one inbox apart. Costs less than parsing
    /// the whole.
    ///
    /// # Errors
    /// [`Error::Invalid`] if that is no token, or makes the subject too long.
    pub fn with_token(&self, token: &str) -> Result<Self> {
        // Most tokens are of visible ASCII, which is seen at once.
        if !token.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'.' | b'*' | b'>'))
            || token.is_empty()
        {
            let joined = [&*self.0, token].join(".");
            // A dot would make two tokens of it.
            return match token.find('.') {
                Some(dot) => {
                    let problem = "one token is allowed here, without a dot";
                    Err(reject_at("subject", &joined, self.0.len() + 1 + dot, problem))
                }
                None => Self::new(joined),
            };
        }
        let text = [&*self.0, token].join(".");
        check_length("subject", &text, Self::BYTES_MAX)?;
        Ok(Self(text.into()))
    }

    /// The subject as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its tokens.
    pub fn tokens(&self) -> impl Iterator<Item = &str> {
        self.0.split('.')
    }
}

/// Which subjects to subscribe to: a subject whose tokens may be `*` (any one token) and, as the last one,
/// `>` (one or more tokens).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pattern(Arc<str>);

impl Pattern {
    /// Parses a pattern.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the position of an empty token, white space, a `>` that is not last, or the
    /// excess.
    pub fn new(text: impl AsRef<str>) -> Result<Self> {
        let text = text.as_ref();
        check_tokens("pattern", text)?;
        let last = text.rfind('.').map_or(0, |dot| dot + 1);
        if let Some((position, _)) = tokens(text).find(|(at, token)| *token == ">" && *at != last) {
            return Err(reject_at(
                "pattern",
                text,
                position,
                "the wildcard \">\" is allowed only as the last token",
            ));
        }
        Ok(Self(text.into()))
    }

    /// The pattern as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its tokens.
    pub fn tokens(&self) -> impl Iterator<Item = &str> {
        self.0.split('.')
    }

    /// Does it match one subject only?
    pub fn is_exact(&self) -> bool {
        !self.tokens().any(|token| matches!(token, "*" | ">"))
    }

    /// Does it match this subject?
    pub fn matches(&self, subject: &Subject) -> bool {
        let mut subject = subject.tokens();
        for wanted in self.tokens() {
            match (wanted, subject.next()) {
                (_, None) => return false,
                (">", Some(_)) => return true,
                ("*", Some(_)) => {}
                (wanted, Some(token)) if wanted == token => {}
                _ => return false,
            }
        }
        subject.next().is_none()
    }
}

impl From<Subject> for Pattern {
    fn from(subject: Subject) -> Self {
        Self(subject.0)
    }
}

impl From<&Subject> for Pattern {
    fn from(subject: &Subject) -> Self {
        Self(subject.0.clone())
    }
}

/// The name of a queue group: of its members, one gets each message. 1 to 255 bytes without white space.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueueGroup(Arc<str>);

impl QueueGroup {
    /// Parses a queue group's name.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the position if it is empty, too long, or has white space.
    pub fn new(text: impl AsRef<str>) -> Result<Self> {
        let text = text.as_ref();
        check("queue group", text, Subject::BYTES_MAX, "visible characters", visible)?;
        Ok(Self(text.into()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

text!(Subject);
text!(Pattern);
text!(QueueGroup);

/// Is it surely a subject? Nearly every one is of visible ASCII without an asterisk, which is seen at once.
fn is_plain(text: &str) -> bool {
    let mut before = b'.';
    let is_plain = text.bytes().all(|b| {
        let fits = b.is_ascii_graphic() && !matches!(b, b'*' | b'>') && (b != b'.' || before != b'.');
        before = b;
        fits
    });
    is_plain && before != b'.' && text.len() <= Subject::BYTES_MAX
}

fn visible(c: char) -> bool {
    !c.is_control() && !c.is_whitespace()
}

fn tokens(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut position = 0;
    text.split('.').map(move |token| {
        let at = position;
        position += token.len() + 1;
        (at, token)
    })
}

fn check_tokens(what: &'static str, text: &str) -> Result<()> {
    check(what, text, Subject::BYTES_MAX, ALLOWED, visible)?;
    match tokens(text).find(|(_, token)| token.is_empty()) {
        None => Ok(()),
        Some((position, _)) => {
            Err(reject_at(what, text, position, format!("this token is empty; allowed: {ALLOWED}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// M5: wildcards stand for whole tokens only.
    #[test]
    fn m5_wildcards_are_exact() {
        for (pattern, subject, expected) in [
            ("a.*", "a.b", true),
            ("a.*", "a", false),
            ("a.*", "a.b.c", false),
            ("a.>", "a", false),
            ("a.>", "a.b.c", true),
            (">", "a", true),
            ("*.b", "a.b", true),
            ("foo*", "foobar", false),
            ("foo*", "foo*", true),
            ("a.b", "A.b", false),
        ] {
            let matches = Pattern::new(pattern).unwrap().matches(&Subject::new(subject).unwrap());
            assert_eq!(matches, expected, "{pattern} {subject}");
        }
    }

    /// A subject with one more token is the one that parsing gives, and is refused where parsing refuses it;
    /// and where the token would be two.
    #[test]
    fn one_more_token_makes_a_subject() {
        for length in [1, 234, 235, 249, 250, 253, 254] {
            let subject = Subject::new("s".repeat(length)).unwrap();
            for token in ["0", "7~10~256", "18446744073709551615", "*", ">", "", "a b", "\u{e9}", "x*", "\n"]
            {
                assert_eq!(
                    subject.with_token(token),
                    Subject::new(format!("{subject}.{token}")),
                    "{token:?}"
                );
            }
        }
        let subject = Subject::new("a.b").unwrap();
        for (token, byte) in [("c.d", 5), (".", 4), ("c.", 5)] {
            let Err(Error::Invalid { position, .. }) = subject.with_token(token) else { panic!("{token}") };
            assert_eq!(position, Some(byte), "{token:?}");
        }
    }

    /// What a broker would lose silently is refused, with the place.
    #[test]
    fn empty_tokens_and_wildcards_are_refused() {
        for (text, byte) in [(".", 0), (".a", 0), ("a.", 2), ("a..b", 2), ("a b", 1), ("a.*", 2), ("", 0)] {
            let Err(Error::Invalid { position, .. }) = Subject::new(text) else { panic!("{text}") };
            assert_eq!(position, Some(byte), "{text:?}");
        }
        assert!(Pattern::new("a.>.b").is_err());
    }
}
