//! A peer that shook hands and then does what it must not: each reason to close a link has its test here.

use slipring_core::Effect;

use super::super::frame::{BODY_BYTES_MAX, CHUNK_BYTES, HEAD_BYTES, Kind, LAST, MORE, OPEN_BYTES};
use super::super::reason::Violation;
use super::log::Log;
use super::peer::{Hostile, data, frame, item, of, open, open_announcing, small};
use super::*;

/// How a link with one stream of its own, number 2, is closed when it is sent these frames. What is wrong is
/// noticed from the frames alone: the connection stays open.
async fn fate(frames: &[Vec<u8>]) -> CloseReason {
    let log = Log::capture();
    let (mut hostile, far) = Hostile::meet(small()).await;
    let sink = Kept::new();
    let _inflow = far.open("go", &sink).unwrap();
    for frame in frames {
        hostile.send(frame).await;
    }
    let reason = far.link.closed().await;
    log.tells_once(reason);
    // Whatever happens, the stream is told once, by an error.
    assert!(sink.end().await.1.is_some());
    let counted = far.local.counters.snapshot();
    assert_eq!((counted.connections_opened, counted.closed.get(reason.code())), (1, Some(&1)));
    reason
}

async fn check(violation: Violation, attempts: &[&[Vec<u8>]]) {
    for (at, frames) in attempts.iter().enumerate() {
        assert_eq!(fate(frames).await, CloseReason::Violation(violation), "attempt {at}");
    }
}

/// A kind of a later version, or none.
#[tokio::test]
async fn unknown_kinds_are_refused() {
    for kind in [0, 15, 99, 255] {
        check(Violation::UnknownKind, &[&[frame(kind, 0, 1, &[])]]).await;
    }
}

/// A flag that the kind does not have.
#[tokio::test]
async fn unknown_flags_are_refused() {
    let open_last = open_announcing(1, LAST, 0, &[]);
    check(Violation::UnknownFlags, &[&[frame(9, MORE, 2, &[])], &[frame(11, 128, 0, &[0; 8])], &[open_last]])
        .await;
}

/// Bytes that are kept for later versions.
#[tokio::test]
async fn reserved_bytes_are_refused() {
    for at in [6, 7] {
        let mut ping = frame(11, 0, 0, &[0; 8]);
        ping[at] = 1;
        check(Violation::Reserved, &[&[ping]]).await;
    }
}

/// Lengths beyond the limits are refused from the head alone, before anything of that length is there.
#[tokio::test]
async fn lengths_beyond_the_limits_are_refused() {
    let head = |length: u32| [&length.to_le_bytes()[..], &frame(1, 0, 1, &[])[4..]].concat();
    let long = (1_u32 << 20) + 1;
    let long_item = of(Kind::Item, MORE, 2, &[&[0; 8], &long.to_le_bytes()]);
    let mut long_target = frame(1, 0, 1, &[0; OPEN_BYTES]);
    long_target[HEAD_BYTES + 14..][..4].copy_from_slice(&u32::MAX.to_le_bytes());
    check(
        Violation::TooLong,
        &[
            &[head(BODY_BYTES_MAX as u32 + 1)],
            &[head(u32::MAX)],
            &[open_announcing(1, MORE, long as usize, &[])],
            &[long_item],
            &[long_target],
        ],
    )
    .await;
}

/// Bodies that are too short, too long, or no text where text has to be.
#[tokio::test]
async fn bodies_that_cannot_be_read_are_refused() {
    let mut bad_target = open(1, b"");
    let at = bad_target.len() - 1;
    bad_target[at] = 0xff;
    let mut cut_headers = open(1, b"");
    cut_headers[HEAD_BYTES + 14] = 9;
    let items = |count: u32, rest: &[u8]| of(Kind::Items, 0, 2, &[&[0; 8], &count.to_le_bytes(), rest]);
    check(
        Violation::Malformed,
        &[
            &[frame(1, 0, 1, &[0; OPEN_BYTES - 1])],
            &[frame(9, 0, 2, &[1])],
            &[frame(10, 0, 2, &[1])],
            &[frame(13, 0, 0, &[0; 9])],
            &[frame(5, 0, 2, &[0; 4])],
            &[frame(5, 0, 2, &[0; 5 + CHUNK_BYTES])],
            &[bad_target],
            &[cut_headers],
            &[open_announcing(1, 0, 2, b"one")],
            &[open_announcing(1, 0, 4, b"one")],
            &[open_announcing(1, MORE, 4, b"one")],
            &[open_announcing(1, MORE, 0, b"")],
            &[items(0, &[0; 4])],
            &[items(1, &[2, 0, 0, 0, 1])],
            &[items(u32::MAX, &[0; 4])],
            &[of(Kind::Item, MORE, 2, &[&[0; 8], &[0; 4]])],
            &[of(Kind::Item, MORE, 2, &[&[0; 8], &[9, 0, 0, 0, 1]])],
            &[of(Kind::Fail, 0, 2, &[&[0; 4], b"no error"])],
            &[frame(14, 0, 0, &[2])],
        ],
    )
    .await;
}

