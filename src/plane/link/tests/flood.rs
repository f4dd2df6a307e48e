//! What a peer can make this end keep is bounded, whatever it sends and however little it reads.

use bytes::BytesMut;

use super::super::frame::{BODY_BYTES_MAX, Kind, MORE};
use super::super::intake::Intake;
use super::super::reason::Violation;
use super::super::shared::Shared;
use super::peer::{Hostile, data, frame, of, open, open_announcing};
use super::*;

/// Opens streams for ever, and never reads an answer; each request is handled like this. Returns why the link was
/// closed, and the most that was queued until then.
async fn flood(limits: LinkLimits, handle: impl Fn(Inbound)) -> (CloseReason, usize) {
    let (near, far) = tokio::io::duplex(4096);
    let (mut hostile, mut far) = Hostile::meet_over(near, far, limits).await;
    let (link, mut most) = (far.link.clone(), 0);
    let opens = async {
        for stream in (1_u64..).step_by(2) {
            hostile.send(&open(stream, b"")).await;
        }
    };
    let answers = async {
        while let Some(request) = far.requests.recv().await {
            handle(request);
            most = most.max(link.snapshot().queued_bytes);
        }
    };
    let reason = tokio::select! {
        biased;
        reason = link.closed() => reason,
        () = answers => unreachable!("the link lives"),
        () = opens => unreachable!("it opens for ever"),
    };
    (reason, most)
}

/// A peer that never reads what it asked for, be it small, long, an error or nothing at all, is cut off when too
/// much piles up, even where whoever answers does not wait for room.
#[tokio::test]
async fn a_peer_that_never_reads_its_answers_is_cut_off() {
    let limits =
        LinkLimits { answers_bytes_max: 1 << 20, message_bytes_max: 1 << 20, ..LinkLimits::default() };
    type Answer = fn(Inbound);
    let ways: [(&str, Answer); 5] = [
        ("small", |request| request.answers.items(&[bytes(1000, 0)], true, 0).unwrap_or(())),
        ("long", |request| request.answers.items(&[bytes(200_000, 0)], true, 0).unwrap_or(())),
        ("ends", |request| request.answers.end(0).unwrap_or(())),
        ("errors", |request| request.answers.fail(&Error::fault("bad", "x".repeat(3000)), 0)),
        ("resets", drop),
    ];
    for (name, handle) in ways {
        let (reason, most) = flood(limits, handle).await;
        assert_eq!(reason, CloseReason::Unread, "{name}");
        // As much again may be on its way out already.
        assert!(most <= 2 * (2 << 20) + 300_000, "{name}: {most} bytes");
    }
}

/// Whoever answers with long messages waits as soon as many of them are queued, and goes on when they are gone.
#[tokio::test]
async fn long_answers_wait_for_room() {
    let limits = LinkLimits { long_answers_bytes_max: 1 << 20, ..LinkLimits::default() };
    let (near, mut far) = pair_with(limits).await;
    let sinks: Vec<_> = (0..20).map(|_| Kept::new()).collect();
    let _open: Vec<_> = sinks.iter().map(|sink| near.open("go", sink).unwrap()).collect();
    let mut answers = Vec::new();
    for _ in &sinks {
        answers.push(far.request().await.answers);
    }
    let mut sent = 0;
    while answers[sent].has_room() {
        answers[sent].items(&[bytes(300_000, 0)], true, 0).unwrap();
        sent += 1;
    }
    assert_eq!(sent, 4);
    for answers in &answers[sent..] {
        answers.room().await.unwrap();
        answers.items(&[bytes(300_000, 0)], true, 0).unwrap();
        assert!(far.link.snapshot().queued_bytes < 2_000_000);
    }
    for sink in &sinks {
        assert_eq!(sink.end().await.0.len(), 1);
    }
}

