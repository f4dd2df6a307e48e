use std::collections::BTreeMap;

use super::Plane;

/// What the planes of a runtime do now and did so far, from
/// [`DistributedRuntime::planes`](crate::DistributedRuntime::planes).
///
/// Everything that only grows is counted from the start of the runtime, but for [`endpoints`](Self::endpoints).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PlanesReport {
    /// What others dial, as the records of its endpoints say, if it listens.
    pub advertised: Option<String>,
    /// The connections that are open, the oldest first.
    pub connections: Vec<ConnectionReport>,
    /// How many were ever opened, whichever end dialled.
    pub connections_opened: u64,
    /// Of these, how many were closed, by reason: `idle` and `drained` (nothing was under way), `requested` (by this
    /// end), `peer_closed`, `cut`, `silent` (no answer to a ping), and what a peer did that breaks the protocol.
    pub closed: BTreeMap<&'static str, u64>,
    /// How often this runtime dialled.
    pub dials: u64,
    /// Of these, how many led to no connection, by the [code](slipring_core::Error::code) of the error.
    pub dials_failed: BTreeMap<&'static str, u64>,
    /// How many connections, dialled by either end, were given up before they were of use, by reason: `instance` (the
    /// address leads to another one), `epoch`, `version`, `secret`, `certificate_expired` and others of certificates,
    /// `tls_missing` and `tls_wanted` (only one end speaks it), `hello_slow`, `not_slipring` and others.
    pub refused: BTreeMap<&'static str, u64>,
    /// What all connections did, those that are closed included.
    pub totals: ConnectionTotals,
    /// The endpoints that are served by this runtime, or called by it, by name. An endpoint is forgotten with its
    /// last serving and client.
    pub endpoints: BTreeMap<String, EndpointTraffic>,
}

/// One connection to another process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectionReport {
    /// The instance id of the runtime at the other end.
    pub peer: u64,
    /// The epoch that it was in when they met.
    pub epoch: u64,
    /// Did this end dial?
    pub is_dialled: bool,
    /// Where it was dialled, or where it dialled from.
    pub address: String,
    /// Does it speak TLS?
    pub is_encrypted: bool,
    /// Streams that are open, in both directions.
    pub streams_open: usize,
    /// Bytes that wait for the wire.
    pub queued_bytes: usize,
    /// Bytes of long requests and items that arrive in chunks and are not whole yet.
    pub assembling_bytes: usize,
    /// What it did so far.
    pub totals: ConnectionTotals,
}

/// What one connection, or all of them, did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectionTotals {
    /// Streams that this end opened.
    pub streams_opened: u64,
    /// Streams that the peer opened.
    pub streams_accepted: u64,
    /// Items sent.
    pub items_sent: u64,
    /// Items received.
    pub items_received: u64,
    /// Bytes sent, frames and their heads included; within TLS, without what that adds.
    pub bytes_sent: u64,
    /// Bytes received, in the same way.
    pub bytes_received: u64,
    /// How often a stream that this end answers had no credit left: its reader is slower than its handler.
    pub credit_stalls: u64,
    /// Streams that this end, which asked, gave up.
    pub cancels_sent: u64,
    /// Streams that the peer, which asked, gave up.
    pub cancels_received: u64,
    /// Streams that this end, which answered, broke off without a word.
    pub resets_sent: u64,
    /// Streams that the peer, which answered, broke off without a word.
    pub resets_received: u64,
    /// Streams that this end ended with an error.
    pub failures_sent: u64,
    /// Streams that the peer ended with an error.
    pub failures_received: u64,
    /// Streams that were open when the connection was closed.
    pub interrupted: u64,
    /// Streams refused because too many bytes arrived in chunks at the same time.
    pub refused_overloaded: u64,
    /// Requests of the peer that came after this end had gone away.
    pub refused_draining: u64,
    /// Pings sent.
    pub pings_sent: u64,
    /// Pings received.
    pub pings_received: u64,
}

/// What one endpoint brings to the planes, at this runtime.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct EndpointTraffic {
    /// Requests that this runtime served, by the plane that their answers went.
    pub served: BTreeMap<Plane, PlaneTraffic>,
    /// Calls that this runtime made, by the plane that they were sent on.
    pub called: BTreeMap<Plane, PlaneTraffic>,
}

/// What one endpoint did on one plane.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PlaneTraffic {
    /// Requests under way; unary ones are streams of one item.
    pub streams_open: u64,
    /// Requests so far.
    pub streams: u64,
    /// Items sent by the one who serves, as they go; items taken by the one who calls, when its call is over.
    pub items: u64,
    /// Bytes of these items.
    pub bytes: u64,
    /// How often the next item had to wait because the reader had no room for it; counted where it is served.
    pub credit_stalls: u64,
    /// Streams that did not come to their announced end, by the [code](slipring_core::Error::code) of the error:
    /// `cancelled` if the caller gave up, which at the caller includes a deadline that passed.
    pub resets: BTreeMap<&'static str, u64>,
}

impl PlanesReport {
    /// Streams that are open on connections, in both directions.
    pub fn streams_open(&self) -> usize {
        self.connections.iter().map(|connection| connection.streams_open).sum()
    }
}

impl ConnectionTotals {
    pub(crate) fn add(&mut self, other: &Self) {
        // Taken apart, so that a counter that is added later is not forgotten here.
        let Self {
            streams_opened,
            streams_accepted,
            items_sent,
            items_received,
            bytes_sent,
            bytes_received,
            credit_stalls,
            cancels_sent,
            cancels_received,
            resets_sent,
            resets_received,
            failures_sent,
            failures_received,
            interrupted,
            refused_overloaded,
            refused_draining,
            pings_sent,
            pings_received,
        } = other;
        self.streams_opened += streams_opened;
        self.streams_accepted += streams_accepted;
        self.items_sent += items_sent;
        self.items_received += items_received;
        self.bytes_sent += bytes_sent;
        self.bytes_received += bytes_received;
        self.credit_stalls += credit_stalls;
        self.cancels_sent += cancels_sent;
        self.cancels_received += cancels_received;
        self.resets_sent += resets_sent;
        self.resets_received += resets_received;
        self.failures_sent += failures_sent;
        self.failures_received += failures_received;
        self.interrupted += interrupted;
        self.refused_overloaded += refused_overloaded;
        self.refused_draining += refused_draining;
        self.pings_sent += pings_sent;
        self.pings_received += pings_received;
    }
}
