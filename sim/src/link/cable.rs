use std::time::Duration;

use slipring_core::{BoxFuture, Commit, Result, Txn};

use super::{LinkMode, Server, Side};
use crate::history::Death;
use crate::latency::Latency;

/// A network that a link stands for: what befalls the link befalls it, and the link itself lets everything through.
/// It belongs to a node over all its lives. Windows may overlap, as those of a link.
pub(crate) trait Cable: Send + Sync {
    /// As [`Link::hold`](super::Link::hold).
    fn hold(&self, to_broker: bool, from_broker: bool, held: bool);

    /// As [`Link::refuse`](super::Link::refuse).
    fn refuse(&self, refused: bool);

    /// As [`Link::delay`](super::Link::delay).
    fn delay(&self, by: Duration, delayed: bool);

    /// As [`Link::set_latency`](super::Link::set_latency).
    fn set_latency(&self, latency: Latency);

    /// The server at the far end does this from now on. What is left of it for the link to do.
    fn set_server(&self, side: Side, server: Server) -> Server;

    /// A transaction of the present life, which bears this number in the history. Where it is executed, that is told.
    fn commit(&self, request: u64, txn: Txn) -> BoxFuture<'static, Result<Commit>>;

    /// The present life of the node ends.
    fn die(&self, death: Death);
}

/// A link is switched by hand: one window ends, another one begins.
pub(super) fn switch(cable: &dyn Cable, before: LinkMode, mode: LinkMode) {
    for (mode, begins) in [(before, false), (mode, true)] {
        match mode {
            LinkMode::Open => {}
            LinkMode::Cut => cable.refuse(begins),
            LinkMode::Silent => cable.hold(true, true, begins),
        }
    }
}
