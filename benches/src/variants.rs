//! The ways to be served, a file each.

mod bus;
mod memory;

use anyhow::Result;
use clap::ValueEnum;

use crate::args::Args;

#[derive(ValueEnum, Clone, Copy, Debug)]
pub(crate) enum Variant {
    /// The bare bus in this process: the limit of what stands on it.
    Bus,
    /// The component model on the store and the bus in this process.
    Memory,
}

impl Variant {
    /// Serves and measures.
    pub(crate) async fn run(self, args: &Args) -> Result<()> {
        match self {
            Self::Bus => bus::run(args).await,
            Self::Memory => memory::run(args).await,
        }
    }
}
