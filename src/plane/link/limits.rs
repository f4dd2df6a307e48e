use std::time::Duration;

/// What one link may hold, and how long its peer may take. Both ends have limits of their own; what concerns the
/// other end travels in the hello, so that an honest peer keeps to it by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LinkLimits {
    /// The payload of a request, or an item, may have so many bytes. 64 MiB.
    pub(crate) message_bytes_max: usize,
    /// So many streams that the peer opened may be open at once. 65,536.
    pub(crate) streams_max: usize,
    /// Messages that arrive in chunks may take so many bytes in all until they are whole. 128 MiB.
    pub(crate) assembling_bytes_max: usize,
    /// So many bytes of items may be under way or unread on one stream, 32 for each item included, and one item
    /// more. 1 MiB.
    pub(crate) stream_window_bytes: usize,
    /// Whoever answers waits while so many bytes are queued for the wire. 4 MiB.
    pub(crate) outbound_bytes_max: usize,
    /// Requests that wait for the wire may take so many bytes in all; beyond that no more are sent. 1 GiB.
    pub(crate) requests_bytes_max: usize,
    /// Whoever answers also waits while so many bytes of answers that travel in chunks are queued. 128 MiB.
    pub(crate) long_answers_bytes_max: usize,
    /// Answers may take so many bytes in all while they wait for the wire, and one message more, whether those who
    /// answer wait or not. A peer that lets more pile up does not read, and is cut off. 1 GiB.
    pub(crate) answers_bytes_max: usize,
    /// Requests of which no payload came yet may take so many bytes; beyond that they are refused. 64 MiB.
    pub(crate) openings_bytes_max: usize,
    /// Pongs, resets and window updates may wait in so many bytes. A peer that lets more pile up does not
    /// read, and is cut off. 1 MiB.
    pub(crate) control_bytes_max: usize,
    /// The whole handshake. 3 s.
    pub(crate) handshake_timeout: Duration,
    /// While streams are open, a peer that was not heard for so long is pinged. 2 s.
    pub(crate) ping_after: Duration,
    /// A peer that was pinged has to be heard within this. 2 s.
    pub(crate) pong_within: Duration,
    /// A frame that began to arrive has to be whole within this. 10 s.
    pub(crate) frame_within: Duration,
    /// The dialler closes a link without streams after this. 60 s.
    pub(crate) idle_timeout: Duration,
}

impl LinkLimits {
    /// No link may be allowed longer messages than this: 1 GiB.
    pub(crate) const MESSAGE_BYTES_MOST: usize = 1 << 30;
}

impl Default for LinkLimits {
    fn default() -> Self {
        Self {
            message_bytes_max: 64 << 20,
            streams_max: 65_536,
            assembling_bytes_max: 128 << 20,
            stream_window_bytes: 1 << 20,
            outbound_bytes_max: 4 << 20,
            requests_bytes_max: 1 << 30,
            long_answers_bytes_max: 128 << 20,
            answers_bytes_max: 1 << 30,
            openings_bytes_max: 64 << 20,
            control_bytes_max: 1 << 20,
            handshake_timeout: Duration::from_secs(3),
            ping_after: Duration::from_secs(2),
            pong_within: Duration::from_secs(2),
            frame_within: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(60),
        }
    }
}
