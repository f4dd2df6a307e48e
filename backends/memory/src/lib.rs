//! A store and a bus in the memory of one process: the backend of tests, and of programs that need no
//! broker.
//!
//! Everything is deterministic: ordered collections, time from the caller, entropy from one seed. A
//! [`MemoryWorld`] is what a broker is to a deployment: its handles share one store and one bus, and two
//! worlds never meet. A [`Profile`] decides what the world can do and how exactly it keeps time.
//!
//! The [`store`] itself is a state machine without I/O, for model checks and simulators.

mod bus;
mod discovery;
mod messaging;
mod profile;
pub mod store;
mod world;

pub use bus::{Buffer, Bus, ConnectionId, SubscriptionId};
pub use discovery::MemoryDiscovery;
pub use messaging::{MemoryMessaging, SharedBus};
pub use profile::{OnRestore, Profile};
pub use world::MemoryWorld;
