//! Worlds on turmoil: the same programs, faults and checkers as on one runtime, over a network that loses
//! connections.
#![allow(clippy::unwrap_used, reason = "a test may")]

mod faults;
mod member;
mod scenarios;
mod seeds;
