//! [`Messaging`](slipring_core::Messaging) on NATS.
//!
//! # What does it promise that a NATS client does not?
//! - While there is no connection, a call fails with `Unavailable`, effect none: nothing is kept to be sent later.
//! - A subscription that stands is routed to: a round trip has proved it. One that the server does not permit is
//!   an error.
//! - What a subscription loses it tells, with the exact number, or with 0 if it cannot be known (a lost
//!   connection).
//! - A request that is never answered leaves nothing behind.
//! - Flushing and closing wait for the server.
//!
//! # What is not under the environment's control?
//! The tasks and sockets inside `async-nats`. Deterministic runs replace the whole [`NatsMessaging`].
//!
//! # What must the server permit?
//! Publishing and subscribing below [`Config::inbox_prefix`], besides the subjects of the program itself. Round
//! trips go through an inbox, because the client library cannot wait for a `PONG`.

mod backoff;
mod config;
mod connection;
mod courtesy;
mod error;
mod inbox;
mod link;
mod messaging;
mod route;
mod state;
mod tap;
mod tls;
mod wire;

pub use config::{Config, Credentials, Tls};
pub use messaging::NatsMessaging;
pub use state::ConnectionState;
