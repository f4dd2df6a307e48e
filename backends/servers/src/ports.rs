use std::net::{TcpListener, UdpSocket};
use std::sync::atomic::{AtomicU16, Ordering};

/// Below the range from which systems pick ports of outgoing connections, so that nobody takes one by chance.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// Where the next search in this process begins. Searches of other processes begin elsewhere.
static NEXT: AtomicU16 = AtomicU16::new(0);

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
        // Processes of one test run have neighbouring ids; a prime step spreads them over the range.
        let offset = (u64::from(std::process::id()) * 7_919 % u64::from(span)) as u16;
        let candidates = (0..span).map(|_| {
            let index = NEXT.fetch_add(1, Ordering::Relaxed) % span;
            PORTS.start + (offset + index) % span
        });
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
