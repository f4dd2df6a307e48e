//! What the benches share.

mod backends;
mod records;
pub mod server;
pub mod usage;

pub use self::backends::{discovery, host, messaging};
pub use self::records::{ENDPOINT, records};
