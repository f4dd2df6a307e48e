//! What clients say, as nats-server reads it: no I/O, and no more memory than a line or a message takes.

use bytes::{Buf, Bytes, BytesMut};

/// Splits what a client sends into lines and bodies.
///
/// # Order of calls
/// [`feed`](Self::feed), then [`next`](Self::next) until it yields nothing. After a line that announces a body,
/// [`expect_body`](Self::expect_body) comes before the next `next`. After an error nothing is read any more.
#[derive(Debug)]
pub(crate) struct Parser {
    line_bytes_max: usize,
    /// What was not read yet.
    input: BytesMut,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Within the first word of a line.
    Word,
    /// Between the first word and its arguments; with at least one blank yet?
    Gap(Verb, bool),
    /// Within the arguments; so many bytes of them hold no end of a line.
    Arguments(Verb, usize),
    /// Within a line whose arguments do not matter.
    Skip(Verb),
    /// Within a body of this length.
    Body(usize),
    /// The client spoke nonsense.
    Failed(Fault),
}

/// The first word of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    Connect,
    Error,
    HeaderPublish,
    Info,
    Okay,
    Ping,
    Pong,
    Publish,
    Subscribe,
    Unsubscribe,
}

/// A piece of what a client said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Input {
    /// A line, and what stands behind its first word.
    Line(Verb, Bytes),
    /// The body of a message.
    Body(Bytes),
}

/// Why a client is not listened to any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// No line begins or ends like this.
    Nonsense,
    /// A line is too long.
    TooLong,
    /// Anything but `CONNECT` before who it is.
    Stranger,
}

impl Verb {
    const ALL: [(&'static [u8], Self); 10] = [
        (b"CONNECT", Self::Connect),
        (b"-ERR", Self::Error),
        (b"HPUB", Self::HeaderPublish),
        (b"INFO", Self::Info),
        (b"+OK", Self::Okay),
        (b"PING", Self::Ping),
        (b"PONG", Self::Pong),
        (b"PUB", Self::Publish),
        (b"SUB", Self::Subscribe),
        (b"UNSUB", Self::Unsubscribe),
    ];

    fn after(self) -> State {
        match self {
            Self::Okay | Self::Ping | Self::Pong => State::Skip(self),
            // Their arguments may follow at once.
            Self::Connect | Self::Info => State::Gap(self, true),
            _ => State::Gap(self, false),
        }
    }
}

impl Parser {
    pub(crate) fn new(line_bytes_max: usize) -> Self {
        Self { line_bytes_max, input: BytesMut::new(), state: State::Word }
    }

    /// More of what a client sent.
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
    }

    /// The line that was read last announces a body of this length.
    pub(crate) fn expect_body(&mut self, bytes: usize) {
        self.state = State::Body(bytes);
    }

    /// The next piece; none before more was fed. Whoever is not known yet may say nothing but `CONNECT`.
    ///
    /// # Errors
    /// What is wrong; always the same from then on.
    pub(crate) fn next(&mut self, is_known: bool) -> Result<Option<Input>, Fault> {
        loop {
            let step = match self.state {
                State::Word => self.word(is_known),
                State::Gap(verb, has_blank) => self.gap(verb, has_blank),
                State::Arguments(verb, searched) => self.arguments(verb, searched),
                State::Skip(verb) => self.skip(verb),
                State::Body(bytes) => self.body(bytes),
                State::Failed(fault) => Err(fault),
            };
            match step {
                Ok(Step::Again) => {}
                Ok(Step::Wait) => return Ok(None),
                Ok(Step::Done(input)) => {
                    self.state = State::Word;
                    return Ok(Some(input));
                }
                Err(fault) => {
                    self.state = State::Failed(fault);
                    self.input.clear();
                    return Err(fault);
                }
            }
        }
    }

    fn word(&mut self, is_known: bool) -> Result<Step, Fault> {
        let Some(first) = self.input.first() else { return Ok(Step::Wait) };
        if !is_known && !first.eq_ignore_ascii_case(&b'C') {
            return Err(Fault::Stranger);
        }
        let (mut may_follow, input) = (false, &self.input);
        for (word, verb) in Verb::ALL {
            let have = word.len().min(input.len());
            if word[..have].eq_ignore_ascii_case(&input[..have]) {
                if have == word.len() {
                    self.input.advance(have);
                    self.state = verb.after();
                    return Ok(Step::Again);
                }
                may_follow = true;
            }
        }
        if may_follow { Ok(Step::Wait) } else { Err(Fault::Nonsense) }
    }

    fn gap(&mut self, verb: Verb, has_blank: bool) -> Result<Step, Fault> {
        let blanks = self.input.iter().take_while(|byte| is_blank(**byte)).count();
        self.input.advance(blanks);
        let has_blank = has_blank || blanks > 0;
        if self.input.is_empty() {
            self.state = State::Gap(verb, has_blank);
            return Ok(Step::Wait);
        }
        if !has_blank {
            return Err(Fault::Nonsense);
        }
        // Whatever stands there, an end of the line too, is the first byte of the arguments.
        self.state = State::Arguments(verb, 1);
        Ok(Step::Again)
    }

