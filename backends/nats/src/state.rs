use std::fmt;

use slipring_core::Error;

/// How a connection to NATS is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConnectionState {
    /// Nothing was asked of it yet, so nothing was dialled.
    Idle,
    /// The first attempt to connect is under way; calls wait for its end.
    Connecting,
    /// Connected.
    Connected {
        /// The server, as `host:port`.
        server: String,
        /// The server's version.
        version: String,
    },
    /// There is no connection; calls fail. Attempts go on.
    Disconnected {
        /// How often connecting failed since the connection was lost, or since the first attempt.
        attempts: u32,
        /// Why there is none: the last failure.
        error: Error,
    },
    /// Its last handle was closed or dropped.
    Closed,
}

impl fmt::Display for ConnectionState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Idle => f.write_str("not connected yet"),
            Self::Connecting => f.write_str("connecting"),
            Self::Connected { server, version } => write!(f, "connected to {server} (version {version})"),
            Self::Disconnected { attempts, error } => {
                write!(f, "disconnected after {attempts} attempts: {error}")
            }
            Self::Closed => f.write_str("closed"),
        }
    }
}
