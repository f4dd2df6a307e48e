//! The simulator of slipring.

mod link;

pub use link::{Link, LinkMode};
