//! The contracts of slipring.
//!
//! Two traits stand behind the component model: [`Discovery`] (keys, leases, watches) and [`Messaging`]
//! (subjects, publish, subscribe). A third, [`Environment`], is the one seam that a simulation replaces.
//! This crate names no broker.
//!
//! # Who reads what
//! - *I write a backend*: implement [`Discovery`] or [`Messaging`]; the documentation of each method is its
//!   contract, and the crate `slipring-conformance` checks it.
//! - *I call a backend*: the primitives are on the traits, everything handy is on [`DiscoveryExt`] and
//!   [`MessagingExt`].
//! - *I handle errors*: there is one [`Error`]; [`Error::effect`] says whether the request may have been
//!   executed, [`Error::retry`] what to do next, [`Error::code`] is stable text for metrics.

mod address;
mod discovery;
mod environment;
mod error;
mod key;
mod lease;
mod message;
mod messaging;
#[doc(hidden)]
pub mod mutation;
mod parse;
pub mod service;
mod subject;
#[cfg(feature = "system")]
mod system;
mod txn;
mod watch;

pub use address::{Address, Host, Options, Secret, parse_duration};
pub use async_trait::async_trait;
pub use bytes::Bytes;
pub use discovery::{Discovery, DiscoveryCapabilities, DiscoveryExt, ReadConsistency, WatchFidelity};
pub use environment::{ByteStream, Environment, EnvironmentExt, Fact, Listener, Task, TaskEnd, Told};
pub use error::{Effect, Error, Result, Retry};
pub use futures_util::future::BoxFuture;
pub use futures_util::stream::BoxStream;
pub use key::{Key, Prefix, Range};
pub use lease::{Lease, LeaseId};
pub use message::{Headers, Message};
pub use messaging::{Messaging, MessagingCapabilities, MessagingExt, Subscriber, Subscription};
pub use subject::{Pattern, QueueGroup, Subject};
#[cfg(feature = "system")]
pub use system::SystemEnvironment;
pub use txn::{Commit, Guard, Op, Txn};
pub use watch::{Base, Batch, Change, Entry, Revision, Snapshot, Start, Watch};

// What a backend's own code must be able to say about bad input.
pub use parse::reject_at;
