//! [`Messaging`](slipring_core::Messaging) on NATS.

mod config;
mod messaging;

pub use config::Config;
pub use messaging::NatsMessaging;
