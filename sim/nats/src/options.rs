use std::fmt;
use std::time::Duration;

/// Which nats-server it is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// nats-server 2.9.10.
    V2_9,
    /// nats-server 2.15.1.
    V2_15,
}

impl Version {
    /// Both.
    pub const ALL: [Self; 2] = [Self::V2_9, Self::V2_15];

    /// What it says it is.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V2_9 => "2.9.10",
            Self::V2_15 => "2.15.1",
        }
    }
}

/// Who may connect.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Access {
    /// Everybody.
    Open,
    /// Whoever knows the user and the password.
    Password {
        /// The user.
        user: String,
        /// The password.
        password: String,
    },
    /// Whoever knows the token.
    Token(String),
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open => "Open",
            Self::Password { .. } => "Password { .. }",
            Self::Token(_) => "Token(..)",
        })
    }
}

/// How a server behaves. The default is that of a nats-server as it is installed.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Options {
    /// Which server it is like.
    pub version: Version,
    /// Who may connect.
    pub access: Access,
    /// The largest message, headers included.
    pub payload_bytes_max: usize,
    /// The longest line, without its first word.
    pub line_bytes_max: usize,
    /// How many connections there may be.
    pub connections_max: usize,
    /// How much may wait for a client that does not read, before its connection is closed.
    pub pending_bytes_max: usize,
    /// How long a client may take to read what is written to it, before its connection is closed.
    pub write_timeout: Duration,
    /// After how much silence a client is asked whether it is there.
    pub ping_interval: Duration,
    /// How many such questions may be without an answer.
    pub pings_max: u32,
    /// How long a client may take to say who it is, where that matters.
    pub access_timeout: Duration,
}

impl Options {
    /// A server of this version, as it is installed.
    pub fn new(version: Version) -> Self {
        Self {
            version,
            access: Access::Open,
            payload_bytes_max: 1024 * 1024,
            line_bytes_max: 4096,
            connections_max: 65_536,
            pending_bytes_max: 64 * 1024 * 1024,
            write_timeout: Duration::from_secs(10),
            ping_interval: Duration::from_secs(120),
            pings_max: 2,
            access_timeout: Duration::from_secs(2),
        }
    }

    /// With these who may connect.
    #[must_use]
    pub fn with_access(mut self, access: Access) -> Self {
        self.access = access;
        self
    }

    /// With messages up to this size, in bytes.
    #[must_use]
    pub fn with_payload_bytes_max(mut self, bytes: usize) -> Self {
        self.payload_bytes_max = bytes;
        self
    }

    /// With lines up to this length, in bytes.
    #[must_use]
    pub fn with_line_bytes_max(mut self, bytes: usize) -> Self {
        self.line_bytes_max = bytes;
        self
    }

    /// With so many connections.
    #[must_use]
    pub fn with_connections_max(mut self, connections: usize) -> Self {
        self.connections_max = connections;
        self
    }

    /// With this much that may wait for a client, in bytes.
    #[must_use]
    pub fn with_pending_bytes_max(mut self, bytes: usize) -> Self {
        self.pending_bytes_max = bytes;
        self
    }

    /// With this much time for a client to read.
    #[must_use]
    pub fn with_write_timeout(mut self, timeout: Duration) -> Self {
        self.write_timeout = timeout;
        self
    }

    /// With a question after this much silence, and so many that may be without an answer.
    #[must_use]
    pub fn with_pings(mut self, interval: Duration, pings_max: u32) -> Self {
        (self.ping_interval, self.pings_max) = (interval, pings_max);
        self
    }

    /// With this much time for a client to say who it is.
    #[must_use]
    pub fn with_access_timeout(mut self, timeout: Duration) -> Self {
        self.access_timeout = timeout;
        self
    }
}
