//! The programs `worker` and `caller`, run as the processes that users run.
#![expect(clippy::unwrap_used, reason = "this is test code")]

mod memory;
mod program;
