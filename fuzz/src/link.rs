//! The link between two processes, whose peer says anything.

use std::sync::Arc;

use slipring::SystemEnvironment;
use tokio::runtime::Builder;

/// The decoder: frames in a row, and a hello.
pub fn link_frames(data: &[u8]) {
    slipring::fuzz::link_frames(data);
}

/// A whole connection, at either end, from before the handshake on or behind it.
pub fn link_connection(data: &[u8]) {
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.expect("a runtime of one thread can be had");
    runtime.block_on(slipring::fuzz::link_connection(Arc::new(SystemEnvironment), data));
}
