use std::fmt;
use std::sync::Arc;

use crate::parse::{check, reject_at};
use crate::{Error, Result};

const ALLOWED: &str = "1 to 1024 bytes of text without control characters";

/// The name of a record in the store: 1 to 1024 bytes of UTF-8 without control characters, ordered by bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Arc<str>);

impl Key {
    /// The longest key, in bytes.
    pub const BYTES_MAX: usize = 1024;

    /// Parses a key.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the position if the text is empty, too long or has a control character.
    pub fn new(text: impl AsRef<str>) -> Result<Self> {
        let text = text.as_ref();
        check("key", text, Self::BYTES_MAX, ALLOWED, |c| !c.is_control())?;
        Ok(Self(text.into()))
    }

    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The beginning of a family of keys. It ends in `/` or `:`, so `a/b/` never matches `a/bc`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix(Arc<str>);

impl Prefix {
    /// Parses a prefix.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the position if the text is no key, or does not end in `/` or `:`.
    pub fn new(text: impl AsRef<str>) -> Result<Self> {
        let text = text.as_ref();
        check("prefix", text, Key::BYTES_MAX, ALLOWED, |c| !c.is_control())?;
        if !text.ends_with(['/', ':']) {
            let problem = "it must end in '/' or ':', so that it ends where a name ends";
            return Err(reject_at("prefix", text, text.len(), problem));
        }
        Ok(Self(text.into()))
    }

    /// The prefix as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The key `rest` below this prefix.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the whole is no key.
    pub fn key(&self, rest: impl fmt::Display) -> Result<Key> {
        Key::new(format!("{}{rest}", self.0))
    }
}

/// Which keys to read or to watch.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Range {
    /// Every key of the store (of the deployment, where a backend keeps deployments apart).
    All,
    /// One key.
    Key(Key),
    /// All keys that begin with the prefix.
    Prefix(Prefix),
}

impl Range {
    /// Is the key in this range?
    pub fn contains(&self, key: &Key) -> bool {
        match self {
            Self::All => true,
            Self::Key(one) => one == key,
            Self::Prefix(prefix) => key.as_str().starts_with(prefix.as_str()),
        }
    }
}

impl From<Key> for Range {
    fn from(key: Key) -> Self {
        Self::Key(key)
    }
}

impl From<Prefix> for Range {
    fn from(prefix: Prefix) -> Self {
        Self::Prefix(prefix)
    }
}

macro_rules! text {
    ($type:ident) => {
        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", self.as_str())
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl std::str::FromStr for $type {
            type Err = Error;

            fn from_str(text: &str) -> Result<Self> {
                Self::new(text)
            }
        }
    };
}
pub(crate) use text;

text!(Key);
text!(Prefix);

#[cfg(test)]
mod tests {
    use super::*;

    /// A prefix ends at a boundary, so `component` never matches `component2` (U11144).
    #[test]
    fn u11144_a_prefix_ends_where_a_name_ends() {
        assert!(Prefix::new("ns/components/component").is_err());
        let range = Range::from(Prefix::new("ns/components/component/").unwrap());
        assert!(range.contains(&Key::new("ns/components/component/e:1").unwrap()));
        assert!(!range.contains(&Key::new("ns/components/component2/e:1").unwrap()));
    }

    /// Bad keys are named with the place where they go wrong.
    #[test]
    fn bad_keys_say_where() {
        let Err(Error::Invalid { position, .. }) = Key::new("ab\nc") else { panic!("accepted") };
        assert_eq!(position, Some(2));
        assert!(Key::new("").is_err());
        assert!(Key::new("k".repeat(Key::BYTES_MAX + 1)).is_err());
    }
}
