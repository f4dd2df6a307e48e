//! The simulator of slipring.

mod environment;
mod link;
mod network;
mod random;
mod trace;

pub use environment::SimEnvironment;
pub use link::{Link, LinkMode};
pub use trace::Trace;
