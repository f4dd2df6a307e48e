//! The sans-IO machines of slipring.

mod backoff;

/// Calls.
pub mod client {
    pub mod retry;
}
/// Leases.
pub mod lifecycle {
    pub mod keeper;
}
/// The store and what a runtime knows of it.
pub mod registry {
    pub mod mirror;
    pub mod registrar;
}
