use std::hash::{BuildHasher, RandomState};
use std::net::{TcpListener, UdpSocket};

/// Below the range from which systems pick ports of outgoing connections, so that nobody takes one by chance.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// A TCP port on the loopback address that nobody listened on when it was claimed, and that is not handed out
/// again, here or in another process, while this value lives: a server that is stopped for a while finds its
/// port free when it comes back.
#[derive(Debug)]
pub struct Port {
    number: u16,
    /// The UDP port of the same number. Nobody needs it, only one process has it, and the system takes it
    /// back however that process ends.
    _claim: UdpSocket,
}

impl Port {
    /// Claims so many ports.
    ///
    /// # Panics
    /// If all are taken.
    pub fn claim<const N: usize>() -> [Self; N] {
        let span = PORTS.end - PORTS.start;
        // Somewhere else each time, so that a port which was free a moment ago is not handed out again at once.
        let offset = (RandomState::new().hash_one(()) % u64::from(span)) as u16;
        let candidates = (0..span).map(|index| PORTS.start + (offset + index) % span);
        let claimed: Vec<_> = candidates.filter_map(Self::try_claim).take(N).collect();
        claimed.try_into().unwrap_or_else(|_| panic!("no {N} free ports in {PORTS:?}"))
    }

    fn try_claim(number: u16) -> Option<Self> {
        let claim = UdpSocket::bind(("127.0.0.1", number)).ok()?;
        TcpListener::bind(("127.0.0.1", number)).ok()?;
        Some(Self { number, _claim: claim })
    }

    /// Its number.
    pub fn number(&self) -> u16 {
        self.number
    }

    /// The address of who listens on it, as `127.0.0.1:port`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.number)
    }
}

/// Ports on the loopback address that nobody listens on now, for programs that a test starts itself. Nothing
/// keeps them free: who loses one to somebody faster tries again with others.
pub fn free_ports<const N: usize>() -> [u16; N] {
    Port::claim().map(|port| port.number())
}
