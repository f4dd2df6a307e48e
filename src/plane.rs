//! How requests and items travel.

pub(crate) mod caller;
pub(crate) mod incoming;
pub(crate) mod local;
pub(crate) mod queue;
pub(crate) mod server;
pub(crate) mod wire;
pub(crate) mod worker;
