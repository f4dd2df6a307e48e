//! Distributed services out of `Namespace > Component > Endpoint`.

pub mod codec;
pub mod name;
pub mod record;
