//! What a client says of itself.

use serde_json::{Map, Value};

use crate::options::Access;

/// The wishes of a client. Those that it does not utter stay as they are, and before it says anything they are
/// those of somebody who types.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Connect {
    /// Acknowledge every line.
    pub(crate) verbose: bool,
    /// Complain of subjects that nobody can get.
    pub(crate) pedantic: bool,
    /// Deliver its own messages to it.
    pub(crate) echo: bool,
    /// It understands headers.
    pub(crate) headers: bool,
    /// Tell it where nobody is subscribed.
    pub(crate) no_responders: bool,
    /// How new its protocol is.
    pub(crate) protocol: i64,
    account: String,
    new_account: bool,
    user: String,
    password: String,
    token: String,
}

impl Default for Connect {
    fn default() -> Self {
        Self {
            verbose: true,
            pedantic: true,
            echo: true,
            headers: false,
            no_responders: false,
            protocol: 0,
            account: String::new(),
            new_account: false,
            user: String::new(),
            password: String::new(),
            token: String::new(),
        }
    }
}

impl Connect {
    /// Takes over what stands in the arguments of `CONNECT`. Names are read in whichever case, as nats-server does;
    /// names that are unknown do not matter.
    ///
    /// Returns none if that is no object, or a value has the wrong type.
    pub(crate) fn update(&mut self, arguments: &[u8]) -> Option<()> {
        let text = String::from_utf8_lossy(arguments);
        let fields = match serde_json::from_str(&text).ok()? {
            Value::Object(fields) => fields,
            Value::Null => Map::new(),
            _ => return None,
        };
        for (name, value) in fields {
            if value.is_null() {
                continue;
            }
            let mut ignored = (false, String::new());
            match name.to_ascii_lowercase().as_str() {
                "verbose" => flag(&mut self.verbose, &value)?,
                "pedantic" => flag(&mut self.pedantic, &value)?,
                "echo" => flag(&mut self.echo, &value)?,
                "headers" => flag(&mut self.headers, &value)?,
                "no_responders" => flag(&mut self.no_responders, &value)?,
                "new_account" => flag(&mut self.new_account, &value)?,
                "tls_required" => flag(&mut ignored.0, &value)?,
                "protocol" => self.protocol = value.as_i64()?,
                "account" => text_of(&mut self.account, value)?,
                "user" => text_of(&mut self.user, value)?,
                "pass" => text_of(&mut self.password, value)?,
                "auth_token" => text_of(&mut self.token, value)?,
                "name" | "lang" | "version" | "nkey" | "jwt" | "sig" => text_of(&mut ignored.1, value)?,
                _ => {}
            }
        }
        Some(())
    }

    /// May it come in?
    pub(crate) fn is_admitted(&self, access: &Access) -> bool {
        let is_known = match access {
            Access::Open => true,
            Access::Password { user, password } => self.user == *user && self.password == *password,
            Access::Token(token) => self.token == *token,
        };
        // Who names an account wants one of a kind that there is no more.
        is_known && !self.new_account && self.account.is_empty()
    }
}

fn flag(flag: &mut bool, value: &Value) -> Option<()> {
    *flag = value.as_bool()?;
    Some(())
}

fn text_of(text: &mut String, value: Value) -> Option<()> {
    let Value::String(value) = value else { return None };
    *text = value;
    Some(())
}
