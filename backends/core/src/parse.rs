//! How names are checked: one place that knows how to say where an input goes wrong.

use crate::{Effect, Error, Result};

/// An [`Error::Invalid`] that points at a byte of the input and says what is allowed.
pub fn reject_at(what: &'static str, input: &str, position: usize, problem: impl Into<String>) -> Error {
    Error::Invalid {
        what,
        input: input.to_owned(),
        position: Some(position),
        problem: problem.into(),
        effect: Effect::None,
    }
}

/// Checks length and characters. `allowed` completes the sentence "allowed: ...".
pub(crate) fn check(
    what: &'static str,
    input: &str,
    bytes_max: usize,
    allowed: &str,
    permits: impl Fn(char) -> bool,
) -> Result<()> {
    if input.is_empty() {
        return Err(reject_at(what, input, 0, format!("it is empty; allowed: {allowed}")));
    }
    if let Some((position, character)) = input.char_indices().find(|(_, c)| !permits(*c)) {
        let problem = format!("{character:?} is not allowed; allowed: {allowed}");
        return Err(reject_at(what, input, position, problem));
    }
    check_length(what, input, bytes_max)
}

/// Checks the length alone.
pub(crate) fn check_length(what: &'static str, input: &str, bytes_max: usize) -> Result<()> {
    if input.len() > bytes_max {
        let problem = format!("it has {} bytes; allowed: at most {bytes_max}", input.len());
        return Err(reject_at(what, input, bytes_max, problem));
    }
    Ok(())
}
