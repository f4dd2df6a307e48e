//! The simulator of slipring: your own components under a seed, with virtual time and faults.
//!
//! [`run`] gives a scenario a [`World`]: nodes that share a broker, each with an environment, a store and a
//! bus behind a [`Link`] that can be cut or silenced. Time is virtual and passes at once when everybody waits.
//! The outcome is a [`Trace`]; the same seed gives the same trace, byte for byte, and each run checks that by
//! happening twice.
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
//! assert_eq!(slipring_sim::run(7, scenario).matching("expire").count(), 1);
//! ```
//!
//! What goes wrong can be a value: [`World::spawn_node`] runs a program in each life of a node, a [`Schedule`] of
//! [`Fault`]s strikes it, [`check`](mod@check) judges the [`History`] of the run, and
//! [`Probes`](probes::Probes) say which rare situations it met. A seed
//! [generates](Schedule::generate) a schedule, and a schedule that fails [shrinks](Schedule::shrink).
//!
//! ```
//! use std::time::Duration;
//!
//! use slipring_memory::Profile;
//! use slipring_sim::check::check;
//! use slipring_sim::{Schedule, Setup, Shape, World, simulate};
//!
//! const SECOND: Duration = Duration::from_secs(1);
//! let schedule = Schedule::generate(7, &Shape::new(["worker"], 3 * SECOND, 30 * SECOND));
//! let setup = Setup::from(Profile::etcd()).with_shuffling(true);
//! let report = simulate(7, setup, async |world: World| {
//!     world.spawn_node("worker", async |node| {
//!         let Ok(lease) = node.discovery().grant(3 * SECOND).await else { return };
//!         while node.discovery().keep_alive(lease.id).await.is_ok() {
//!             tokio::time::sleep(SECOND).await;
//!         }
//!     });
//!     world.play(schedule.clone());
//!     tokio::time::sleep(40 * SECOND).await;
//! });
//! assert_eq!(check(&report.history, &Profile::etcd()), []);
//! ```
//!
//! The [`guide`] goes through all of it with a service of one's own.
//!
//! A test that wants a single part under its own control uses the parts alone: [`SimEnvironment`] and [`Link`]
//! work on any runtime whose clock is paused.

mod cancel;
pub mod check;
#[doc = include_str!("guide.md")]
pub mod guide {}
#[cfg(feature = "command")]
pub mod command;
#[cfg(feature = "command")]
pub mod doctor;
mod environment;
mod fault;
pub mod history;
mod latency;
mod link;
mod meter;
mod network;
mod operation;
mod pace;
pub mod picture;
pub mod probes;
mod pulse;
mod random;
mod run;
mod scenario;
mod schedule;
mod setup;
mod shape;
mod trace;
#[cfg(feature = "turmoil")]
pub mod turmoil;
mod world;

pub use cancel::cancelled_after;
pub use environment::SimEnvironment;
pub use fault::{Direction, Fault};
pub use history::History;
pub use latency::Latency;
pub use link::{Link, LinkMode};
pub use meter::{Meter, Metered};
pub use operation::Operation;
pub use run::{Report, run, run_with, simulate};
pub use scenario::{Engine, Outcome, Scenario};
pub use schedule::{Schedule, Timed};
pub use setup::Setup;
pub use shape::{Choice, Shape};
pub use trace::Trace;
pub use world::{Node, World};
