//! A conversation with a frame of every kind that is cut, garbled, repeated, reordered or has holes, anywhere.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::super::frame::{Kind, LAST, MORE};
use super::super::hello::{self, HELLO_BYTES};
use super::peer::{Hostile, data, frame, of, open, open_announcing};
use super::*;

/// What both ends say in a handshake without a secret: the dialler, and the one who was dialled.
async fn recorded() -> [Vec<u8>; 2] {
    let (dialler, _, _) = local(1, LinkLimits::default(), None);
    let (dialled, _, _) = local(2, LinkLimits::default(), None);
    let (near, mut tap) = tokio::io::duplex(1024);
    let (mut out, far) = tokio::io::duplex(1024);
    let (mut near, mut far): (Box<dyn ByteStream>, Box<dyn ByteStream>) = (Box::new(near), Box::new(far));
    let between = async {
        let mut said = [vec![0; HELLO_BYTES + 32], vec![0; HELLO_BYTES + 34]];
        let [dialler, dialled] = &mut said;
        tap.read_exact(&mut dialler[..HELLO_BYTES]).await.unwrap();
        out.write_all(&dialler[..HELLO_BYTES]).await.unwrap();
        out.read_exact(&mut dialled[..HELLO_BYTES]).await.unwrap();
        tap.write_all(&dialled[..HELLO_BYTES]).await.unwrap();
        tap.read_exact(&mut dialler[HELLO_BYTES..]).await.unwrap();
        out.write_all(&dialler[HELLO_BYTES..]).await.unwrap();
        out.read_exact(&mut dialled[HELLO_BYTES..]).await.unwrap();
        tap.write_all(&dialled[HELLO_BYTES..]).await.unwrap();
        said
    };
    let (near, far, said) =
        tokio::join!(hello::dial(&dialler, &mut near, DIALLED), hello::accept(&dialled, &mut far), between);
    near.unwrap();
    far.unwrap();
    said
}

/// A handshake that ends after any of its bytes is a cut one, at either end, and counted.
#[tokio::test]
async fn handshakes_cut_at_every_byte_are_refused() {
    let said = recorded().await;
    for (dials, said) in [(false, &said[0]), (true, &said[1])] {
        for cut in 0..said.len() {
            let (local, _, _) = local(2, LinkLimits::default(), None);
            let (mut near, far) = tokio::io::duplex(1024);
            near.write_all(&said[..cut]).await.unwrap();
            near.shutdown().await.unwrap();
            let link = match dials {
                true => Link::dial(local.clone(), Box::new(far), DIALLED).await,
                false => Link::accept(local.clone(), Box::new(far)).await,
            };
            assert_eq!(link.unwrap_err().code(), "unavailable", "after {cut} bytes");
            assert_eq!(local.counters.snapshot().refused, BTreeMap::from([("hello_cut", 1)]));
        }
    }
}

/// A handshake of which any bit is wrong ends: it is refused, or the bit was about what nobody can check.
#[tokio::test]
async fn handshakes_with_any_bit_changed_end() {
    let said = recorded().await;
    for (dials, said) in [(false, &said[0]), (true, &said[1])] {
        let mut established = 0;
        for bit in 0..8 * said.len() {
            let (local, _, _) = local(2, LinkLimits::default(), None);
            let (mut near, far) = tokio::io::duplex(1024);
            let mut said = said.clone();
            said[bit / 8] ^= 1 << (bit % 8);
            near.write_all(&said).await.unwrap();
            near.shutdown().await.unwrap();
            let link = match dials {
                true => Link::dial(local.clone(), Box::new(far), DIALLED).await,
                false => Link::accept(local.clone(), Box::new(far)).await,
            };
            established += u32::from(link.is_ok());
            let refused: u64 = local.counters.snapshot().refused.values().sum();
            assert_eq!(refused, u64::from(link.is_err()), "bit {bit}");
        }
        // The peer's identity, what it allows, and its nonce: without a secret it may say of those what it likes.
        assert!(established <= 8 * 64, "{established}");
    }
}

/// The streams that the other end opens before the conversation: 2 to 12.
const STREAMS: usize = 6;