/// Streams that are opened out of order, again (a replayed frame), with the other end's numbers, or not at all.
#[tokio::test]
async fn impossible_stream_numbers_are_refused() {
    check(
        Violation::StreamNumber,
        &[
            &[open(3, b"")],
            &[open(4, b"")],
            &[open(2, b"")],
            &[open(0, b"")],
            &[open(1, b""), open(1, b"")],
            &[open(1, b""), open(5, b"")],
            &[frame(2, 0, 3, &[0; 16])],
            &[frame(11, 0, 1, &[0; 8])],
            &[frame(13, 0, 0, &4_u64.to_le_bytes())],
            &[frame(13, 0, 0, &1_u64.to_le_bytes())],
        ],
    )
    .await;
}

/// Frames about streams of either end that were never opened.
#[tokio::test]
async fn frames_without_their_stream_are_refused() {
    let end = |stream| frame(6, 0, stream, &[0; 12]);
    check(
        Violation::NeverOpened,
        &[
            &[frame(9, 0, 1, &[])],
            &[frame(10, 0, 4, &[0; 4])],
            &[end(4)],
            &[end(1)],
            &[data(1, 0, b"x")],
            &[frame(8, 0, 4, &[])],
            &[frame(8, 0, u64::MAX, &[])],
        ],
    )
    .await;
}

/// More streams than allowed, whole or half arrived. Those that are over do not count.
#[tokio::test]
async fn too_many_streams_are_refused() {
    check(Violation::TooManyStreams, &[&[open(1, b""), open(3, b""), open(5, b"")]]).await;
    let more = |stream| open_announcing(stream, MORE, 9, b"");
    check(Violation::TooManyStreams, &[&[more(1), open(3, b""), more(5)]]).await;
    let (mut hostile, mut far) = Hostile::meet(small()).await;
    for stream in (1..2000).step_by(2) {
        hostile.send(&open(stream, b"")).await;
        far.request().await;
        hostile.send(&frame(9, 0, stream, &[])).await;
    }
    assert!(far.link.is_usable());
}

/// Items beyond the window. A single one may be longer.
#[tokio::test]
async fn items_without_credit_are_refused() {
    check(
        Violation::NoCredit,
        &[
            &[item(0, 0, &[0; 99]), item(1, 0, b"")],
            &[item(0, 0, b""), item(1, 0, b""), item(2, 0, b""), item(3, 0, b""), item(4, 0, b"")],
            &[of(Kind::Items, 0, 2, &[&[0; 8], &[5, 0, 0, 0], &[0; 20]])],
            &[item(0, 0, &[0; 99]), of(Kind::Item, MORE, 2, &[&[0; 4], &[1, 0, 0, 0], &[9, 0, 0, 0]])],
        ],
    )
    .await;
}

/// Credit that was never used up cannot be given back.
#[tokio::test]
async fn credit_beyond_the_window_is_refused() {
    let window = |bytes: u32| frame(10, 0, 1, &bytes.to_le_bytes());
    check(Violation::TooMuchCredit, &[&[open(1, b""), window(1)], &[open(1, b""), window(u32::MAX)]]).await;
}

/// Chunks that nobody announced, that are missing, come again, come in another order or are too many, and
/// messages amid those of others on their stream.
#[tokio::test]
async fn chunks_out_of_place_are_refused() {
    let more = open_announcing(1, MORE, 4, b"");
    let item_more = of(Kind::Item, MORE, 2, &[&[0; 8], &[4, 0, 0, 0]]);
    check(
        Violation::Chunk,
        &[
            &[open(1, b""), data(1, 0, b"x")],
            &[data(2, 0, b"x")],
            &[more.clone(), data(1, 1, b"x")],
            &[more.clone(), data(1, 0, b"xy"), data(1, 0, b"xy")],
            &[more.clone(), data(1, 2, b"xy"), data(1, 0, b"xy")],
            &[more.clone(), data(1, 0, b"xyzab")],
            &[more, data(1, 0, b"xyza"), data(1, 4, b"b")],
            &[item_more.clone(), item(1, 0, b"")],
            &[item_more.clone(), of(Kind::Item, MORE, 2, &[&[0; 4], &[1, 0, 0, 0], &[4, 0, 0, 0]])],
            &[item_more.clone(), of(Kind::End, 0, 2, &[&[0; 4], &1_u64.to_le_bytes()])],
            &[item_more, data(2, 0, b"xyzab")],
        ],
    )
    .await;
}

