//! A store and a bus over byte streams: what is between a node and its broker where the network is a real one.
//!
//! Frames carry calls and their answers, and the items of watches and subscriptions, all interleaved on one
//! connection. Each side beats every [`BEAT_INTERVAL`], and the server's beats say how much it has heard: a client
//! gives up a connection on which it hears nothing, or is not heard, for a while. A connection counts only once the
//! far side has spoken: that a port accepts proves nothing.

mod client;
mod codec;
mod discovery;
mod frame;
mod messaging;
mod server;

use std::time::Duration;

use bytes::Bytes;
use slipring_core::{
    Base, Batch, Commit, Lease, LeaseId, Message, Range, Result, Snapshot, Start, Subscription, Txn,
};

pub(crate) use self::client::Client;
pub(crate) use self::discovery::WireDiscovery;
pub(crate) use self::messaging::WireMessaging;
pub(crate) use self::server::{Broker, serve};

/// The longest frame, in bytes: a snapshot of a large store.
const FRAME_BYTES_MAX: usize = 64 * 1024 * 1024;

/// How often each side beats.
const BEAT_INTERVAL: Duration = Duration::from_secs(1);

/// After so much silence a client gives its connection up: three beats.
pub(crate) const SILENCE_MAX: Duration = Duration::from_secs(3);

/// After so much silence a server does. It is patient with a client that stands still, and notices earlier where
/// the client's machine says that there is no such connection.
pub(crate) const CLIENT_SILENCE_MAX: Duration = Duration::from_secs(150);

/// How long an attempt to connect may take, the first beat of the server included.
const CONNECT_MAX: Duration = Duration::from_secs(2);

/// What a client says.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Up {
    /// It is there.
    Beat,
    /// It wants an answer; if that is a stream, its items bear the same number.
    Call { id: u64, request: Request },
    /// It wants no answer.
    Publish { message: Message },
    /// A stream is to end after what was accepted for it.
    Stop { id: u64 },
    /// Nobody waits for this any more.
    Forget { id: u64 },
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Request {
    Read {
        range: Range,
    },
    /// With its number in the history.
    Commit {
        number: u64,
        txn: Txn,
    },
    Watch {
        range: Range,
        start: Start,
    },
    Grant {
        ttl: Duration,
    },
    KeepAlive {
        lease: LeaseId,
    },
    Revoke {
        lease: LeaseId,
    },
    Subscribe {
        subscription: Subscription,
    },
    Ask {
        message: Message,
        timeout: Duration,
    },
    Flush,
    Close,
}

/// What a server says.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Down {
    /// It is there, and has heard so many frames.
    Beat { heard: u64 },
    /// What became of a call.
    Answer { id: u64, answer: Result<Reply> },
    /// The next of a stream.
    Item { id: u64, item: Result<Item> },
    /// A stream is over.
    End { id: u64 },
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Reply {
    Done,
    Snapshot { snapshot: Snapshot },
    Commit { commit: Commit },
    Base { base: Base },
    Lease { lease: Lease },
    Ttl { ttl: Duration },
    Message { message: Message },
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Item {
    Batch { batch: Batch },
    Message { message: Message },
}

/// What the far side said cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Malformed {
    /// What was to be read.
    what: &'static str,
}

/// A value on the wire.
trait Wire: Sized {
    fn write(&self, out: &mut Vec<u8>);

    fn read(from: &mut Bytes) -> std::result::Result<Self, Malformed>;
}