    fn arguments(&mut self, verb: Verb, searched: usize) -> Result<Step, Fault> {
        let end = self.input[searched..].iter().position(|byte| *byte == b'\n').map(|at| searched + at);
        let line = &self.input[..end.unwrap_or(self.input.len())];
        // A carriage return, wherever, takes the last byte off the line: there it is, if all is well.
        let returned = usize::from(line[1..].contains(&b'\r'));
        if line.len() - returned > self.line_bytes_max {
            return Err(Fault::TooLong);
        }
        let Some(end) = end else {
            self.state = State::Arguments(verb, self.input.len());
            return Ok(Step::Wait);
        };
        let line = self.input.split_to(end).freeze();
        self.input.advance(1);
        Ok(Step::Done(Input::Line(verb, line.slice(..end - returned))))
    }

    fn skip(&mut self, verb: Verb) -> Result<Step, Fault> {
        let end = self.input.iter().position(|byte| *byte == b'\n');
        self.input.advance(end.map_or(self.input.len(), |at| at + 1));
        Ok(match end {
            Some(_) => Step::Done(Input::Line(verb, Bytes::new())),
            None => Step::Wait,
        })
    }

    fn body(&mut self, bytes: usize) -> Result<Step, Fault> {
        let end = self.input.get(bytes..).unwrap_or_default();
        let end = &end[..end.len().min(2)];
        if !b"\r\n".starts_with(end) {
            return Err(Fault::Nonsense);
        }
        if end.len() < 2 {
            return Ok(Step::Wait);
        }
        let body = self.input.split_to(bytes).freeze();
        self.input.advance(2);
        Ok(Step::Done(Input::Body(body)))
    }
}

/// How far one step got.
enum Step {
    Again,
    Wait,
    Done(Input),
}

/// A blank as lines have it.
pub(crate) fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    const LINE_BYTES_MAX: usize = 64;
    const BODY_BYTES_MAX: usize = 40;

    /// All that is read of these pieces; a message has the length that its line ends with.
    fn read(pieces: &[&[u8]]) -> (Vec<Input>, Option<Fault>, usize) {
        let mut parser = Parser::new(LINE_BYTES_MAX);
        let (mut all, mut kept) = (Vec::new(), 0);
        for piece in pieces {
            parser.feed(piece);
            loop {
                match parser.next(true) {
                    Ok(Some(Input::Line(verb @ (Verb::Publish | Verb::HeaderPublish), line))) => {
                        let last = line.split(|byte| is_blank(*byte)).next_back().unwrap_or_default();
                        let bytes = std::str::from_utf8(last).ok().and_then(|text| text.parse().ok());
                        parser.expect_body(bytes.unwrap_or(0).min(BODY_BYTES_MAX));
                        all.push(Input::Line(verb, line));
                    }
                    Ok(Some(input)) => all.push(input),
                    Ok(None) => break,
                    Err(fault) => {
                        assert_eq!(parser.next(true), Err(fault), "it is not listened to any more");
                        return (all, Some(fault), kept);
                    }
                }
            }
            kept = kept.max(parser.input.len());
        }
        (all, None, kept)
    }

    fn garbage() -> impl Strategy<Value = Vec<u8>> {
        let words = vec![
            "PUB a 3\r\nabc\r\n",
            "HPUB a 2 3\r\nabc\r\n",
            "SUB a 1\r\n",
            "UNSUB 1 2\r\n",
            "PING\r\n",
            "pong \n",
            "CONNECT {}\r\n",
            "INFO\t{}\r\n",
            "+OK\r\n",
            "-ERR x\r\n",
            "PUB",
            " ",
            "\r\n",
            "\n",
            "\r",
            "12",
            "SUB \n",
        ];
        let piece = prop_oneof![
            6 => prop::sample::select(words).prop_map(|word| word.as_bytes().to_vec()),
            1 => vec(any::<u8>(), 0..80),
        ];
        vec(piece, 0..12).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Whatever comes, in whatever pieces: no panic, no more kept than a line or a message takes, and the same
        /// is read as from one piece.
        #[test]
        fn pieces_do_not_matter(bytes in garbage(), cuts in vec(0_usize..1000, 0..8)) {
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let pieces: Vec<_> = cuts.windows(2).map(|cut| &bytes[cut[0]..cut[1]]).collect();
            let singly: Vec<_> = bytes.chunks(1).collect();
            let (whole, fault, _) = read(&[&bytes]);
            let (apart, apart_fault, _) = read(&pieces);
            let (slowly, slow_fault, kept) = read(&singly);
            // A line that is too long is known to be so before it ends.
            prop_assert_eq!((&whole, fault), (&apart, apart_fault));
            prop_assert_eq!((&whole, fault), (&slowly, slow_fault));
            prop_assert!(kept <= LINE_BYTES_MAX.max(BODY_BYTES_MAX) + 2, "{kept} bytes are kept");
        }
    }

    /// Before it is known who is there, the first byte of anything but `CONNECT` is one too many.
    #[test]
    fn a_stranger_may_only_introduce_itself() {
        for (said, expected) in [("c", Ok(None)), ("P", Err(Fault::Stranger)), ("cx", Err(Fault::Nonsense))] {
            let mut parser = Parser::new(LINE_BYTES_MAX);
            parser.feed(said.as_bytes());
            assert_eq!(parser.next(false), expected, "{said}");
        }
    }

    /// A body that does not end where it should is known by its first byte too many.
    #[test]
    fn a_body_ends_where_it_should() {
        for (said, expected) in [("PUB a 1\r\nxy", Some(Fault::Nonsense)), ("PUB a 1\r\nx\r", None)] {
            let (_, fault, _) = read(&[said.as_bytes()]);
            assert_eq!(fault, expected, "{said:?}");
        }
    }
}