/// Items that come again (a replayed frame), that are missing, and ends that claim another number of them.
#[tokio::test]
async fn items_that_are_missing_or_come_again_are_refused() {
    let end = |count: u64| of(Kind::End, 0, 2, &[&[0; 4], &count.to_le_bytes()]);
    check(
        Violation::Count,
        &[
            &[item(1, 0, b"")],
            &[item(0, 0, b""), item(0, 0, b"")],
            &[item(0, 0, b""), item(2, LAST, b"")],
            &[end(1)],
            &[item(0, 0, b""), end(0)],
            &[of(Kind::Items, LAST, 2, &[&[0; 4], &[1, 0, 0, 0], &[1, 0, 0, 0], &[0; 4]])],
        ],
    )
    .await;
}

/// Going away once is for good; doing it again would only make work.
#[tokio::test]
async fn going_away_again_is_refused() {
    let go_away = || frame(13, 0, 0, &2_u64.to_le_bytes());
    check(Violation::GoneAlready, &[&[go_away(), go_away()]]).await;
}

/// What came before a violation is delivered, and the peer is told that it is accused.
#[tokio::test]
async fn a_violation_spares_what_came_before_it() {
    let (mut hostile, mut far) = Hostile::meet(small()).await;
    let sink = Kept::new();
    let _inflow = far.open("go", &sink).unwrap();
    hostile.send(&[open(1, b"one"), item(0, 0, b"two"), frame(99, 0, 1, &[])].concat()).await;
    assert_eq!(far.request().await.payload, "one");
    let (items, error) = sink.end().await;
    assert_eq!((items, error.unwrap().code()), (vec!["two".into()], "stream_interrupted"));
    loop {
        let (head, body) = hostile.frame().await;
        if head.kind == Kind::Close {
            assert_eq!(body, [1]);
            break;
        }
    }
}

/// A connection that ends inside of a frame, in its head or in its body.
#[tokio::test]
async fn truncated_frames_are_noticed() {
    let frame = open(1, b"payload");
    for cut in [1, HEAD_BYTES - 1, HEAD_BYTES, frame.len() - 1] {
        let (mut hostile, far) = Hostile::meet(small()).await;
        hostile.send(&frame[..cut]).await;
        drop(hostile);
        assert_eq!(far.link.closed().await, CloseReason::Truncated, "{cut}");
    }
}

/// A peer that ends the connection, with or without a word, and one that accuses us.
#[tokio::test]
async fn a_peer_that_closes_is_believed() {
    assert_eq!(fate(&[frame(14, 0, 0, &[0])]).await, CloseReason::PeerClosed);
    assert_eq!(fate(&[frame(14, 0, 0, &[1])]).await, CloseReason::Accused);
    let (hostile, far) = Hostile::meet(small()).await;
    drop(hostile);
    assert_eq!(far.link.closed().await, CloseReason::PeerClosed);
}

/// A peer that says nothing while a stream is open is pinged, and cut off when it does not answer; what it was
/// sent may have been executed.
#[tokio::test(start_paused = true)]
async fn a_silent_peer_is_noticed() {
    let (mut hostile, far) = Hostile::meet(LinkLimits::default()).await;
    let (began, sink) = (tokio::time::Instant::now(), Kept::new());
    let _inflow = far.open("go", &sink).unwrap();
    assert_eq!(hostile.frame().await.0.kind, Kind::Open);
    assert_eq!(hostile.frame().await.0.kind, Kind::Ping);
    assert_eq!(began.elapsed().as_secs(), 2);
    assert_eq!(far.link.closed().await, CloseReason::Silent);
    assert_eq!(began.elapsed().as_secs(), 4);
    let (_, error) = sink.end().await;
    assert_eq!(error.unwrap().effect(), Effect::Unknown);
}

/// The same when the stream is opened after the link had nothing to do for long.
#[tokio::test(start_paused = true)]
async fn a_peer_that_fell_silent_while_idle_is_noticed() {
    let (_hostile, far) = Hostile::meet(LinkLimits::default()).await;
    tokio::time::sleep(Duration::from_secs(50)).await;
    let began = tokio::time::Instant::now();
    let _inflow = far.open("go", &Kept::new()).unwrap();
    assert_eq!(far.link.closed().await, CloseReason::Silent);
    assert!(began.elapsed() <= Duration::from_millis(4010), "{:?}", began.elapsed());
}

