//! A deterministic in-memory backend of slipring: for tests, and for programs that live in one process.

mod bus;
mod messaging;

pub use bus::{Buffer, Bus, ConnectionId, SubscriptionId};
pub use messaging::{MemoryMessaging, SharedBus};
