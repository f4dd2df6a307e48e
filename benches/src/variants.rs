//! The ways to be served, a file each.

mod broker;
mod bus;
mod memory;
mod model;
mod raw;

use anyhow::Result;
use clap::ValueEnum;

use crate::args::Args;

#[derive(ValueEnum, Clone, Copy, Debug)]
pub(crate) enum Variant {
    /// The bare bus in this process: the limit of what stands on it.
    Bus,
    /// The component model on the store and the bus in this process.
    Memory,
    /// The component model: requests and items over NATS, discovery on etcd.
    #[value(name = "broker/etcd")]
    Broker,
    /// NATS's own client, without slipring: requests, and an inbox for each stream.
    #[value(name = "raw/nats")]
    Raw,
}

impl Variant {
    /// Serves and measures.
    pub(crate) async fn run(self, args: &Args) -> Result<()> {
        match self {
            Self::Bus => bus::run(args).await,
            Self::Memory => memory::run(args).await,
            Self::Broker => broker::run(args).await,
            Self::Raw => raw::run(args).await,
        }
    }
}