/// A peer that sends a frame byte by byte (a slow loris) is cut off, however busy it looks.
#[tokio::test(start_paused = true)]
async fn a_frame_that_does_not_go_on_is_noticed() {
    let (mut hostile, far) = Hostile::meet(LinkLimits::default()).await;
    let began = tokio::time::Instant::now();
    let link = far.link.clone();
    let drip = async {
        for byte in open(1, &[0; 1000]) {
            hostile.send(&[byte]).await;
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        unreachable!("it took a quarter of an hour");
    };
    tokio::select! {
        biased;
        reason = link.closed() => assert_eq!(reason, CloseReason::Stalled),
        () = drip => {}
    }
    assert_eq!(began.elapsed().as_secs(), 10);
}

/// A peer that has to be answered (to pings, to requests that are refused) and does not read is cut off when too much
/// piles up.
#[tokio::test]
async fn a_peer_that_does_not_read_is_noticed() {
    let (near, far) = tokio::io::duplex(4096);
    let (mut hostile, far) = Hostile::meet_over(near, far, LinkLimits::default()).await;
    let pings = frame(11, 0, 0, &[0; 8]).repeat(1000);
    let flood = async {
        loop {
            hostile.send(&pings).await;
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        biased;
        reason = far.link.closed() => assert_eq!(reason, CloseReason::Unread),
        () = flood => {}
    }
    assert!(far.link.snapshot().queued_bytes <= 3 << 20, "{:?}", far.link.snapshot());
}

/// Requests in chunks for which there is no room are refused one by one, with effect none, while the link and
/// other requests go on; their further chunks do no harm.
#[tokio::test]
async fn requests_without_room_are_refused() {
    let (mut hostile, mut far) = Hostile::meet(LinkLimits { streams_max: 10, ..small() }).await;
    let announced = 600 << 10;
    hostile.send(&open_announcing(1, MORE, announced, b"")).await;
    hostile.send(&open_announcing(3, MORE, announced, b"")).await;
    for stream in [1, 3] {
        for at in 0..announced / CHUNK_BYTES {
            hostile.send(&data(stream, (at * CHUNK_BYTES) as u32, &[7; CHUNK_BYTES])).await;
        }
    }
    let (head, body) = hostile.frame().await;
    assert_eq!((head.kind, head.stream), (Kind::Fail, 3));
    let error = crate::plane::wire::decode_failure(&body[4..]).unwrap();
    assert_eq!((error.code(), error.effect()), ("overloaded", Effect::None));
    hostile.send(&open(5, b"small")).await;
    assert_eq!(far.request().await.payload, "small");
    let rest = announced % CHUNK_BYTES;
    hostile.send(&data(1, (announced - rest) as u32, &vec![7; rest])).await;
    assert!(far.request().await.payload == vec![7; announced]);
    assert_eq!(far.link.snapshot().assembling_bytes, 0);
    assert_eq!(far.link.snapshot().totals.refused_overloaded, 1);
}

/// An item in chunks for which there is no room fails its stream alone.
#[tokio::test]
async fn items_without_room_are_refused() {
    let (mut hostile, far) = Hostile::meet(small()).await;
    let (one, two) = (Kept::new(), Kept::new());
    let _inflows = [far.open("go", &one).unwrap(), far.open("go", &two).unwrap()];
    let announced = 600_u32 << 10;
    for stream in [2, 4] {
        hostile.send(&of(Kind::Item, MORE, stream, &[&[0; 8], &announced.to_le_bytes()])).await;
        hostile.send(&data(stream, 0, &[7; CHUNK_BYTES])).await;
    }
    let (items, error) = two.end().await;
    assert_eq!((items.len(), error.unwrap().code()), (0, "overloaded"));
    assert!(one.arrivals().is_empty() && far.link.is_usable());
}

/// Late frames about streams that are over, of every kind, do no harm.
#[tokio::test]
async fn late_frames_do_no_harm() {
    let (mut hostile, mut far) = Hostile::meet(small()).await;
    let sink = Kept::new();
    drop(far.open("go", &sink).unwrap());
    hostile.send(&open(1, b"")).await;
    far.request().await.answers.end(0).unwrap();
    let late = [
        item(0, 0, b"late"),
        item(7, MORE, &[1, 0, 0, 0]),
        data(2, 0, b"l"),
        of(Kind::Fail, 0, 2, &[&[0; 4], b"{}"]),
        frame(6, 0, 2, &[0; 12]),
        frame(8, 0, 2, &[]),
        frame(9, 0, 1, &[]),
        frame(10, 0, 1, &[0; 4]),
        frame(12, 0, 0, &[0; 8]),
        open(3, b"after"),
    ];
    hostile.send(&late.concat()).await;
    assert_eq!(far.request().await.payload, "after");
    assert!(sink.arrivals().is_empty());
}
