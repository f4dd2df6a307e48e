//! What the benches share.

mod records;
pub mod usage;

pub use self::records::{ENDPOINT, records};
