//! How requests and items travel.

pub(crate) mod caller;
mod desk;
mod handshake;
mod home;
pub(crate) mod incoming;
mod kind;
pub(crate) mod link;
pub(crate) mod link_call;
pub(crate) mod links;
pub(crate) mod local;
mod queue;
pub(crate) mod report;
pub(crate) mod server;
mod tcp;
mod tls;
pub(crate) mod traffic;
pub(crate) mod wire;
pub(crate) mod worker;

pub(crate) use self::desk::{Desk, Homes};
pub use self::kind::Plane;
pub use self::tcp::TcpPlane;
pub use self::tls::TcpTls;
