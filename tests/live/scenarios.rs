//! What has to work the same on every combination of backends.

mod calls;
mod life;
mod load;

pub(crate) use calls::{cancel, route, stream};
pub(crate) use life::{lost_lease, rolling_restart, start, stop};
