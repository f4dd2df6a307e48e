//! Frames: their heads, and the bodies that have parts.

use std::time::Duration;

use slipring_core::Headers;

use super::reason::Violation;

/// The head of every frame.
pub(super) const HEAD_BYTES: usize = 16;
/// A longer message travels in chunks of this length.
pub(super) const CHUNK_BYTES: usize = 64 * 1024;
/// No frame has a longer body: a chunk, and what stands before it.
pub(super) const BODY_BYTES_MAX: usize = CHUNK_BYTES + 4096;
/// The target and the headers of a request take at most so many bytes.
pub(super) const PREAMBLE_BYTES_MAX: usize = 32 * 1024;
/// What every item costs beside its length.
pub(super) const ITEM_COST_BYTES: usize = 32;
/// The payload follows in chunks.
pub(super) const MORE: u8 = 1;
/// Nothing follows on this stream.
pub(super) const LAST: u8 = 2;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    Open = 1,
    Attach = 2,
    Item = 3,
    Items = 4,
    Data = 5,
    End = 6,
    Fail = 7,
    Reset = 8,
    Cancel = 9,
    Window = 10,
    Ping = 11,
    Pong = 12,
    GoAway = 13,
    Close = 14,
}

/// A head that was checked: its length, kind, flags and stream go together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) length: usize,
    pub(super) kind: Kind,
    pub(super) flags: u8,
    pub(super) stream: u64,
}

impl Kind {
    fn of(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Open,
            2 => Self::Attach,
            3 => Self::Item,
            4 => Self::Items,
            5 => Self::Data,
            6 => Self::End,
            7 => Self::Fail,
            8 => Self::Reset,
            9 => Self::Cancel,
            10 => Self::Window,
            11 => Self::Ping,
            12 => Self::Pong,
            13 => Self::GoAway,
            14 => Self::Close,
            _ => return None,
        })
    }

    /// The flags it may have, and the least and the greatest length of its body.
    fn shape(self) -> (u8, usize, usize) {
        match self {
            Self::Open => (MORE, OPEN_BYTES, BODY_BYTES_MAX),
            Self::Attach => (0, 16, 16),
            Self::Item => (MORE | LAST, 8, BODY_BYTES_MAX),
            Self::Items => (LAST, 16, BODY_BYTES_MAX),
            Self::Data => (0, 5, 4 + CHUNK_BYTES),
            Self::End => (0, 12, 12),
            Self::Fail => (0, 4, BODY_BYTES_MAX),
            Self::Reset | Self::Cancel => (0, 0, 0),
            Self::Window => (0, 4, 4),
            Self::Ping | Self::Pong | Self::GoAway => (0, 8, 8),
            Self::Close => (0, 1, 1),
        }
    }

    fn is_of_the_link(self) -> bool {
        matches!(self, Self::Ping | Self::Pong | Self::GoAway | Self::Close)
    }
}

impl Head {
    /// Reads the head at the front of what arrived; none if it is not there as a whole.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn read(input: &[u8]) -> Result<Option<Self>, Violation> {
        let Some(head) = input.first_chunk::<HEAD_BYTES>() else { return Ok(None) };
        let [l0, l1, l2, l3, kind, flags, r0, r1, stream @ ..] = *head;
        let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
        let kind = Kind::of(kind).ok_or(Violation::UnknownKind)?;
        let (allowed, least, most) = kind.shape();
        if flags & !allowed != 0 {
            return Err(Violation::UnknownFlags);
        }
        if r0 != 0 || r1 != 0 {
            return Err(Violation::Reserved);
        }
        if length > BODY_BYTES_MAX {
            return Err(Violation::TooLong);
        }
        if length < least || length > most {
            return Err(Violation::Malformed);
        }
        let stream = u64::from_le_bytes(stream);
        if (stream == 0) != kind.is_of_the_link() {
            return Err(Violation::StreamNumber);
        }
        Ok(Some(Self { length, kind, flags, stream }))
    }

    /// Writes a head.
    pub(super) fn bytes(kind: Kind, flags: u8, stream: u64, length: usize) -> [u8; HEAD_BYTES] {
        debug_assert!(length <= BODY_BYTES_MAX);
        let mut head = [0; HEAD_BYTES];
        head[..4].copy_from_slice(&(length as u32).to_le_bytes());
        head[4] = kind as u8;
        head[5] = flags;
        head[8..].copy_from_slice(&stream.to_le_bytes());
        head
    }
}

