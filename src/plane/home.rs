//! Call-home: the request over the broker, the answers over a connection that the worker dials.

use std::sync::Arc;

use slipring_core::{Error, Headers, Result};

use super::link::Peer;
use super::wire;
use crate::platform::Platform;

/// Where a caller wants to be answered. Written `INSTANCE EPOCH TOKEN ADDRESS`, numbers in hex.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Home {
    /// Who listens there.
    pub(crate) peer: Peer,
    /// What shows that a connection belongs to the call.
    pub(crate) token: u64,
    /// Where to dial.
    pub(crate) address: String,
}

impl Home {
    /// Asks the worker to dial this address; the token that it will show.
    ///
    /// # Errors
    /// `Invalid` for an address that cannot travel in a header.
    pub(crate) fn invite(platform: &Arc<Platform>, address: &str, headers: &mut Headers) -> Result<u64> {
        let token = platform.environment.random("call-home token");
        let (instance, epoch) = (platform.instance, platform.epoch());
        headers.append(wire::HOME, format!("{instance:x} {epoch:x} {token:x} {address}"))?;
        Ok(token)
    }

    /// Where the caller of a request wants to be answered, if it says so.
    ///
    /// # Errors
    /// `Invalid` for something else.
    pub(crate) fn of(headers: &Headers) -> Result<Option<Self>> {
        let Some(text) = headers.first(wire::HOME) else { return Ok(None) };
        let wrong = || Error::invalid(wire::HOME, text, "allowed: INSTANCE EPOCH TOKEN ADDRESS");
        let mut words = text.splitn(4, ' ');
        let mut number = || {
            let word = words.next().ok_or_else(wrong)?;
            u64::from_str_radix(word, 16).map_err(|_| wrong())
        };
        let (instance, epoch, token) = (number()?, number()?, number()?);
        let address = words.next().filter(|address| !address.is_empty()).ok_or_else(wrong)?.to_owned();
        Ok(Some(Self { peer: Peer { instance, epoch }, token, address }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a caller asks for is read as it was written, and nothing else is taken for it.
    #[test]
    fn homes_are_read_as_written() {
        let read = |text: &str| {
            let mut headers = Headers::new();
            headers.append(wire::HOME, text).unwrap();
            Home::of(&headers)
        };
        assert_eq!(Home::of(&Headers::new()).unwrap(), None);
        let home =
            Home { peer: Peer { instance: 0x1a, epoch: 2 }, token: u64::MAX, address: "a:1".to_owned() };
        assert_eq!(read("1a 2 ffffffffffffffff a:1").unwrap(), Some(home));
        for text in ["", "1a", "1a 2 3", "x 2 3 a:1", "1a 2 -3 a:1", "1a 2 10000000000000000 a:1"] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
