//! The simulated NATS server: the real adapter and the real client on it, what it answers beside what real ones
//! answer, and whatever else comes over a connection.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]
#![expect(clippy::print_stdout, reason = "what was measured is shown")]

mod client;
mod conformance;
mod deaf;
mod exchange;
mod exchanges;
mod garbage;
mod honesty;
mod loopback;
mod pipe;
mod times;
