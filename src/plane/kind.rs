use std::fmt;

/// A way for requests and items to travel. The record of an instance lists those that lead to it; a client takes
/// the first of its own list that does.
///
/// What a call promises is the same on every plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Plane {
    /// Within the process: no broker and no socket, see [`LocalPlane`](crate::LocalPlane).
    Local,
    /// Requests and items over a TCP connection to the instance; the broker is not on the path.
    Tcp,
    /// The request over the broker, the items over a TCP connection that the instance dials to the caller.
    NatsTcp,
    /// Requests and items over the broker.
    Broker,
}

impl Plane {
    /// All of them, the fastest first: what clients use unless something else is said.
    pub const ALL: [Self; 4] = [Self::Local, Self::Tcp, Self::NatsTcp, Self::Broker];

    /// Its name: `local`, or that of its entry in the `transport` of records.
    pub fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Tcp => "tcp",
            Self::NatsTcp => "nats_tcp",
            Self::Broker => "broker",
        }
    }
}

/// Its name.
impl fmt::Display for Plane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
