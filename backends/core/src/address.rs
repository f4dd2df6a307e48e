//! Where a backend is, as text: what an operator writes into a variable or a file.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::{Error, Result};

/// The address of a backend: `scheme://user:password@host:port,host2:port?name=value&name2=value2`, or
/// `scheme:` alone. Everything but the scheme may be missing; `%xx` stands for a byte that could not be
/// written otherwise.
///
/// It may hold a password, so it is never shown whole: `Debug` and `Display` leave user information and
/// values out.
#[derive(Clone, PartialEq, Eq)]
pub struct Address {
    scheme: String,
    user: Option<String>,
    password: Option<Secret>,
    hosts: Vec<Host>,
    options: Vec<(String, Secret)>,
}

/// One server: a name or an IP address, and perhaps a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// A name, an IPv4 address, or an IPv6 address without its brackets.
    pub name: String,
    /// The port, if one was given.
    pub port: Option<u16>,
}

/// A text that must not be seen: not in `Debug`, not in logs, not in errors.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Hides a text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text: for handing it on to where it is needed.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The content of a file, without the line breaks at its end.
    ///
    /// # Errors
    /// [`Invalid`](Error::Invalid) naming the file, if it cannot be read or is empty.
    pub fn from_file(path: &str) -> Result<Self> {
        // doctor: allow(it is read once, before anything runs)
        let text = std::fs::read_to_string(path)
            .map_err(|error| Error::invalid("secret file", path, format!("it cannot be read: {error}")))?;
        match text.trim_end_matches(['\r', '\n']) {
            "" => Err(Error::invalid("secret file", path, "it is empty")),
            text => Ok(Self::new(text)),
        }
    }

    /// The value of an environment variable.
    ///
    /// # Errors
    /// [`Invalid`](Error::Invalid) naming the variable, if it is not set, is empty, or is not UTF-8.
    pub fn from_variable(name: &str) -> Result<Self> {
        match std::env::var(name) {
            Ok(text) if !text.is_empty() => Ok(Self(text)),
            Ok(_) => Err(Error::invalid("secret variable", name, "it is empty")),
            Err(std::env::VarError::NotPresent) => {
                Err(Error::invalid("secret variable", name, "it is not set"))
            }
            Err(std::env::VarError::NotUnicode(_)) => {
                Err(Error::invalid("secret variable", name, "it is not UTF-8"))
            }
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl Host {
    /// `name:port`, as a socket is dialled, with this port if none was given.
    pub fn with_default_port(&self, port: u16) -> String {
        let port = self.port.unwrap_or(port);
        if self.name.contains(':') {
            format!("[{}]:{port}", self.name)
        } else {
            format!("{}:{port}", self.name)
        }
    }
}

impl Address {
    /// What the address begins with: the backend's name.
    pub fn scheme(&self) -> &str {
        &self.scheme
    }

    /// The servers, in the order in which they were given.
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// The user.
    pub fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// The password.
    pub fn password(&self) -> Option<&Secret> {
        self.password.as_ref()
    }

    /// The options behind the `?`, to be read by name.
    pub fn options(&self) -> Options<'_> {
        Options { address: self, known: RefCell::default() }
    }

    fn invalid(&self, problem: impl Into<String>) -> Error {
        Error::invalid("address", self.to_string(), problem)
    }
}

/// Reads the options of an [`Address`] by name, and knows in the end which of them nobody asked for.
#[derive(Debug)]
pub struct Options<'a> {
    address: &'a Address,
    known: RefCell<BTreeSet<String>>,
}

