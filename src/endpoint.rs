//! Serving: handlers, what they know of a request, and the life of a served endpoint.

mod context;
mod fault;
mod handler;
mod health;
mod serve;
mod serving;

pub use self::context::{Context, TraceContext};
pub use self::fault::Fault;
pub use self::health::HealthCheck;
pub use self::serve::Serve;
pub use self::serving::Serving;

pub(crate) use self::context::Metadata;
pub(crate) use self::handler::{Handler, Output, Raw, Streaming, Unary, panicked};
pub(crate) use self::serving::ServingParts;
