//! Distributed services out of `Namespace > Component > Endpoint`.

pub mod name;