impl Options<'_> {
    /// The value of an option.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.known.borrow_mut().insert(name.to_owned());
        let given = self.address.options.iter().find(|(given, _)| given == name);
        given.map(|(_, value)| value.expose())
    }

    /// A duration, such as `10s` ([`parse_duration`]).
    ///
    /// # Errors
    /// [`Invalid`](Error::Invalid) naming the option.
    pub fn duration(&self, name: &str) -> Result<Option<Duration>> {
        let parse = |text| {
            let parsed = parse_duration(text);
            parsed.map_err(|_| self.address.invalid(format!("{name}={text:?} is no duration; {DURATIONS}")))
        };
        self.text(name).map(parse).transpose()
    }

    /// A number.
    ///
    /// # Errors
    /// [`Invalid`](Error::Invalid) naming the option.
    pub fn number(&self, name: &str) -> Result<Option<u64>> {
        let parse = |text: &str| {
            let problem = || format!("{name}={text:?} is no number; allowed: digits");
            text.parse().map_err(|_| self.address.invalid(problem()))
        };
        self.text(name).map(parse).transpose()
    }

    /// Yes or no: `true` or `false`.
    ///
    /// # Errors
    /// [`Invalid`](Error::Invalid) naming the option.
    pub fn flag(&self, name: &str) -> Result<Option<bool>> {
        let parse = |text: &str| {
            let problem = || format!("{name}={text:?} is neither; allowed: true, false");
            text.parse().map_err(|_| self.address.invalid(problem()))
        };
        self.text(name).map(parse).transpose()
    }

    /// A secret that stands elsewhere: in the file that `{name}_file` names, or in the variable that
    /// `{name}_env` names. In the address itself it could be seen by whoever lists processes.
    ///
    /// # Errors
    /// [`Invalid`](Error::Invalid) if both are given, or if the file or the variable cannot be read.
    pub fn secret(&self, name: &str) -> Result<Option<Secret>> {
        let (file, variable) = (format!("{name}_file"), format!("{name}_env"));
        match (self.text(&file), self.text(&variable)) {
            (None, None) => Ok(None),
            (Some(path), None) => Secret::from_file(path).map(Some),
            (None, Some(variable)) => Secret::from_variable(variable).map(Some),
            (Some(_), Some(_)) => Err(self
                .address
                .invalid(format!("{file} and {variable} are both given; allowed: one of them"))),
        }
    }

    /// Refuses an option that nobody asked for: it would be without effect.
    ///
    /// # Errors
    /// [`Invalid`](Error::Invalid) naming the option and those that exist.
    pub fn finish(self) -> Result<()> {
        let known = self.known.into_inner();
        match self.address.options.iter().find(|(name, _)| !known.contains(name)) {
            None => Ok(()),
            Some((name, _)) => {
                let known: Vec<_> = known.into_iter().collect();
                let allowed = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                Err(self.address.invalid(format!("unknown option {name:?}; allowed: {allowed}")))
            }
        }
    }
}

impl FromStr for Address {
    type Err = Error;

    /// # Errors
    /// [`Invalid`](Error::Invalid); the input is shown up to the scheme only.
    fn from_str(text: &str) -> Result<Self> {
        const EXAMPLE: &str = "allowed: an address such as memory: or etcd://host:2379";
        let scheme_is = |scheme: &&str| {
            let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'+' || b == b'-';
            !scheme.is_empty() && scheme.bytes().all(legal)
        };
        let Some((scheme, rest)) = text.split_once(':').filter(|(scheme, _)| scheme_is(scheme)) else {
            // What it is we cannot know: perhaps a password.
            return Err(Error::invalid("address", "..", format!("it has no scheme; {EXAMPLE}")));
        };
        let mut address = Self {
            scheme: scheme.to_owned(),
            user: None,
            password: None,
            hosts: Vec::new(),
            options: Vec::new(),
        };
        let (authority, options) = rest.split_once('?').unwrap_or((rest, ""));
        let authority = match authority.strip_prefix("//") {
            Some(authority) => authority.strip_suffix('/').unwrap_or(authority),
            None if authority.is_empty() => "",
            None => return Err(address.invalid(format!("\"//\" is missing before the host; {EXAMPLE}"))),
        };
        let hosts = match authority.rsplit_once('@') {
            None => authority,
            Some((credentials, hosts)) => {
                let (user, password) = match credentials.split_once(':') {
                    None => (credentials, None),
                    Some((user, password)) => (user, Some(password)),
                };
                address.user = Some(address.decoded(user)?).filter(|user| !user.is_empty());
                address.password = password.map(|text| address.decoded(text).map(Secret)).transpose()?;
                hosts
            }
        };
        if !hosts.is_empty() {
            address.hosts = hosts.split(',').map(|host| address.host(host)).collect::<Result<_>>()?;
        }
        for option in options.split('&').filter(|option| !option.is_empty()) {
            let (name, value) = option.split_once('=').unwrap_or((option, ""));
            let (name, value) = (address.decoded(name)?, address.decoded(value)?);
            if address.options.iter().any(|(given, _)| *given == name) {
                return Err(address.invalid(format!("the option {name:?} is given twice")));
            }
            address.options.push((name, Secret(value)));
        }
        Ok(address)
    }
}