/// A frame of every kind, in a conversation that keeps to the protocol.
fn conversation() -> Vec<Vec<u8>> {
    let item = |stream, number: u32, flags, payload: &[u8]| {
        of(Kind::Item, flags, stream, &[&[0; 4], &number.to_le_bytes(), payload])
    };
    let fault = crate::plane::wire::encode_failure(&Error::fault("bad", "it failed"));
    vec![
        open(1, b"one"),
        item(2, 0, 0, b"a"),
        open_announcing(3, MORE, 5, b""),
        data(3, 0, b"tw"),
        frame(11, 0, 0, &[7; 8]),
        item(4, 0, MORE, &3_u32.to_le_bytes()),
        data(4, 0, b"xy"),
        data(3, 2, b"o.."),
        item(2, 1, 0, b"b"),
        data(4, 2, b"z"),
        item(4, 1, LAST, b"last"),
        of(Kind::Items, 0, 2, &[&[0; 4], &[2, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0], b"c"]),
        of(Kind::End, 0, 2, &[&[0; 4], &4_u64.to_le_bytes()]),
        of(Kind::Items, LAST, 6, &[&[0; 8], &[1, 0, 0, 0, 4, 0, 0, 0], b"only"]),
        of(Kind::Fail, 0, 8, &[&[0; 4], &fault]),
        item(10, 0, 0, b"half"),
        frame(8, 0, 10, &[]),
        open(5, b"three"),
        frame(10, 0, 5, &0_u32.to_le_bytes()),
        frame(9, 0, 5, &[]),
        frame(2, 0, 7, &[3; 16]),
        frame(12, 0, 0, &[7; 8]),
        frame(13, 0, 0, &12_u64.to_le_bytes()),
        item(12, 0, LAST, b"end"),
        frame(14, 0, 0, &[0]),
    ]
}

/// What became of a conversation.
#[derive(Debug, PartialEq)]
struct Heard {
    reason: CloseReason,
    requests: Vec<Bytes>,
    streams: Vec<(Vec<Bytes>, Option<Error>)>,
}

impl Heard {
    /// What becomes of this, after which the peer ends the connection.
    async fn of(said: &[u8]) -> Self {
        let (mut hostile, mut far) = Hostile::meet(LinkLimits::default()).await;
        let sinks: Vec<_> = (0..STREAMS).map(|_| Kept::new()).collect();
        let _open: Vec<_> = sinks.iter().map(|sink| far.open("go", sink).unwrap()).collect();
        hostile.send(said).await;
        hostile.stream.shutdown().await.unwrap();
        let reason = far.link.closed().await;
        let counted = far.local.counters.snapshot();
        assert_eq!((counted.connections_opened, counted.closed), (1, BTreeMap::from([(reason.code(), 1)])));
        assert_ne!(reason, CloseReason::Abandoned, "the link's task panicked");
        let mut requests = Vec::new();
        while let Ok(request) = far.requests.try_recv() {
            requests.push(request.payload);
        }
        let mut streams = Vec::new();
        for sink in sinks {
            streams.push(sink.end().await);
        }
        let snapshot = far.link.snapshot();
        assert_eq!((snapshot.streams_open, snapshot.assembling_bytes), (0, 0));
        Self { reason, requests, streams }
    }

    /// Whatever was done to the conversation, nobody was told a lie: the link was closed for a violation, or all
    /// that is complete is as it was said, and what came in part is the beginning of it.
    fn check(&self, said: &Self, what: &str) {
        // Requests are independent of each other, so they have no order.
        let (mut heard, mut all) = (self.requests.clone(), said.requests.clone());
        heard.sort();
        heard.dedup();
        all.retain(|request| heard.contains(request));
        all.sort();
        assert!(heard == all && heard.len() == self.requests.len(), "{what}: {self:?}");
        for ((items, error), (all, _)) in self.streams.iter().zip(&said.streams) {
            assert!(all.starts_with(items), "{what}: {self:?}");
            assert!(error.is_some() || items == all, "{what}: {self:?}");
        }
    }
}

/// The conversation itself: all of it is understood.
#[tokio::test]
async fn a_conversation_is_understood() {
    let heard = Heard::of(&conversation().concat()).await;
    assert_eq!(heard.reason, CloseReason::PeerClosed);
    assert_eq!(heard.requests, ["one", "two..", "three"]);
    let items: Vec<Vec<&[u8]>> =
        heard.streams.iter().map(|(items, _)| items.iter().map(|item| &item[..]).collect()).collect();
    let expected: [&[&[u8]]; STREAMS] =
        [&[b"a", b"b", b"c", b""], &[b"xyz", b"last"], &[b"only"], &[], &[b"half"], &[b"end"]];
    assert_eq!(items, expected);
    let failed: Vec<_> =
        heard.streams.iter().map(|(_, error)| error.as_ref().map(|error| error.code())).collect();
    assert_eq!(failed, [None, None, None, Some("fault"), Some("stream_interrupted"), None]);
}

