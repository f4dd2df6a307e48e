//! The simulator of slipring: your own components under a seed, with virtual time and faults.
//!
//! [`run`] gives a scenario a [`World`]: nodes that share a broker, each with an environment, a store and a
//! bus behind a [`Link`] that can be cut or silenced. Time is virtual and passes at once when everybody waits.
//! The outcome is a [`Trace`]; the same seed gives the same trace, byte for byte.
//!
//! ```
//! use std::time::Duration;
//!
//! use slipring_core::{DiscoveryExt, Key};
//!
//! let scenario = async |world: slipring_sim::World| {
//!     let (worker, observer) = (world.node("worker"), world.node("observer"));
//!     let lease = worker.discovery().grant(Duration::from_secs(3)).await.unwrap();
//!     let key = Key::new("service/worker").unwrap();
//!     worker.discovery().put(key.clone(), "here".into(), Some(lease.id)).await.unwrap();
//!
//!     worker.link().silence();
//!     tokio::time::sleep(lease.ttl).await;
//!     assert_eq!(observer.discovery().entry(&key).await.unwrap(), None);
//! };
//! assert_eq!(slipring_sim::run(7, scenario), slipring_sim::run(7, scenario));
//! ```
//!
//! A test that wants a single part under its own control uses the parts alone: [`SimEnvironment`] and [`Link`]
//! work on any runtime whose clock is paused.

pub mod check;
mod environment;
mod fault;
pub mod history;
mod latency;
mod link;
mod network;
mod pace;
mod random;
mod run;
mod schedule;
mod setup;
mod shape;
mod trace;
mod world;

pub use environment::SimEnvironment;
pub use fault::{Direction, Fault};
pub use history::History;
pub use latency::Latency;
pub use link::{Link, LinkMode};
pub use run::{Report, run, run_with, simulate};
pub use schedule::{Schedule, Timed};
pub use setup::Setup;
pub use shape::Shape;
pub use trace::Trace;
pub use world::{Node, World};
