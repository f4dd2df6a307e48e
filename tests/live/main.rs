//! The component model on real servers, and on memory beside them: the same scenarios on every combination of
//! backends, faults under load, and what users of other systems reported.
//!
//! What the faults did, and the commands, stand in the README beside this file.
#![allow(clippy::unwrap_used, reason = "a test may, and so may what it is set up with")]

mod backends;
mod chaos;
mod combinations;
mod peers;
mod rolling;
mod scenarios;
mod worker;