/// The fixed part of a request: the deadline in microseconds, the length of the payload in all, the length of
/// the target, and that of the headers.
pub(super) const OPEN_BYTES: usize = 8 + 4 + 2 + 4;

/// What stands before the payload of a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Preamble<'a> {
    pub(super) deadline: Duration,
    pub(super) payload_bytes: usize,
    pub(super) target: &'a str,
    pub(super) headers: Headers,
    /// How many bytes all this took.
    pub(super) bytes: usize,
}

impl<'a> Preamble<'a> {
    /// Reads the body of a request up to its payload.
    pub(super) fn read(body: &'a [u8]) -> Result<Self, Violation> {
        let mut rest = Reader(body);
        let micros = rest.u64()?;
        let payload_bytes = rest.u32()? as usize;
        let target_bytes = usize::from(rest.u16()?);
        let headers_bytes = rest.u32()? as usize;
        if target_bytes.saturating_add(headers_bytes) > PREAMBLE_BYTES_MAX {
            return Err(Violation::TooLong);
        }
        let target = text(rest.take(target_bytes)?)?;
        let headers = read_headers(rest.take(headers_bytes)?)?;
        let bytes = OPEN_BYTES + target_bytes + headers_bytes;
        Ok(Self { deadline: Duration::from_micros(micros), payload_bytes, target, headers, bytes })
    }

    /// Writes it behind what is there.
    pub(super) fn write(
        out: &mut Vec<u8>,
        deadline: Duration,
        payload_bytes: usize,
        target: &str,
        headers: &Headers,
    ) {
        // Rounded up: the peer must not give a call up before its caller would.
        let micros = u64::try_from(deadline.as_nanos().div_ceil(1000)).unwrap_or(u64::MAX);
        let mut fixed = [0; OPEN_BYTES];
        fixed[..8].copy_from_slice(&micros.to_le_bytes());
        fixed[8..12].copy_from_slice(&(payload_bytes as u32).to_le_bytes());
        fixed[12..14].copy_from_slice(&(target.len() as u16).to_le_bytes());
        fixed[14..].copy_from_slice(&(headers_bytes(headers) as u32).to_le_bytes());
        out.extend_from_slice(&fixed);
        out.extend_from_slice(target.as_bytes());
        for (name, value) in headers.iter() {
            for part in [name, value] {
                out.extend_from_slice(&(part.len() as u16).to_le_bytes());
                out.extend_from_slice(part.as_bytes());
            }
        }
    }
}

/// How many bytes headers take on the wire.
pub(super) fn headers_bytes(headers: &Headers) -> usize {
    headers.iter().map(|(name, value)| 4 + name.len() + value.len()).sum()
}

fn read_headers(body: &[u8]) -> Result<Headers, Violation> {
    let (mut headers, mut rest) = (Headers::new(), Reader(body));
    while !rest.0.is_empty() {
        let name_bytes = usize::from(rest.u16()?);
        let name = text(rest.take(name_bytes)?)?;
        let value_bytes = usize::from(rest.u16()?);
        let value = text(rest.take(value_bytes)?)?;
        headers.append(name.to_owned(), value).map_err(|_| Violation::Malformed)?;
    }
    Ok(headers)
}

fn text(bytes: &[u8]) -> Result<&str, Violation> {
    std::str::from_utf8(bytes).map_err(|_| Violation::Malformed)
}

/// Takes numbers and parts off the front of a body; what is too short is malformed.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn take(&mut self, bytes: usize) -> Result<&'a [u8], Violation> {
        let (taken, rest) = self.0.split_at_checked(bytes).ok_or(Violation::Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Violation> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(Violation::Malformed)?;
        self.0 = rest;
        Ok(*taken)
    }

    pub(super) fn u16(&mut self) -> Result<u16, Violation> {
        self.array().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, Violation> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, Violation> {
        self.array().map(u64::from_le_bytes)
    }
}