impl Address {
    fn host(&self, text: &str) -> Result<Host> {
        let problem = "allowed: name, name:port, [ipv6]:port";
        let (name, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((name, "")) => (name, None),
            Some((name, rest)) => (name, Some(rest.strip_prefix(':').unwrap_or(rest))),
            None => match text.split_once(':') {
                None => (text, None),
                Some((name, port)) => (name, Some(port)),
            },
        };
        let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':' | b'%');
        if name.is_empty() || !name.bytes().all(legal) {
            return Err(self.invalid(format!("{text:?} is no host; {problem}")));
        }
        let port = match port.map(str::parse) {
            None => None,
            Some(Ok(port)) if port > 0 => Some(port),
            Some(_) => return Err(self.invalid(format!("{text:?} has no valid port; {problem}"))),
        };
        Ok(Host { name: name.to_owned(), port })
    }

    /// The text that `%xx` stand in.
    fn decoded(&self, text: &str) -> Result<String> {
        let mut bytes = Vec::with_capacity(text.len());
        let mut rest = text.as_bytes();
        while let Some((first, after)) = rest.split_first() {
            if *first != b'%' {
                bytes.push(*first);
                rest = after;
                continue;
            }
            let digits = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
            match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
                Some(byte) => bytes.push(byte),
                None => {
                    return Err(self.invalid("\"%\" without two hexadecimal digits; a \"%\" is written %25"));
                }
            }
            rest = &after[2..];
        }
        String::from_utf8(bytes).map_err(|_| self.invalid("what %xx stand for is not UTF-8"))
    }
}

/// The servers, without user information; of the options the names alone.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.scheme)?;
        for (index, host) in self.hosts.iter().enumerate() {
            f.write_str(if index == 0 { "//" } else { "," })?;
            match host.port {
                Some(port) => f.write_str(&host.with_default_port(port))?,
                None => f.write_str(&host.name)?,
            }
        }
        for (index, (name, _)) in self.options.iter().enumerate() {
            write!(f, "{}{name}=..", if index == 0 { '?' } else { '&' })?;
        }
        Ok(())
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({self})")
    }
}

const DURATIONS: &str = "allowed: a whole number with ms, s, m or h, such as 500ms or 10s";

