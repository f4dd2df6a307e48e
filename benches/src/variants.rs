//! The ways to be served, a file each.

mod bus;
mod memory;
mod model;
mod planes;
mod raw;

use anyhow::Result;
use clap::ValueEnum;
use slipring::Plane;

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
    /// The component model: requests and items over TCP, discovery on etcd.
    #[value(name = "tcp/etcd")]
    Tcp,
    /// The component model: requests over NATS, items over TCP, discovery on etcd.
    #[value(name = "nats_tcp/etcd")]
    NatsTcp,
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
            Self::Broker => planes::run(args, Plane::Broker).await,
            Self::Tcp => planes::run(args, Plane::Tcp).await,
            Self::NatsTcp => planes::run(args, Plane::NatsTcp).await,
            Self::Raw => raw::run(args).await,
        }
    }
}
