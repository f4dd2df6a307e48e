//! What travels, byte for byte, as the document of the protocol says.

use tokio::io::AsyncReadExt;

use super::super::hello::HELLO_BYTES;
use super::peer::{Hostile, frame};
use super::*;

impl Hostile {
    /// The next bytes are these frames.
    async fn hears(&mut self, frames: &[Vec<u8>]) {
        for (at, frame) in frames.iter().enumerate() {
            let mut heard = vec![0; frame.len()];
            self.stream.read_exact(&mut heard).await.unwrap();
            assert!(heard == *frame, "frame {at}: {:?}", &heard[..heard.len().min(200)]);
        }
    }
}

/// A hello of either end.
#[tokio::test]
async fn hellos_are_written_as_documented() {
    let limits = LinkLimits {
        stream_window_bytes: 0x0101,
        streams_max: 0x0202,
        message_bytes_max: 0x0303,
        assembling_bytes_max: 0x0404,
        ..LinkLimits::default()
    };
    let (local, _, _) = local(0x0a, limits, Some("secret"));
    let (near, mut far) = tokio::io::duplex(1024);
    let mut said = [0; HELLO_BYTES];
    let dialling = Link::dial(local, Box::new(near), Peer { instance: 0x0b, epoch: 0x0c });
    tokio::select! {
        biased;
        _ = dialling => unreachable!("nobody answers"),
        read = far.read_exact(&mut said) => drop(read.unwrap()),
    }
    let mut expected = b"slipring\x01\0\x01\0\x01\0\0\0".to_vec();
    for number in [0x0a_u64, 1, 0x0b, 0x0c] {
        expected.extend(number.to_le_bytes());
    }
    expected.extend(&said[48..64]);
    expected.extend(b"\x01\x01\0\0\x02\x02\0\0\x03\x03\0\0\0\0\0\0\x04\x04\0\0\0\0\0\0");
    assert_eq!(said[..], expected);
    assert_ne!(said[48..64], [0; 16], "no nonce");
}

/// The frames of an asking end.
#[tokio::test]
async fn questions_are_written_as_documented() {
    let (mut hostile, far) = Hostile::meet(LinkLimits::default()).await;
    let (sink, mut headers) = (Kept::new(), Headers::new());
    headers.append("k", "vw").unwrap();
    let deadline = Duration::from_micros(0x0102);
    let (headers, payload) = (&headers, &Bytes::from("xyz"));
    let request = Outbound { target: "a/b", deadline, headers, payload, wake_at: None };
    let inflow = far.link.open(request, sink.clone()).unwrap();
    let open = b"\x02\x01\0\0\0\0\0\0\x03\0\0\0\x03\0\x07\0\0\0a/b\x01\0k\x02\0vwxyz";
    hostile.hears(&[frame(1, 0, 2, open)]).await;
    // Half a window, and what it costs.
    hostile.send(&frame(3, 1, 2, b"\x09\0\0\0\0\0\0\0\0\0\x08\0")).await;
    for chunk in 0..8_u32 {
        hostile.send(&frame(5, 0, 2, &[&(chunk << 16).to_le_bytes()[..], &[7; 1 << 16]].concat())).await;
    }
    sink.reach(1).await;
    inflow.consumed(8 << 16, 1);
    hostile.hears(&[frame(10, 0, 2, b"\x20\0\x08\0")]).await;
    drop(inflow);
    hostile.hears(&[frame(9, 0, 2, b"")]).await;
    let long = bytes((1 << 16) + 5000, 1);
    let (headers, payload) = (&Headers::new(), &long);
    let request = Outbound { target: "a", deadline, headers, payload, wake_at: None };
    let _inflow = far.link.open(request, Kept::new()).unwrap();
    let chunks = [&b"\0\0\0\0"[..], &long[..1 << 16], b"\0\0\x01\0", &long[1 << 16..]];
    hostile
        .hears(&[
            frame(1, 1, 4, b"\x02\x01\0\0\0\0\0\0\x88\x13\x01\0\x01\0\0\0\0\0a"),
            frame(5, 0, 4, &chunks[..2].concat()),
            frame(5, 0, 4, &chunks[2..].concat()),
        ])
        .await;
}

/// The frames of an answering end.
#[tokio::test]
async fn answers_are_written_as_documented() {
    let (mut hostile, mut far) = Hostile::meet(LinkLimits::default()).await;
    for stream in [1, 3, 5, 7] {
        hostile.send(&super::peer::open(stream, b"")).await;
    }
    let mut answers = Vec::new();
    for _ in 0..4 {
        answers.push(far.request().await.answers);
    }
    answers[0].items(&["a".into()], false, 9).unwrap();
    answers[0].items(&["bc".into(), "d".into()], false, 9).unwrap();
    answers[0].end(8).unwrap();
    hostile
        .hears(&[
            frame(3, 0, 1, b"\x09\0\0\0\0\0\0\0a"),
            frame(4, 0, 1, b"\x09\0\0\0\x01\0\0\0\x02\0\0\0\x02\0\0\0\x01\0\0\0bcd"),
            frame(6, 0, 1, b"\x08\0\0\0\x03\0\0\0\0\0\0\0"),
        ])
        .await;
    let long = bytes((1 << 16) + 1, 2);
    answers[1].items(&["e".into(), "f".into()], false, 0).unwrap();
    answers[1].items(std::slice::from_ref(&long), true, 0).unwrap();
    hostile
        .hears(&[
            frame(4, 0, 3, b"\0\0\0\0\0\0\0\0\x02\0\0\0\x01\0\0\0\x01\0\0\0ef"),
            frame(3, 3, 3, b"\0\0\0\0\x02\0\0\0\x01\0\x01\0"),
            frame(5, 0, 3, &[b"\0\0\0\0", &long[..1 << 16]].concat()),
            frame(5, 0, 3, &[b"\0\0\x01\0", &long[1 << 16..]].concat()),
        ])
        .await;
    answers[2].fail(&Error::draining("it"), 3);
    let failed = br#"{"code":"draining","effect":"none","message":"","subject":"it"}"#;
    hostile.hears(&[frame(7, 0, 5, &[b"\x03\0\0\0", &failed[..]].concat())]).await;
    drop(answers.pop());
    hostile.hears(&[frame(8, 0, 7, b"")]).await;
    let _attached = far.link.attach(0x11, 0x22).unwrap();
    hostile.hears(&[frame(2, 0, 2, b"\x11\0\0\0\0\0\0\0\x22\0\0\0\0\0\0\0")]).await;
}

/// The frames about the link itself.
#[tokio::test(start_paused = true)]
async fn what_is_about_the_link_is_written_as_documented() {
    let (mut hostile, mut far) = Hostile::meet(LinkLimits::default()).await;
    hostile.send(&frame(11, 0, 0, b"12345678")).await;
    hostile.hears(&[frame(12, 0, 0, b"12345678")]).await;
    hostile.send(&super::peer::open(1, b"")).await;
    let _request = far.request().await;
    hostile.hears(&[frame(11, 0, 0, b"\x01\0\0\0\0\0\0\0")]).await;
    far.link.go_away();
    hostile.hears(&[frame(13, 0, 0, b"\x01\0\0\0\0\0\0\0")]).await;
    far.link.close(CloseReason::Requested);
    hostile.hears(&[frame(14, 0, 0, b"\0")]).await;
    let (mut hostile, _far) = Hostile::meet(LinkLimits::default()).await;
    hostile.send(&frame(99, 0, 0, b"")).await;
    hostile.hears(&[frame(14, 0, 0, b"\x01")]).await;
}
