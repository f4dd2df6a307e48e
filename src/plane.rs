//! How requests and items travel. Today there is one plane, over the broker.

pub(crate) mod caller;
// The planes over TCP are built on it next.
#[allow(dead_code, unused_imports)]
pub(crate) mod link;
pub(crate) mod server;
pub(crate) mod wire;