/// A connection that ends after any byte: inside of a frame it was truncated, between two it was closed. What is
/// complete by then is delivered.
#[tokio::test]
async fn conversations_cut_at_every_byte_end() {
    let (frames, whole) = (conversation(), Heard::of(&conversation().concat()).await);
    let all = frames.concat();
    let mut ends: Vec<_> = frames.iter().map(Vec::len).collect();
    for at in 1..ends.len() {
        ends[at] += ends[at - 1];
    }
    for cut in 0..all.len() {
        let heard = Heard::of(&all[..cut]).await;
        let between = cut == 0 || ends.contains(&cut);
        let reason = if between { CloseReason::PeerClosed } else { CloseReason::Truncated };
        assert_eq!(heard.reason, reason, "after {cut} bytes");
        heard.check(&whole, &format!("after {cut} bytes"));
    }
}

/// Any byte that is changed on the way, a little or wholly, ends the link or changes what it says itself, and nothing
/// else: it never panics, and every stream is told.
#[tokio::test]
async fn conversations_with_any_byte_changed_end() {
    let all = conversation().concat();
    let mut reasons = BTreeMap::new();
    for at in 0..all.len() {
        for change in [1 << (at % 8), 0xff] {
            let mut said = all.clone();
            said[at] ^= change;
            let heard = Heard::of(&said).await;
            *reasons.entry(heard.reason.code()).or_insert(0) += 1;
        }
    }
    // Nearly all that can be wrong with a frame is among them.
    assert!(reasons.len() >= 10, "{reasons:?}");
    assert!(reasons["peer_closed"] < all.len(), "{reasons:?}");
}

/// Any frame that comes twice: those that bring or open something are refused, the others change nothing.
#[tokio::test]
async fn repeated_frames_are_refused_or_change_nothing() {
    let (frames, whole) = (conversation(), Heard::of(&conversation().concat()).await);
    for (at, frame) in frames.iter().enumerate() {
        for behind in at + 1..=frames.len() - 1 {
            let mut said = frames.clone();
            said.insert(behind, frame.clone());
            let what = format!("frame {at} again at {behind}");
            let heard = Heard::of(&said.concat()).await;
            heard.check(&whole, &what);
            let kind = frame[4];
            // Of a stream that is over, items that come again are late ones: nobody gets them.
            let over = |stream: u8| said[..behind].iter().any(|frame| frame[8] == stream && ends(frame));
            let brings = [Kind::Item, Kind::Items, Kind::Data].map(|kind| kind as u8).contains(&kind);
            let opens = [Kind::Open, Kind::Attach, Kind::GoAway].map(|kind| kind as u8).contains(&kind);
            if opens || brings && !over(frame[8]) {
                assert!(matches!(heard.reason, CloseReason::Violation(_)), "{what}: {heard:?}");
            } else {
                assert_eq!(heard, whole, "{what}");
            }
        }
    }
}

/// Does this frame end its stream of answers?
fn ends(frame: &[u8]) -> bool {
    let (kind, flags) = (frame[4], frame[5]);
    [Kind::End, Kind::Fail, Kind::Reset].iter().any(|end| *end as u8 == kind)
        || [Kind::Item, Kind::Items].iter().any(|item| *item as u8 == kind) && flags & LAST != 0
}

/// Any two frames that change places, and any that is missing: nobody gets anything but what was said, in the order
/// of its stream, and no stream looks whole that is not. What belongs to one stream and is numbered is refused.
#[tokio::test]
async fn reordered_and_missing_frames_are_noticed() {
    let (frames, whole) = (conversation(), Heard::of(&conversation().concat()).await);
    let numbered = [Kind::Open, Kind::Item, Kind::Items, Kind::Data, Kind::End].map(|kind| kind as u8);
    for first in 0..frames.len() {
        let mut said = frames.clone();
        said.remove(first);
        Heard::of(&said.concat()).await.check(&whole, &format!("without frame {first}"));
        for second in first + 1..frames.len() {
            let mut said = frames.clone();
            said.swap(first, second);
            let heard = Heard::of(&said.concat()).await;
            let what = format!("frames {first} and {second} changed places");
            heard.check(&whole, &what);
            let [one, other] = [&frames[first], &frames[second]];
            if one[8..16] == other[8..16] && numbered.contains(&one[4]) && numbered.contains(&other[4]) {
                assert!(matches!(heard.reason, CloseReason::Violation(_)), "{what}: {heard:?}");
            }
        }
    }
}