/// A duration as people write it: a whole number and a unit, which is `ms`, `s`, `m` or `h`.
///
/// # Errors
/// [`Invalid`](Error::Invalid) showing the input.
pub fn parse_duration(text: &str) -> Result<Duration> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let millis_each = match unit {
        "ms" => Some(1),
        "s" => Some(1_000),
        "m" => Some(60_000),
        "h" => Some(3_600_000),
        _ => None,
    };
    let number: Option<u64> = number.parse().ok();
    let millis = number.zip(millis_each).and_then(|(number, each)| number.checked_mul(each));
    millis.map(Duration::from_millis).ok_or_else(|| Error::invalid("duration", text, DURATIONS))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Address {
        text.parse().unwrap()
    }

    fn problem(text: &str) -> String {
        text.parse::<Address>().unwrap_err().to_string()
    }

    /// Every part of an address is found, and every part may be missing.
    #[test]
    fn an_address_has_optional_parts() {
        let full = parsed("etcd://me:p%40ss@one:2379,two,[::1]:7?ttl=10s&flag=true&n=3");
        assert_eq!((full.scheme(), full.user()), ("etcd", Some("me")));
        assert_eq!(full.password().unwrap().expose(), "p@ss");
        let dialled: Vec<_> = full.hosts().iter().map(|host| host.with_default_port(9)).collect();
        assert_eq!(dialled, ["one:2379", "two:9", "[::1]:7"]);
        let options = full.options();
        assert_eq!(options.duration("ttl").unwrap(), Some(Duration::from_secs(10)));
        assert_eq!(options.flag("flag").unwrap(), Some(true));
        assert_eq!(options.number("n").unwrap(), Some(3));
        assert_eq!(options.text("other"), None);
        options.finish().unwrap();
        for bare in ["memory:", "memory://", "memory:?"] {
            assert!(parsed(bare).hosts().is_empty() && parsed(bare).user().is_none());
        }
    }

    /// Each mistake is told apart and says what is allowed.
    #[test]
    fn mistakes_say_what_is_allowed() {
        for (text, words) in [
            ("localhost", "no scheme"),
            ("", "no scheme"),
            ("etcd:localhost:2379", "\"//\" is missing"),
            ("etcd://a,,b", "no host"),
            ("etcd://a b", "no host"),
            ("etcd://a:port", "no valid port"),
            ("etcd://a:0", "no valid port"),
            ("etcd://a:65536", "no valid port"),
            ("etcd://a?x=1&x=2", "twice"),
            ("etcd://%zz@a", "hexadecimal"),
            ("etcd://%ff@a", "UTF-8"),
        ] {
            assert!(problem(text).contains(words), "{text}: {}", problem(text));
        }
        let address = parsed("etcd://a?tttl=1s&ttl=1x&n=-1&b=yes");
        let options = address.options();
        let text = options.duration("ttl").unwrap_err().to_string();
        assert!(text.contains("ttl=\"1x\"") && text.contains("500ms"), "{text}");
        assert!(options.number("n").unwrap_err().to_string().contains("digits"));
        assert!(options.flag("b").unwrap_err().to_string().contains("true, false"));
        let text = options.finish().unwrap_err().to_string();
        assert!(text.contains("\"tttl\"; allowed: b, n, ttl"), "{text}");
    }

    /// A password is in no text that is made of an address, right or wrong.
    #[test]
    fn secrets_are_not_shown() {
        let address = parsed("etcd://me:hunter2@host?token=hunter3");
        let shown = format!("{address} {address:?} {:?}", address.options());
        assert!(!shown.contains("hunter") && !shown.contains("me:"), "{shown}");
        for wrong in
            ["hunter2@host", "etcd:me:hunter2@host", "etcd://me:hunter2@host:x", "etcd://hunter2%z@h"]
        {
            assert!(!problem(wrong).contains("hunter"), "{}", problem(wrong));
        }
    }

    /// A secret comes from a file or from a variable, and from one of them only.
    #[test]
    fn secrets_stand_elsewhere() {
        let file = std::env::temp_dir().join(format!("slipring-secret-{}", std::process::id()));
        std::fs::write(&file, "hunter2\n").unwrap();
        let path = file.to_str().unwrap();
        let address = parsed(&format!("nats://h?password_file={path}"));
        assert_eq!(address.options().secret("password").unwrap().unwrap().expose(), "hunter2");
        let both = parsed(&format!("nats://h?password_file={path}&password_env=HOME"));
        assert!(both.options().secret("password").unwrap_err().to_string().contains("both"));
        std::fs::remove_file(&file).unwrap();
        let gone = address.options().secret("password").unwrap_err().to_string();
        assert!(gone.contains(path), "{gone}");
        let unset = parsed("nats://h?password_env=SLIPRING_SURELY_UNSET");
        assert!(unset.options().secret("password").unwrap_err().to_string().contains("not set"));
    }

    /// Durations have a unit and do not overflow.
    #[test]
    fn durations_have_units() {
        assert_eq!(parse_duration("500ms").unwrap(), Duration::from_millis(500));
        assert_eq!(parse_duration("2m").unwrap(), Duration::from_secs(120));
        assert_eq!(parse_duration("1h").unwrap(), Duration::from_secs(3600));
        for wrong in ["", "10", "s", "-1s", "1.5s", "1 s", "99999999999999999999s", "18446744073709551615h"] {
            assert!(parse_duration(wrong).unwrap_err().to_string().contains("500ms"), "{wrong}");
        }
    }
}
