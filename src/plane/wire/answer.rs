use bytes::Bytes;
use slipring_core::{Error, Result};

use super::failure::{decode_failure, encode_failure};

/// What a worker says about a call: a line of words, joined by single spaces, and bytes behind it.
///
/// | line | bytes |
/// |---|---|
/// | `CALL LOAD items FIRST LENGTH...` | items from number FIRST on, of these lengths, one after the other |
/// | `CALL LOAD items FIRST LENGTH... end` | the same, and nothing follows |
/// | `CALL LOAD end COUNT` | nothing: all COUNT items were sent |
/// | `CALL LOAD error` | an error, in JSON; nothing follows |
/// | `CALL LOAD alive` | nothing: the answer to a probe of a call that is under way |
/// | `CALL LOAD unknown` | nothing: the answer to a probe of a call that is not |
///
/// CALL is the caller's number for it, LOAD is how many other requests the endpoint has in flight.
#[derive(Debug)]
pub(crate) struct Answer<'a> {
    pub(crate) load: u64,
    pub(crate) kind: AnswerKind<'a>,
}

/// What an answer is.
#[derive(Debug)]
pub(crate) enum AnswerKind<'a> {
    /// Some items.
    Items(Items<'a>),
    /// All items were sent; so many.
    End(u64),
    /// Nothing follows but this.
    Failed(Error),
    /// The answer to a probe: is the call known?
    Alive(bool),
}

/// Consecutive items.
#[derive(Debug, Clone)]
pub(crate) struct Items<'a> {
    /// The number of the first, from 1.
    pub(crate) first: u64,
    /// How many there are, at least one.
    pub(crate) count: u64,
    /// Does nothing follow?
    pub(crate) last: bool,
    lengths: &'a str,
    bodies: Bytes,
}

/// No worker writes a longer line: so many lengths fit, and a few words.
const LINE_BYTES_MAX: usize = 64 * 1024;

impl<'a> Answer<'a> {
    /// Reads an answer.
    ///
    /// # Errors
    /// `Invalid` if it is none. The call it belongs to is known all the same if [`call_of`] finds it.
    pub(crate) fn read(payload: &'a Bytes) -> Result<Self> {
        Self::parse(payload).map_err(|problem| invalid(payload, problem))
    }

