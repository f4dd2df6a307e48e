//! How requests and items travel. Today there is one plane, over the broker.

pub(crate) mod caller;
pub(crate) mod server;
pub(crate) mod wire;
