//! Names that the bus does not take as they are: NATS takes any bytes, and more of them.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use bytes::Bytes;
use slipring_core::{Pattern, QueueGroup, Subject};

/// Writes subjects and patterns as short ones of the bus, which match each other just as before.
///
/// A token of a pattern gets a number, for as long as a pattern has it. To a token that no pattern has, nothing is
/// subscribed but by wildcards: all of these are written alike. Tokens beyond the 60th are one: they are compared
/// as a whole, which is the same for as long as there is no wildcard among them.
#[derive(Debug, Default)]
pub(crate) struct Names {
    tokens: Numbers,
    queues: Numbers,
}

/// Why a pattern cannot be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unwritten {
    /// It is none.
    Malformed,
    /// A wildcard stands after too many tokens.
    LateWildcard,
    /// There are too many different tokens.
    Full,
}

impl Names {
    /// Tokens that are compared one by one. With numbers of three digits, all fit into a subject of the bus.
    const TOKENS_MAX: usize = 60;
    /// The first token of everything.
    const ROOT: &str = "s";
    /// What no pattern has.
    const UNKNOWN: &str = "-";

    /// The subject of a message; none if it has an empty token, for nobody can get that.
    pub(crate) fn subject(&self, text: &[u8]) -> Option<Subject> {
        let mut written = Self::ROOT.to_owned();
        for token in tokens(text) {
            if token.is_empty() || token.starts_with(b".") || token.ends_with(b".") || has_gap(token) {
                return None;
            }
            written.push('.');
            // A wildcard in a subject is a token like another, that no pattern can have.
            match self.tokens.find(token) {
                Some(number) => written.push_str(&digits(number)),
                None => written.push_str(Self::UNKNOWN),
            }
        }
        Some(Subject::new(written).expect("few and short tokens of letters, digits or a dash"))
    }

    /// A subject that nobody gets.
    pub(crate) fn nowhere() -> Subject {
        Subject::new(Self::UNKNOWN).expect("a dash is a token")
    }

    /// The pattern of a subscription. Its tokens are kept until they are [forgotten](Self::forget).
    ///
    /// # Errors
    /// Nothing is kept then.
    pub(crate) fn pattern(&mut self, text: &[u8]) -> Result<Pattern, Unwritten> {
        check(text)?;
        let mut written = Self::ROOT.to_owned();
        for (at, token) in tokens(text).enumerate() {
            written.push('.');
            match token {
                b"*" => written.push('*'),
                b">" => written.push('>'),
                _ => match self.tokens.keep(token) {
                    Some(number) => written.push_str(&digits(number)),
                    None => {
                        tokens(text).take(at).for_each(|token| self.tokens.forget(token));
                        return Err(Unwritten::Full);
                    }
                },
            }
        }
        Ok(Pattern::new(written)
            .expect("few and short tokens of letters, digits, or a wildcard at a legal place"))
    }

    /// A pattern that was written is used once less.
    pub(crate) fn forget(&mut self, text: &[u8]) {
        tokens(text).for_each(|token| self.tokens.forget(token));
    }

    /// The name of a queue group. It is kept until it is [forgotten](Self::forget_queue).
    pub(crate) fn queue(&mut self, text: &[u8]) -> Option<QueueGroup> {
        let number = self.queues.keep(text)?;
        Some(QueueGroup::new(digits(number)).expect("digits and letters are a name"))
    }

    /// A queue group that was written is used once less.
    pub(crate) fn forget_queue(&mut self, text: &[u8]) {
        self.queues.forget(text);
    }

    /// Is nothing kept?
    pub(crate) fn is_empty(&self) -> bool {
        self.tokens.by_name.is_empty() && self.queues.by_name.is_empty()
    }
}

/// The tokens of a subject; those beyond the 60th as one.
fn tokens(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.splitn(Names::TOKENS_MAX + 1, |byte| *byte == b'.')
}

fn has_gap(text: &[u8]) -> bool {
    text.windows(2).any(|pair| pair == b"..")
}

/// Is this a pattern, and one that can be written?
fn check(text: &[u8]) -> Result<(), Unwritten> {
    let (mut is_over, mut has_late_wildcard) = (false, false);
    for (at, token) in text.split(|byte| *byte == b'.').enumerate() {
        if token.is_empty() || is_over {
            return Err(Unwritten::Malformed);
        }
        is_over = token == b">";
        // A tail that is `>` alone means any tail.
        has_late_wildcard |= match at.cmp(&Names::TOKENS_MAX) {
            Ordering::Less => false,
            Ordering::Equal => token == b"*",
            Ordering::Greater => matches!(token, b"*" | b">"),
        };
    }
    if has_late_wildcard { Err(Unwritten::LateWildcard) } else { Ok(()) }
}

/// Numbers of names, as small as there are free ones.
#[derive(Debug, Default)]
struct Numbers {
    by_name: BTreeMap<Bytes, Numbered>,
    /// Those that were in use, and are free.
    free: Vec<u32>,
}

#[derive(Debug)]
struct Numbered {
    number: u32,
    /// How many use it.
    uses: usize,
}

