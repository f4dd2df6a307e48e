//! What the fuzzer runs: plain functions of bytes that panic when a promise is broken. The tests replay the
//! corpus through the same functions, on any compiler.
#![forbid(unsafe_code)]

mod link;
mod mirror;
mod records;
mod store;

pub use link::{link_connection, link_frames};
pub use mirror::mirror;
pub use records::records;
use slipring_core::{Error, Headers, Key, Message, Pattern, Prefix, Range, Subject};
pub use store::store;

/// Keys and prefixes: what is accepted is kept as it is, what is refused is refused with a place in the input.
pub fn names(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match Key::new(text) {
        Ok(key) => {
            assert_eq!(key.as_str(), text);
            assert_eq!(key.to_string().parse::<Key>().expect("it was one"), key);
            assert!((1..=Key::BYTES_MAX).contains(&text.len()));
            assert!(!text.contains(char::is_control));
        }
        Err(error) => check_refusal(&error, text),
    }
    match Prefix::new(text) {
        Ok(prefix) => {
            assert!(text.ends_with(['/', ':']) && Key::new(text).is_ok());
            if let Ok(key) = prefix.key("below") {
                assert!(Range::Prefix(prefix).contains(&key));
            }
        }
        Err(error) => check_refusal(&error, text),
    }
}

/// Subjects and patterns: two lines, a pattern and a subject. They match as the definition of the wildcards
/// says.
pub fn subjects(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (pattern, subject) = text.split_once('\n').unwrap_or((text, text));
    let parsed = (Pattern::new(pattern), Subject::new(subject));
    if let (_, Ok(exact)) = &parsed {
        assert!(Pattern::from(exact).is_exact());
        assert!(Pattern::from(exact).matches(exact));
        assert!(Pattern::new(subject).is_ok(), "a subject is a pattern");
    }
    match parsed {
        (Ok(parsed), Ok(exact)) => {
            let (pattern, subject) = (tokens(pattern), tokens(subject));
            assert_eq!(parsed.matches(&exact), matches(&pattern, &subject), "{pattern:?} {subject:?}");
            assert_eq!(parsed.is_exact(), !pattern.iter().any(|token| matches!(*token, "*" | ">")));
        }
        (pattern_parsed, subject_parsed) => {
            pattern_parsed.err().iter().for_each(|error| check_refusal(error, pattern));
            subject_parsed.err().iter().for_each(|error| check_refusal(error, subject));
        }
    }
}

/// Headers: lines of a name, `=`, and a value. What is accepted is found again, and its size is that of the
/// bytes that NATS writes.
pub fn headers(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut headers = Headers::new();
    let mut accepted = Vec::new();
    for line in text.split('\n') {
        let (name, value) = line.split_once('=').unwrap_or((line, ""));
        match headers.append(name.to_owned(), value) {
            Ok(()) => accepted.push((name, value)),
            Err(error) => {
                assert_eq!(error.code(), "invalid");
                assert!(
                    name.is_empty()
                        || !name.bytes().all(|b| b.is_ascii_graphic() && b != b':')
                        || value.contains('\r')
                );
            }
        }
    }
    assert!(headers.iter().eq(accepted.iter().copied()));
    for (name, _) in &accepted {
        let first = accepted.iter().find(|(other, _)| other == name).map(|(_, value)| *value);
        assert_eq!(headers.first(name), first);
    }
    let lines: String = accepted.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let wire = if accepted.is_empty() { String::new() } else { format!("NATS/1.0\r\n{lines}\r\n") };
    assert_eq!(headers.wire_bytes(), wire.len());

    let subject = Subject::new("a").expect("it is a subject");
    let message = Message::new(subject, data.to_vec()).with_headers(headers);
    let size = wire.len() + data.len();
    assert!(message.check(size).is_ok());
    if let Some(less) = size.checked_sub(1) {
        let refused = message.check(less);
        assert!(
            matches!(refused, Err(Error::PayloadTooLarge { limit, actual, .. }) if limit == less && actual == size)
        );
    }
}

/// A refusal names the input and a place inside it (or at its end).
fn check_refusal(error: &Error, text: &str) {
    let Error::Invalid { input, position: Some(position), .. } = error else { panic!("{error:?}") };
    assert_eq!(input, text);
    assert!(*position <= text.len());
}

fn tokens(text: &str) -> Vec<&str> {
    text.split('.').collect()
}

/// The definition: `*` is any one token, `>` is one or more.
fn matches(pattern: &[&str], subject: &[&str]) -> bool {
    match (pattern, subject) {
        ([], []) => true,
        ([">"], [_, ..]) => true,
        (["*", pattern @ ..], [_, subject @ ..]) => matches(pattern, subject),
        ([token, pattern @ ..], [same, subject @ ..]) => token == same && matches(pattern, subject),
        _ => false,
    }
}
