//! What a server says of itself.

use serde_json::json;

use crate::Options;
use crate::options::{Access, Version};

/// A server at an address.
#[derive(Debug, Clone)]
pub(crate) struct Info {
    /// Its name: 56 letters and digits, the first an `N`.
    id: String,
    host: String,
    port: u16,
}

impl Info {
    /// `random` yields the name; `address` is where it listens, as `host:port`.
    pub(crate) fn new(random: impl FnMut() -> u64, address: &str) -> Self {
        let (host, port) = address.rsplit_once(':').unwrap_or((address, ""));
        Self { id: key('N', random), host: host.to_owned(), port: port.parse().unwrap_or_default() }
    }

    /// The line for a client, the `number`th of this server, that comes from here. A client that
    /// [connected](crate::session) learns where it belongs.
    pub(crate) fn line(&self, options: &Options, number: u64, from: &str, is_connected: bool) -> String {
        let newer = options.version == Version::V2_15;
        let mut fields = vec![
            ("server_id", json!(self.id)),
            ("server_name", json!(self.id)),
            ("version", json!(options.version.as_str())),
            ("proto", json!(1)),
        ];
        if newer {
            fields.push(("git_commit", json!("b2fd3ef")));
        }
        let go = if newer { "go1.27.2" } else { "go1.19.8" };
        fields.extend([
            ("go", json!(go)),
            ("host", json!(self.host)),
            ("port", json!(self.port)),
            ("headers", json!(true)),
        ]);
        if options.access != Access::Open {
            fields.push(("auth_required", json!(true)));
        }
        let client_ip = from.rsplit_once(':').map_or(from, |(host, _)| host);
        fields.extend([
            ("max_payload", json!(options.payload_bytes_max)),
            ("client_id", json!(number)),
            ("client_ip", json!(client_ip)),
        ]);
        if is_connected {
            fields.extend([("connect_info", json!(true)), ("remote_account", json!("$G"))]);
        }
        if newer {
            fields.extend([("api_lvl", json!(5)), ("xkey", json!(self.id.replacen('N', "X", 1)))]);
        }
        // In this order, which clients that do without a parser rely on.
        let fields: Vec<_> = fields.into_iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
        format!("INFO {{{}}} \r\n", fields.join(","))
    }
}

/// A public key as NATS writes it, as far as its looks go.
fn key(kind: char, mut random: impl FnMut() -> u64) -> String {
    const LETTERS: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    const LENGTH: usize = 56;
    let letters = (1..LENGTH).map(|_| char::from(LETTERS[(random() >> 59) as usize]));
    std::iter::once(kind).chain(letters).collect()
}