impl Numbers {
    /// All that have three digits.
    const NUMBERS_MAX: usize = 62 * 62 * 62;

    fn find(&self, name: &[u8]) -> Option<u32> {
        self.by_name.get(name).map(|numbered| numbered.number)
    }

    fn keep(&mut self, name: &[u8]) -> Option<u32> {
        if let Some(numbered) = self.by_name.get_mut(name) {
            numbered.uses += 1;
            return Some(numbered.number);
        }
        let used = self.by_name.len();
        let fresh = || u32::try_from(used).ok().filter(|_| used < Self::NUMBERS_MAX);
        let number = self.free.pop().or_else(fresh)?;
        self.by_name.insert(Bytes::copy_from_slice(name), Numbered { number, uses: 1 });
        Some(number)
    }

    fn forget(&mut self, name: &[u8]) {
        let Some(numbered) = self.by_name.get_mut(name) else { return };
        numbered.uses -= 1;
        if numbered.uses == 0 {
            self.free.push(numbered.number);
            self.by_name.remove(name);
        }
    }
}

/// A number as digits and letters.
fn digits(mut number: u32) -> String {
    const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut digits = String::new();
    loop {
        digits.push(char::from(DIGITS[(number % 62) as usize]));
        number /= 62;
        if number == 0 {
            return digits;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn name(tokens: &'static [&'static str]) -> impl Strategy<Value = String> {
        let short = vec(prop::sample::select(tokens), 1..5);
        let long = vec(Just("a"), 58..63).prop_flat_map(move |head| {
            vec(prop::sample::select(tokens), 0..4).prop_map(move |tail| [&head[..], &tail[..]].concat())
        });
        prop_oneof![3 => short, 1 => long].prop_map(|tokens| tokens.join("."))
    }

    /// What NATS means by a match, said as simply as it goes.
    fn matches(pattern: &str, subject: &str) -> bool {
        let (pattern, subject): (Vec<_>, Vec<_>) =
            (pattern.split('.').collect(), subject.split('.').collect());
        let rest = pattern.last() == Some(&">");
        let fixed = pattern.len() - usize::from(rest);
        let lengths = if rest { subject.len() > fixed } else { subject.len() == fixed };
        lengths && pattern[..fixed].iter().zip(&subject).all(|(p, s)| *p == "*" || p == s)
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Written, patterns and subjects match as they do unwritten, whatever else was written and forgotten;
        /// forgotten, they leave nothing.
        #[test]
        fn what_is_written_matches_as_before(
            patterns in vec((name(&["a", "b", "*", ">", "a*", "é"]), any::<bool>()), 1..8),
            subjects in vec(name(&["a", "b", "c", "a*", "é", "*", ">", "\u{0}", "-", "0"]), 1..8),
        ) {
            let mut names = Names::default();
            let mut kept = Vec::new();
            for (pattern, stays) in &patterns {
                match names.pattern(pattern.as_bytes()) {
                    Ok(written) if *stays => kept.push((pattern, written)),
                    Ok(_) => names.forget(pattern.as_bytes()),
                    Err(Unwritten::Malformed) => prop_assert!(pattern.contains(">."), "{pattern}"),
                    Err(Unwritten::LateWildcard) => {
                        let tokens: Vec<_> = pattern.split('.').collect();
                        let late = |token: &&&str| matches!(**token, "*" | ">");
                        prop_assert!(tokens[60..].iter().any(|token| late(&token)), "{pattern}");
                        prop_assert!(tokens[60..] != [">"], "{pattern}");
                    }
                    Err(Unwritten::Full) => prop_assert!(false, "there are few tokens"),
                }
            }
            for subject in &subjects {
                let written = names.subject(subject.as_bytes()).unwrap();
                for (pattern, written_pattern) in &kept {
                    let matched = written_pattern.matches(&written);
                    prop_assert_eq!(matched, matches(pattern, subject), "{} {}", pattern, subject);
                }
            }
            kept.iter().for_each(|(pattern, _)| names.forget(pattern.as_bytes()));
            prop_assert!(names.is_empty());
        }
    }

    /// The longest that can be written fits into a subject of the bus; an empty token is no subject, wherever.
    #[test]
    fn the_longest_fits() {
        let mut names = Names::default();
        for filler in 0..Numbers::NUMBERS_MAX - 61 {
            names.tokens.keep(filler.to_string().as_bytes()).unwrap();
        }
        let long: Vec<_> = (0..1000).map(|token| format!("t{token}")).collect();
        let pattern = names.pattern(long.join(".").as_bytes()).unwrap();
        assert!(pattern.as_str().len() > 240, "{pattern}");
        assert!(pattern.matches(&names.subject(long.join(".").as_bytes()).unwrap()));
        assert_eq!(names.pattern(b"a.t0.one.more"), Err(Unwritten::Full));
        let long = long.join(".");
        let late = ["", ".a", "a..b"].map(|tail| format!("{long}.{tail}"));
        for text in ["", ".", ".a", "a.", "a..b"].into_iter().chain(late.iter().map(String::as_str)) {
            assert_eq!(names.subject(text.as_bytes()), None, "{text:?}");
        }
    }
}
