use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};

/// Below the range from which systems pick ports of outgoing connections, so that nobody takes one by chance.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// Where the next search in this process begins. Searches of other processes begin elsewhere.
static NEXT: AtomicU16 = AtomicU16::new(0);

/// Ports on the loopback address that nobody listens on now. Somebody may be faster: who starts a server tries
/// again with others.
pub fn free_ports<const N: usize>() -> [u16; N] {
    let span = PORTS.end - PORTS.start;
    // Processes of one test run have neighbouring ids; a prime step spreads them over the range.
    let offset = (u64::from(std::process::id()) * 7_919 % u64::from(span)) as u16;
    let mut held = Vec::with_capacity(N);
    for _ in 0..span {
        let index = NEXT.fetch_add(1, Ordering::Relaxed) % span;
        let port = PORTS.start + (offset + index) % span;
        if let Ok(listener) = TcpListener::bind(("127.0.0.1", port)) {
            held.push((port, listener));
        }
        if held.len() == N {
            return std::array::from_fn(|index| held[index].0);
        }
    }
    panic!("no {N} free ports in {PORTS:?}");
}