    fn parse(payload: &'a Bytes) -> std::result::Result<Self, &'static str> {
        let (line, bodies) = split(payload).ok_or("it does not begin with a line of words")?;
        let (call, rest) = word(line);
        let (load, rest) = word(rest);
        let (kind, rest) = word(rest);
        number::<u64>(call)?;
        let load = number(load)?;
        let kind = match kind {
            "items" => AnswerKind::Items(Items::parse(rest, bodies)?),
            "end" => AnswerKind::End(number(rest)?),
            "error" => AnswerKind::Failed(decode_failure(&bodies).map_err(|_| "its error cannot be read")?),
            "alive" => AnswerKind::Alive(true),
            "unknown" => AnswerKind::Alive(false),
            _ => return Err("this version knows no such answer"),
        };
        Ok(Self { load, kind })
    }

    /// Writes items.
    pub(crate) fn items(call: u64, load: u64, first: u64, items: &[Bytes], last: bool) -> Vec<u8> {
        let bytes: usize = items.iter().map(Bytes::len).sum();
        let mut line = Line::new(call, load, "items", bytes + items.len() * 8 + 32);
        line.number(first);
        items.iter().for_each(|item| line.number(item.len() as u64));
        if last {
            line.word("end");
        }
        items.iter().fold(line.end(), |mut written, item| {
            written.extend_from_slice(item);
            written
        })
    }

    /// Writes the end of a stream.
    pub(crate) fn end(call: u64, load: u64, count: u64) -> Vec<u8> {
        let mut line = Line::new(call, load, "end", 48);
        line.number(count);
        line.end()
    }

    /// Writes an error.
    pub(crate) fn failed(call: u64, load: u64, error: &Error) -> Vec<u8> {
        let mut written = Line::new(call, load, "error", 256).end();
        written.extend_from_slice(&encode_failure(error));
        written
    }

    /// Writes the answer to a probe.
    pub(crate) fn alive(call: u64, load: u64, alive: bool) -> Vec<u8> {
        Line::new(call, load, if alive { "alive" } else { "unknown" }, 48).end()
    }
}

/// The call that an answer is about, whatever else it says.
pub(crate) fn call_of(payload: &[u8]) -> Option<u64> {
    let digits = payload.iter().take_while(|b| b.is_ascii_digit()).count();
    let (digits, rest) = payload.split_at(digits);
    if rest.first() != Some(&b' ') {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

impl<'a> Items<'a> {
    fn parse(words: &'a str, bodies: Bytes) -> std::result::Result<Self, &'static str> {
        let (first, rest) = word(words);
        let (lengths, last) = match rest.strip_suffix(" end") {
            Some(lengths) => (lengths, true),
            None => (rest, false),
        };
        let (mut count, mut bytes) = (0, 0_usize);
        for length in lengths.split(' ') {
            count += 1;
            bytes = bytes.checked_add(number(length)?).ok_or(NO_NUMBER)?;
        }
        if bytes != bodies.len() {
            return Err("its lengths are not those of its items");
        }
        Ok(Self { first: number(first)?, count, last, lengths, bodies })
    }

    /// The number of the last of them.
    pub(crate) fn through(&self) -> u64 {
        self.first.saturating_add(self.count - 1)
    }

    /// The items, in order.
    pub(crate) fn into_bodies(self) -> impl Iterator<Item = Bytes> {
        let mut bodies = self.bodies;
        // The lengths were checked when they were read.
        self.lengths.split(' ').map(move |length| bodies.split_to(length.parse().unwrap_or_default()))
    }
}

/// A line of words that is being written, with room for what follows.
struct Line(Vec<u8>);

impl Line {
    fn new(call: u64, load: u64, kind: &str, room: usize) -> Self {
        let mut line = Self(Vec::with_capacity(room + 16));
        line.0.extend_from_slice(itoa::Buffer::new().format(call).as_bytes());
        line.number(load);
        line.word(kind);
        line
    }

    fn word(&mut self, word: &str) {
        self.0.push(b' ');
        self.0.extend_from_slice(word.as_bytes());
    }

    fn number(&mut self, number: u64) {
        self.word(itoa::Buffer::new().format(number));
    }

    fn end(mut self) -> Vec<u8> {
        self.0.push(b'\n');
        self.0
    }
}

const NO_NUMBER: &str = "a number is missing or too large";

/// The line, and what follows it.
fn split(payload: &Bytes) -> Option<(&str, Bytes)> {
    let end = payload.iter().take(LINE_BYTES_MAX).position(|b| *b == b'\n')?;
    Some((std::str::from_utf8(&payload[..end]).ok()?, payload.slice(end + 1..)))
}

/// The first word, and the others.
fn word(words: &str) -> (&str, &str) {
    words.split_once(' ').unwrap_or((words, ""))
}

fn number<N: std::str::FromStr>(word: &str) -> std::result::Result<N, &'static str> {
    word.parse().map_err(|_| NO_NUMBER)
}

fn invalid(payload: &[u8], problem: &str) -> Error {
    const SHOWN_BYTES_MAX: usize = 80;
    let shown = String::from_utf8_lossy(&payload[..payload.len().min(SHOWN_BYTES_MAX)]).into_owned();
    Error::invalid("answer", shown, problem)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(payload: &Bytes) -> (u64, u64, AnswerKind<'_>) {
        let Answer { load, kind } = Answer::read(payload).unwrap();
        (call_of(payload).unwrap(), load, kind)
    }

    /// Items are read as they were written: their numbers, their bytes (line breaks and nothing at all among
    /// them), and whether anything follows.
    #[test]
    fn items_are_read_as_written() {
        for last in [false, true] {
            for items in [vec!["\"hi\""], vec![""], vec!["", "a\n", " 1 end\n", ""]] {
                let items: Vec<_> = items.into_iter().map(Bytes::from).collect();
                let payload = Bytes::from(Answer::items(u64::MAX, 3, 9, &items, last));
                let (u64::MAX, 3, AnswerKind::Items(read)) = read(&payload) else { panic!("{payload:?}") };
                assert_eq!((read.first, read.count, read.last), (9, items.len() as u64, last));
                assert_eq!(read.through(), 8 + items.len() as u64);
                assert_eq!(read.into_bodies().collect::<Vec<_>>(), items);
            }
        }
    }

    /// Ends, errors and answers to probes are read as they were written.
    #[test]
    fn ends_errors_and_probes_are_read_as_written() {
        assert!(matches!(read(&Answer::end(7, 1, 100).into()), (7, 1, AnswerKind::End(100))));
        assert!(matches!(read(&Answer::alive(7, 1, true).into()), (7, 1, AnswerKind::Alive(true))));
        assert!(matches!(read(&Answer::alive(7, 1, false).into()), (7, 1, AnswerKind::Alive(false))));
        let error = Error::draining("a\nb");
        let payload = Answer::failed(7, 1, &error).into();
        assert!(matches!(read(&payload), (7, 1, AnswerKind::Failed(read)) if read == error));
    }

    /// What is no answer is refused, whole or cut anywhere, and never panics.
    #[test]
    fn u649_strange_answers_do_no_harm() {
        for text in [
            "",
            "\n",
            "7\n",
            "7 1\n",
            "7 1 \n",
            "7 1 shiny\n",
            "x 1 end 1\n",
            "7 x end 1\n",
            "7 1 end\n",
            "7 1 end -1\n",
            "7 1 items\n",
            "7 1 items 1\n",
            "7 1 items 1 end\n",
            "7 1 items 1 2 end\na",
            "7 1 items 1 1 end\nab",
            "7 1 items 1 1  end\na",
            "7 1 items x 1\na",
            "7 1 items 1 18446744073709551615 2\na",
            "7 1 error\n{",
            "7 1 end 1",
        ] {
            assert!(Answer::read(&Bytes::from(text)).is_err(), "{text:?}");
        }
        assert!(Answer::read(&Bytes::from(&b"\xff\n"[..])).is_err());
        let whole = Bytes::from(Answer::items(7, 1, 1, &[Bytes::from("abc"), Bytes::from("de")], true));
        for end in 0..whole.len() {
            assert!(Answer::read(&whole.slice(..end)).is_err(), "{end}");
        }
        for (text, call) in
            [("7 nonsense", Some(7)), ("7", None), ("", None), (" 7", None), ("99999999999999999999 ", None)]
        {
            assert_eq!(call_of(text.as_bytes()), call, "{text:?}");
        }
    }
}
