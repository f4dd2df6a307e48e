//! Service names in the alphabet of the NATS micro protocol.

use slipring_core::{Result, reject_at};

const ESCAPES: [(char, char); 4] = [('_', '_'), ('|', 'p'), ('.', 'd'), ('@', 'a')];

/// The text with `_` as the escape for what the protocol does not take.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match ESCAPES.iter().find(|(plain, _)| *plain == c) {
            None => escaped.push(c),
            Some((_, letter)) => escaped.extend(['_', *letter]),
        }
    }
    escaped
}

/// The text that was escaped.
pub(super) fn unescape(text: &str) -> Result<String> {
    let mut plain = String::with_capacity(text.len());
    let mut characters = text.char_indices();
    while let Some((position, c)) = characters.next() {
        if c != '_' {
            plain.push(c);
            continue;
        }
        let letter = characters.next().map(|(_, letter)| letter);
        match ESCAPES.iter().find(|(_, escaped)| Some(*escaped) == letter) {
            Some((c, _)) => plain.push(*c),
            None => {
                let problem = "'_' is the escape; allowed behind it: '_', 'p', 'd' or 'a'";
                return Err(reject_at("service name", text, position, problem));
            }
        }
    }
    Ok(plain)
}
