//! A peer that shakes hands as it should and then writes what it likes, and the frames it may write.

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::super::frame::{HEAD_BYTES, Head, Kind, Preamble};
use super::super::hello;
use super::*;

/// An end of a link that writes what it likes. It has dialled, so its streams are the odd ones.
pub(super) struct Hostile {
    pub(super) stream: Box<dyn ByteStream>,
}

impl Hostile {
    pub(super) async fn meet(limits: LinkLimits) -> (Self, End) {
        let (near, far) = tokio::io::duplex(256 * 1024);
        Self::meet_over(near, far, limits).await
    }

    pub(super) async fn meet_over(near: DuplexStream, far: DuplexStream, limits: LinkLimits) -> (Self, End) {
        let (hostile, _, _) = local(1, LinkLimits::default(), None);
        let (local, desk, requests) = local(2, limits, None);
        let mut near: Box<dyn ByteStream> = Box::new(near);
        let (met, link) = tokio::join!(
            hello::dial(&hostile, &mut near, DIALLED),
            Link::accept(local.clone(), Box::new(far))
        );
        met.unwrap();
        (Self { stream: near }, End { link: link.unwrap(), requests, desk, local })
    }

    pub(super) async fn send(&mut self, frames: &[u8]) {
        // It may be cut off half-way.
        let _ = self.stream.write_all(frames).await;
    }

    /// The next frame from the other end, head and body.
    pub(super) async fn frame(&mut self) -> (Head, Vec<u8>) {
        let mut head = [0; HEAD_BYTES];
        self.stream.read_exact(&mut head).await.unwrap();
        let head = Head::read(&head).unwrap().unwrap();
        let mut body = vec![0; head.length];
        self.stream.read_exact(&mut body).await.unwrap();
        (head, body)
    }
}

pub(super) fn frame(kind: u8, flags: u8, stream: u64, body: &[u8]) -> Vec<u8> {
    let mut frame = (body.len() as u32).to_le_bytes().to_vec();
    frame.extend([kind, flags, 0, 0]);
    frame.extend(stream.to_le_bytes());
    frame.extend(body);
    frame
}

pub(super) fn of(kind: Kind, flags: u8, stream: u64, parts: &[&[u8]]) -> Vec<u8> {
    frame(kind as u8, flags, stream, &parts.concat())
}

pub(super) fn open(stream: u64, payload: &[u8]) -> Vec<u8> {
    open_announcing(stream, 0, payload.len(), payload)
}

pub(super) fn open_announcing(stream: u64, flags: u8, announced: usize, payload: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    Preamble::write(&mut body, Duration::from_secs(1), announced, "a/b/c", &Headers::new());
    body.extend(payload);
    of(Kind::Open, flags, stream, &[&body])
}

/// An item of stream 2, with its number.
pub(super) fn item(number: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
    of(Kind::Item, flags, 2, &[&[0; 4], &number.to_le_bytes(), payload])
}

pub(super) fn data(stream: u64, offset: u32, chunk: &[u8]) -> Vec<u8> {
    of(Kind::Data, 0, stream, &[&offset.to_le_bytes(), chunk])
}

/// Limits that are soon reached.
pub(super) fn small() -> LinkLimits {
    LinkLimits {
        message_bytes_max: 1 << 20,
        assembling_bytes_max: 1 << 20,
        streams_max: 2,
        stream_window_bytes: 100,
        ..LinkLimits::default()
    }
}
