//! What the fuzzer runs: functions of bytes that panic when a promise of the link is broken.

mod host;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use slipring_core::{ByteStream, Environment, Headers, Secret};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

use self::host::{Desk, Reader};
use super::frame::{HEAD_BYTES, Head, Kind, OPEN_BYTES, Preamble};
use super::{CloseReason, Link, LinkLimits, Local, Outbound, Peer, hello};
use crate::plane::report::ConnectionReport;
use crate::plane::wire::{decode_failure, encode_failure};

/// The instance at this end, and the one at the other.
const PEERS: [Peer; 2] = [Peer { instance: 1, epoch: 1 }, Peer { instance: 2, epoch: 1 }];
/// Streams that this end opens.
const STREAMS: usize = 3;
/// Between two pieces all that can be done is done.
const PAUSE: Duration = Duration::from_millis(1);
/// However many pieces there are, the connection is over long before.
const OVER_WITHIN: Duration = Duration::from_secs(3600);

/// The decoder: frames in a row, as far as they can be read; and a hello. Whatever is accepted is written again as
/// it was read.
pub fn frames(data: &[u8]) {
    if let Some(hello) = data.first_chunk() {
        hello::check(hello);
    }
    let mut rest = data;
    while let Ok(Some(head)) = Head::read(rest) {
        let again = Head::bytes(head.kind, head.flags, head.stream, head.length);
        assert_eq!(again, rest[..HEAD_BYTES]);
        for cut in 0..HEAD_BYTES {
            assert_eq!(Head::read(&rest[..cut]), Ok(None), "a part of a head is no head");
        }
        let Some(body) = rest[HEAD_BYTES..].get(..head.length) else { return };
        self::body(head, body);
        rest = &rest[HEAD_BYTES + head.length..];
    }
    assert!(rest.len() < HEAD_BYTES || Head::read(rest).is_err());
}

fn body(head: Head, body: &[u8]) {
    match head.kind {
        Kind::Open => {
            let Ok(preamble) = Preamble::read(body) else { return };
            assert!(preamble.bytes <= body.len() && preamble.bytes >= OPEN_BYTES);
            let Preamble { deadline, payload_bytes, target, ref headers, bytes } = preamble;
            let mut again = Vec::new();
            Preamble::write(&mut again, deadline, payload_bytes, target, headers);
            assert_eq!(again, body[..bytes]);
            for cut in 0..bytes {
                assert!(Preamble::read(&body[..cut]).is_err(), "a part of it is none");
            }
        }
        Kind::Fail => {
            let Ok(error) = decode_failure(&body[4..]) else { return };
            let again = decode_failure(&encode_failure(&error)).expect("it was one");
            assert_eq!(again, error);
        }
        _ => {}
    }
}

/// What the first byte of an input of [`connection`] switches on.
#[derive(Debug, Clone, Copy)]
struct Mode(u8);

impl Mode {
    fn has(self, bit: u8) -> bool {
        self.0 & 1 << bit != 0
    }

    /// This end dials.
    fn dials(self) -> bool {
        self.has(0)
    }

    /// The bytes begin with the handshake; otherwise that went well.
    fn shakes(self) -> bool {
        self.has(1)
    }

    /// The bytes are frames in short: kind, flags, stream, and length of the body in a byte each.
    fn is_short(self) -> bool {
        self.has(2)
    }

    /// The peer never reads.
    fn is_deaf(self) -> bool {
        self.has(3)
    }

    fn secret(self) -> Option<Secret> {
        self.has(4).then(|| Secret::new("secret"))
    }

    /// This end has streams of its own.
    fn opens(self) -> bool {
        self.has(5)
    }

    fn limits(self) -> LinkLimits {
        if !self.has(6) {
            return LinkLimits::default();
        }
        LinkLimits {
            message_bytes_max: 100_000,
            streams_max: 4,
            assembling_bytes_max: 150_000,
            stream_window_bytes: 200,
            outbound_bytes_max: 1000,
            long_answers_bytes_max: 100_000,
            answers_bytes_max: 100_000,
            openings_bytes_max: 2000,
            control_bytes_max: 10_000,
            ..LinkLimits::default()
        }
    }

    /// What arrives on those streams is read, and credit is given back.
    fn reads(self) -> bool {
        self.has(7)
    }
}