/// Requests that never become whole are refused when what they have said already takes too much; what is given up
/// makes room, and the link goes on.
#[tokio::test]
async fn requests_that_never_become_whole_are_bounded() {
    let limits = LinkLimits { openings_bytes_max: 1 << 20, ..LinkLimits::default() };
    let (mut hostile, mut far) = Hostile::meet(limits).await;
    let mut headers = Headers::new();
    (0..200).for_each(|at| headers.append(format!("h{at}"), "").unwrap());
    let mut body = Vec::new();
    super::super::frame::Preamble::write(&mut body, Duration::from_secs(1), 9, "a", &headers);
    let mut refused = Vec::new();
    for stream in (1..400).step_by(2) {
        hostile.send(&of(Kind::Open, MORE, stream, &[&body])).await;
        hostile.send(&frame(11, 0, 0, &[0; 8])).await;
        loop {
            let (head, _) = hostile.frame().await;
            match head.kind {
                Kind::Pong => break,
                Kind::Fail => refused.push(head.stream),
                other => panic!("{other:?}"),
            }
        }
    }
    assert!((100..150).contains(&refused.len()), "{refused:?}");
    assert!(refused.is_sorted() && refused.last() == Some(&399));
    assert_eq!(far.link.snapshot().totals.refused_overloaded, refused.len() as u64);
    // Chunks of those that were refused are dropped; those of the others are taken.
    for stream in [399, 1] {
        hostile.send(&data(stream, 0, b"123456789")).await;
    }
    assert_eq!(far.request().await.payload, "123456789");
    hostile.send(&frame(9, 0, 3, &[])).await;
    hostile.send(&of(Kind::Open, MORE, 401, &[&body])).await;
    hostile.send(&data(401, 0, b"987654321")).await;
    assert_eq!(far.request().await.payload, "987654321");
    assert!(far.requests.try_recv().is_err() && far.link.is_usable());
}

/// A length that is too long is refused before there is any room for it, and one that is allowed gets room as it
/// comes: neither makes anything grow.
#[tokio::test]
async fn nothing_is_allocated_for_a_length() {
    let (local, _, _) = local(2, LinkLimits::default(), None);
    let (_near, far) = tokio::io::duplex(1024);
    let theirs = super::super::hello::Allowance::of(&LinkLimits::default());
    let shared = Shared::new(local, Box::new(far), DIALLED, theirs, false);
    let head = |length: u32, rest: &[u8]| [&length.to_le_bytes()[..], &rest[4..]].concat();
    let long = open_announcing(1, MORE, 64 << 20, b"");
    let cases = [
        (head(u32::MAX, &open(1, b"")), Err(Violation::TooLong.into())),
        (head(BODY_BYTES_MAX as u32 + 1, &open(1, b"")), Err(Violation::TooLong.into())),
        (head(BODY_BYTES_MAX as u32, &open(1, b"")), Ok(())),
        (long, Ok(())),
    ];
    for (said, expected) in cases {
        let mut intake = Intake::default();
        intake.input = BytesMut::with_capacity(4096);
        intake.input.extend_from_slice(&said);
        assert_eq!(intake.take(&shared), expected);
        assert!(intake.input.capacity() <= 4096, "{}", intake.input.capacity());
    }
    assert_eq!(shared.snapshot().assembling_bytes, 0);
    shared.finish(CloseReason::Requested);
}

/// Streams that are opened and given up at once leave nothing behind.
#[tokio::test]
async fn opening_and_giving_up_leaves_nothing() {
    let (mut hostile, mut far) = Hostile::meet(LinkLimits::default()).await;
    let (rounds, link) = (50_000, far.link.clone());
    let said = async {
        for stream in (1..2 * rounds).step_by(2) {
            hostile.send(&[open(stream, b"x"), frame(9, 0, stream, &[])].concat()).await;
        }
        hostile.send(&frame(11, 0, 0, &[0; 8])).await;
        while hostile.frame().await.0.kind != Kind::Pong {}
    };
    let heard = async { while far.requests.recv().await.is_some() {} };
    tokio::select! {
        biased;
        () = heard => unreachable!("the link lives"),
        () = said => {}
    }
    let snapshot = link.snapshot();
    assert_eq!((snapshot.streams_open, snapshot.queued_bytes, snapshot.assembling_bytes), (0, 0, 0));
    assert_eq!(snapshot.totals.cancels_received, rounds);
}
