//! Distributed services out of `Namespace > Component > Endpoint`.
//!
//! A worker serves an endpoint; a client finds its instances and calls them. Behind that stand two small
//! traits, [`Discovery`] and [`Messaging`]: in a test, or in one process, the in-memory backend implements
//! them ([`DistributedRuntime::memory`]); in production a broker does.
//!
//! ```
//! use futures_util::{StreamExt, stream};
//! use slipring::{Context, DistributedRuntime};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> slipring::Result<()> {
//! let runtime = DistributedRuntime::memory().await?;
//! let endpoint = runtime.namespace("production")?.component("worker")?.endpoint("generate")?;
//!
//! let serving = endpoint
//!     .serve(|prompt: String, _: Context| async move {
//!         let tokens: Vec<_> = prompt.split(' ').map(|token| Ok(token.to_owned())).collect();
//!         Ok(stream::iter(tokens))
//!     })
//!     .await?;
//!
//! let client = endpoint.client::<String, String>().await?;
//! let mut tokens = client.generate(&"to be or not to be".to_owned()).await?;
//! while let Some(token) = tokens.next().await {
//!     println!("{}", token?);
//! }
//! println!("{}", serving.stop().await);
//! # Ok(())
//! # }
//! ```
//!
//! # Where to look
//! - Serving: [`Endpoint::serve`], [`Serve`] for its options, [`Serving`] for its life.
//! - Calling: [`Endpoint::client`], [`Client`], [`Request`] for deadlines, retries and metadata, [`Routing`].
//! - How requests and items travel: [`Plane`], [`TcpPlane`], [`TcpTls`]; what they do: [`DistributedRuntime::planes`].
//! - Events: [`Component::events`]. Errors: [`Error`]. Stopping: [`DistributedRuntime::stop`].
//! - Another broker: implement the traits of `slipring-core` and prove it with `slipring-conformance`.

mod alarm;
mod backoff;
pub mod client;
pub mod codec;
mod component;
mod config;
mod endpoint;
mod event;
pub mod lifecycle;
pub mod name;
mod observed;
mod plane;
mod platform;
pub mod record;
pub mod registry;
mod runtime;
mod settings;
#[cfg(all(feature = "signals", unix))]
mod signals;

pub use slipring_core::{
    Address, Discovery, Effect, Environment, Error, Messaging, Result, Retry, SystemEnvironment,
};
#[cfg(feature = "memory")]
pub use slipring_memory::MemoryWorld;

pub use self::client::{Client, Request, Responses, Routing};
pub use self::codec::Codec;
pub use self::component::{Component, Endpoint, Namespace};
pub use self::config::Config;
pub use self::endpoint::{Context, Fault, HealthCheck, Serve, Serving, TraceContext};
pub use self::event::{Event, EventStream, Events};
pub use self::lifecycle::{LeaseState, Lifecycle, Outcome, PhaseReport, StopReport};
pub use self::observed::Observer;
pub use self::plane::local::LocalPlane;
pub use self::plane::report::{
    ConnectionReport, ConnectionTotals, EndpointTraffic, PlaneTraffic, PlanesReport,
};
pub use self::plane::{Plane, TcpPlane, TcpTls};
pub use self::registry::{Instance, InstanceChange, Instances, Registry, WatchState};
pub use self::runtime::{DistributedRuntime, RuntimeBuilder};
pub use self::settings::{LeasePolicy, Settings};

/// What the fuzzer runs inside of the crate. Not for anybody else.
#[cfg(feature = "_fuzz")]
#[doc(hidden)]
pub mod fuzz {
    pub use crate::plane::link::fuzz::{connection as link_connection, frames as link_frames};
}

// The program in the README is compiled and run with the other examples of the documentation.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