/// A whole connection, whose peer says these bytes: the first is its mode, the second the length of the pieces
/// in which the others come, 0 for all at once. Whatever they are, the link ends with a reason that is counted
/// once, all its streams are told, nothing is left of it, and its limits hold all the time. The clock has to be
/// paused.
pub async fn connection(environment: Arc<dyn Environment>, data: &[u8]) {
    let Some(([mode, piece], said)) = data.split_first_chunk() else { return };
    let (mode, piece) = (Mode(*mode), if *piece == 0 { said.len().max(1) } else { usize::from(*piece) });
    let said = if mode.is_short() { spell(said) } else { said.to_vec() };
    let desk = Arc::new(Desk::new(mode.limits()));
    let [here, there] = PEERS.map(|peer| {
        Arc::new(Local {
            environment: environment.clone(),
            instance: peer.instance,
            epoch: Arc::new(AtomicU64::new(peer.epoch)),
            limits: mode.limits(),
            secret: mode.secret(),
            host: desk.clone(),
            counters: Arc::default(),
        })
    });
    let (near, far) = tokio::io::duplex(if mode.is_deaf() { 200 } else { 64 * 1024 });
    let peer = async {
        let mut far: Box<dyn ByteStream> = Box::new(far);
        if !mode.shakes() {
            let met = match mode.dials() {
                true => hello::accept(&there, &mut far).await,
                false => hello::dial(&there, &mut far, PEERS[0]).await,
            };
            met.expect("both ends are as they should be");
        }
        talk(far, &said, piece, mode.is_deaf()).await;
        std::future::pending::<()>().await;
    };
    let this = async {
        let near = Box::new(near);
        let link = match mode.dials() {
            true => Link::dial(here.clone(), near, PEERS[1]).await,
            false => Link::accept(here.clone(), near).await,
        };
        match link {
            Ok(link) => live(link, mode, &desk).await,
            Err(_) => assert!(mode.shakes(), "a handshake failed that is as it should be"),
        }
        let counted = here.counters.snapshot();
        let (closed, refused): (u64, u64) = (counted.closed.values().sum(), counted.refused.values().sum());
        assert_eq!((closed + refused, counted.connections_opened), (1, closed));
        assert_eq!(Arc::strong_count(&here), 1, "something of the link is left");
    };
    let over = async {
        tokio::select! {
            biased;
            () = this => {}
            () = peer => {}
        }
    };
    tokio::time::timeout(OVER_WITHIN, over).await.expect("it is over, in time");
}

/// Says the bytes in pieces, each when the one before it was taken in, and ends the connection.
async fn talk(far: Box<dyn ByteStream>, said: &[u8], piece: usize, is_deaf: bool) {
    let (mut heard, mut saying) = tokio::io::split(far);
    let listen = async {
        let mut heap = vec![0; 16 * 1024];
        while !is_deaf && heard.read(&mut heap).await.is_ok_and(|bytes| bytes > 0) {}
        std::future::pending::<()>().await;
    };
    let speak = async {
        for piece in said.chunks(piece) {
            if saying.write_all(piece).await.is_err() {
                return;
            }
            tokio::time::sleep(PAUSE).await;
        }
        // The other end may have ended it already.
        let _ = saying.shutdown().await;
    };
    tokio::select! {
        biased;
        () = speak => {}
        () = listen => {}
    }
}

/// The life of a link up to its end, with what has to hold in it.
async fn live(link: Link, mode: Mode, desk: &Desk) {
    let mut readers = Vec::new();
    if mode.opens() {
        for at in 0..STREAMS {
            let reader = Arc::new(Reader::new(mode.limits()));
            let (headers, payload) = (&Headers::new(), &vec![b'x'; at * 35_000].into());
            let deadline = Duration::from_secs(1);
            let wake_at = Some(Instant::now() + PAUSE * at as u32);
            let opened =
                link.open(Outbound { target: "a", deadline, headers, payload, wake_at }, reader.clone());
            // What the peer says that it allows may be less.
            readers.extend(opened.ok().map(|inflow| (reader, inflow)));
        }
        if let Ok(outflow) = link.attach(1, 3) {
            desk.answer(4, outflow);
        }
    }
    let reason = loop {
        tokio::select! {
            biased;
            reason = link.closed() => break reason,
            () = tokio::time::sleep(PAUSE) => {}
        }
        check(&link, mode, desk);
        if mode.reads() {
            readers.iter().for_each(|(reader, inflow)| reader.read(inflow));
            desk.read();
        }
    };
    assert_ne!(reason, CloseReason::Abandoned, "the task of the link panicked");
    assert!(readers.iter().all(|(reader, _)| reader.is_ended()), "a stream was not told");
    desk.ended().await;
    let ConnectionReport { streams_open, queued_bytes, assembling_bytes, .. } = link.snapshot();
    assert_eq!((streams_open, queued_bytes, assembling_bytes), (0, 0, 0));
}

/// The limits hold.
fn check(link: &Link, mode: Mode, desk: &Desk) {
    let (limits, snapshot) = (mode.limits(), link.snapshot());
    assert!(snapshot.streams_open <= limits.streams_max + STREAMS + 1, "{snapshot:?}");
    assert!(desk.held() <= limits.streams_max + 1);
    assert!(snapshot.assembling_bytes <= limits.assembling_bytes_max, "{snapshot:?}");
    // What is being written already, as much again behind it, and the requests of this end.
    let answers = limits.answers_bytes_max + limits.message_bytes_max + limits.control_bytes_max;
    assert!(snapshot.queued_bytes <= 2 * answers + STREAMS * 100_000, "{snapshot:?}");
}

/// The frames that are meant in short. The first bit of a kind makes the body longer by 1024 zeros for each byte
/// that it has.
fn spell(mut short: &[u8]) -> Vec<u8> {
    let mut said = Vec::new();
    while let Some(([kind, flags, stream, length], rest)) = short.split_first_chunk() {
        let (body, rest) = rest.split_at(rest.len().min(usize::from(*length)));
        let zeros = if kind & 0x80 == 0 { 0 } else { 1024 * usize::from(*length) };
        said.extend(((body.len() + zeros) as u32).to_le_bytes());
        said.extend([kind & 0x7f, *flags, 0, 0]);
        said.extend(u64::from(*stream).to_le_bytes());
        said.extend(body);
        said.resize(said.len() + zeros, 0);
        short = rest;
    }
    said
}
