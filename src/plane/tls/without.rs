use std::io;
use std::sync::Arc;

use slipring_core::{ByteStream, Environment, Error, Result};

use super::TcpTls;

/// Cannot be made.
#[derive(Debug)]
pub(crate) enum Tls {}

/// Cannot happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TlsFault {}

/// None is.
pub(crate) fn fault_of(_: &io::Error) -> Option<TlsFault> {
    None
}

impl Tls {
    pub(crate) fn new(_: &TcpTls, _: bool, _: &Arc<dyn Environment>) -> Result<Self> {
        Err(Error::unsupported("TLS on the TCP plane", "compile slipring with the feature `tls`"))
    }

    pub(crate) async fn connect(
        &self,
        _: &str,
        _: Box<dyn ByteStream>,
    ) -> std::result::Result<Box<dyn ByteStream>, TlsFault> {
        match *self {}
    }

    pub(crate) async fn accept(
        &self,
        _: Box<dyn ByteStream>,
    ) -> std::result::Result<Box<dyn ByteStream>, TlsFault> {
        match *self {}
    }
}

impl TlsFault {
    pub(crate) fn code(self) -> &'static str {
        match self {}
    }

    pub(crate) fn error(self, _: String) -> Error {
        match self {}
    }
}
