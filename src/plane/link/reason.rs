use std::fmt;

/// Why a link was closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum CloseReason {
    /// This end was told to close it.
    Requested,
    /// Both ends have gone away, and no stream is open.
    Drained,
    /// The same, because no stream had been open for long.
    Idle,
    /// The peer ended the connection between two frames.
    PeerClosed,
    /// The connection broke.
    Cut,
    /// The connection ended inside of a frame.
    Truncated,
    /// What came over TLS is not what the peer sent.
    Tampered,
    /// The peer was pinged, and was not heard.
    Silent,
    /// A frame began to arrive and did not go on.
    Stalled,
    /// The peer does not read, and what it has to be told piles up.
    Unread,
    /// The peer broke the protocol.
    Violation(Violation),
    /// The peer says that we broke the protocol.
    Accused,
    /// The task that drove the link was stopped.
    Abandoned,
}

/// How a peer broke the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Violation {
    /// A frame of a kind that this version does not know.
    UnknownKind,
    /// A frame with flags that its kind does not have.
    UnknownFlags,
    /// Reserved bytes that are not zero.
    Reserved,
    /// A frame, or a message in chunks, that is longer than allowed.
    TooLong,
    /// A body that is not what its kind asks for.
    Malformed,
    /// A stream with a number that cannot be.
    StreamNumber,
    /// A frame about a stream that was never opened.
    NeverOpened,
    /// More streams than allowed.
    TooManyStreams,
    /// An item without credit for it.
    NoCredit,
    /// Credit beyond the window.
    TooMuchCredit,
    /// A chunk that belongs to no message, or a message amid the chunks of another.
    Chunk,
    /// A second go-away.
    GoneAlready,
    /// Items that are not the next ones of their stream, or its end with another number of items than came.
    Count,
}

impl CloseReason {
    /// A stable word, for counters.
    pub(crate) fn code(self) -> &'static str {
        match self {
            Self::Requested => "requested",
            Self::Drained => "drained",
            Self::Idle => "idle",
            Self::PeerClosed => "peer_closed",
            Self::Cut => "cut",
            Self::Truncated => "truncated",
            Self::Tampered => "tampered",
            Self::Silent => "silent",
            Self::Stalled => "stalled",
            Self::Unread => "unread",
            Self::Violation(violation) => violation.code(),
            Self::Accused => "accused",
            Self::Abandoned => "abandoned",
        }
    }

    /// Is it a fault of somebody, worth a warning?
    pub(super) fn is_fault(self) -> bool {
        !matches!(self, Self::Requested | Self::Drained | Self::Idle | Self::PeerClosed | Self::Abandoned)
    }
}

impl Violation {
    fn code(self) -> &'static str {
        match self {
            Self::UnknownKind => "unknown_kind",
            Self::UnknownFlags => "unknown_flags",
            Self::Reserved => "reserved",
            Self::TooLong => "too_long",
            Self::Malformed => "malformed",
            Self::StreamNumber => "stream_number",
            Self::NeverOpened => "never_opened",
            Self::TooManyStreams => "too_many_streams",
            Self::NoCredit => "no_credit",
            Self::TooMuchCredit => "too_much_credit",
            Self::Chunk => "chunk",
            Self::GoneAlready => "gone_already",
            Self::Count => "count",
        }
    }

    fn text(self) -> &'static str {
        match self {
            Self::UnknownKind => "a frame of an unknown kind",
            Self::UnknownFlags => "unknown flags",
            Self::Reserved => "reserved bytes that are not zero",
            Self::TooLong => "a frame or message that is too long",
            Self::Malformed => "a frame whose body cannot be read",
            Self::StreamNumber => "an impossible stream number",
            Self::NeverOpened => "a frame about a stream that was never opened",
            Self::TooManyStreams => "more streams than allowed",
            Self::NoCredit => "an item without credit",
            Self::TooMuchCredit => "credit beyond the window",
            Self::Chunk => "a chunk out of place",
            Self::GoneAlready => "a second go-away",
            Self::Count => "items that are missing or come again",
        }
    }
}

impl From<Violation> for CloseReason {
    fn from(violation: Violation) -> Self {
        Self::Violation(violation)
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::Requested => "it was closed at this end",
            Self::Drained => "both ends have gone away",
            Self::Idle => "it was idle",
            Self::PeerClosed => "the peer closed it",
            Self::Cut => "the connection broke",
            Self::Truncated => "the connection ended inside of a frame",
            Self::Tampered => "what came over TLS was changed on its way",
            Self::Silent => "the peer is silent",
            Self::Stalled => "a frame began to arrive and did not go on",
            Self::Unread => "the peer does not read",
            Self::Violation(violation) => {
                return write!(f, "the peer broke the protocol: {}", violation.text());
            }
            Self::Accused => "the peer says that the protocol was broken",
            Self::Abandoned => "its task was stopped",
        };
        f.write_str(text)
    }
}
