use crate::link::{Server, Side};

/// What the two servers suffer, in windows that may overlap: the worst counts.
#[derive(Debug, Default)]
pub(super) struct Servers {
    windows: Vec<Window>,
    last: u64,
    /// Do leases have their whole time again when the store runs again?
    pub(super) revives: bool,
}

#[derive(Debug)]
struct Window {
    number: u64,
    side: Side,
    server: Server,
}

impl Servers {
    /// A window opens; its number.
    pub(super) fn open(&mut self, side: Side, server: Server) -> u64 {
        self.last += 1;
        self.windows.push(Window { number: self.last, side, server });
        self.last
    }

    pub(super) fn close(&mut self, number: u64) {
        self.windows.retain(|window| window.number != number);
    }

    pub(super) fn state(&self, side: Side) -> Server {
        let of_side = self.windows.iter().filter(|window| window.side == side);
        of_side.map(|window| window.server).max().unwrap_or_default()
    }
}
