//! Names: parsed once into types, and composed into the keys and subjects under which things are found.
//!
//! | name | is |
//! |---|---|
//! | [`NamespaceName`] | segments of `a-z 0-9 _ -`, joined by `.`; none is `component` |
//! | [`ComponentName`] | one segment of `A-Z a-z 0-9 _ -` |
//! | [`EndpointName`] | such segments, joined by single `/` or `.` |
//! | [`EventName`] | one such segment |
//! | [`Deployment`] | nothing, or one segment of `a-z 0-9 _ -` |
//!
//! A segment has at most 63 bytes. The path types ([`NamespacePath`] to [`InstancePath`], [`EventPath`])
//! combine names; making one fails if a key or subject made of it could get too long, so that everything
//! asked of it afterwards succeeds. What they write is injective: different paths give different keys,
//! subjects and service names, and each decodes back.

mod escape;
mod event;
mod near;
mod parse;
mod path;
#[cfg(test)]
mod properties;
mod reference;

use std::fmt;
use std::sync::Arc;

use slipring_core::{Error, Key, Range, Result, Subject};

pub use self::event::{EventPath, EventScope};
pub use self::near::near_misses;
pub(crate) use self::parse::Grammar;
pub use self::path::{ComponentPath, EndpointPath, InstancePath, NamespacePath};
pub use self::reference::Reference;

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $grammar:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type(Arc<str>);

        impl $type {
            const GRAMMAR: Grammar = $grammar;

            /// Parses the name.
            ///
            /// # Errors
            /// [`Error::Invalid`] with the input, the position and what is allowed.
            pub fn new(text: impl AsRef<str>) -> Result<Self> {
                let text = text.as_ref();
                Self::GRAMMAR.check(text)?;
                Ok(Self(text.into()))
            }
        }

        name!(text $type);
    };
    (text $type:ident) => {
        impl $type {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

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

name!(
    /// A namespace: segments of `a-z 0-9 _ -`, nested ones joined by `.`, such as `production` or
    /// `parent.child`.
    ///
    /// No segment is `component`: in event subjects that word stands between a namespace and a component,
    /// and whoever reads them (a person, or a tool that gives each segment a token of its own) must never
    /// have to guess which it is.
    NamespaceName,
    Grammar {
        what: "namespace",
        separators: &['.'],
        permits: lower,
        reserved: Some("component"),
        allowed: "segments of a-z, 0-9, '_' and '-', joined by single dots",
    }
);

name!(
    /// A component: letters, digits, `_` and `-`. Case counts: `Processor` is not `processor`.
    ComponentName,
    Grammar { what: "component", separators: &[], permits: mixed, reserved: None, allowed: TOKEN }
);

name!(
    /// An endpoint: segments of letters, digits, `_` and `-`, joined by single `/` or `.`, such as `generate`
    /// or `chat/completions`.
    EndpointName,
    Grammar {
        what: "endpoint",
        separators: &['/', '.'],
        permits: mixed,
        reserved: None,
        allowed: "segments of letters, digits, '_' and '-', joined by single '/' or '.'",
    }
);

name!(
    /// An event: letters, digits, `_` and `-`; one subject token.
    EventName,
    Grammar { what: "event", separators: &[], permits: mixed, reserved: None, allowed: TOKEN }
);

const TOKEN: &str = "letters, digits, '_' and '-'";

fn lower(c: char) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '-')
}

pub(crate) fn mixed(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '-')
}

impl NamespaceName {
    /// The namespace `name` inside this one: `parent` and `child` give `parent.child`.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the whole is no namespace; the position counts in the whole.
    pub fn child(&self, name: impl AsRef<str>) -> Result<Self> {
        Self::new(format!("{self}.{}", name.as_ref()))
    }
}

/// A deployment: it keeps environments that share one server apart. Empty by default, or one segment of
/// `a-z 0-9 _ -`.
///
/// Every key of the deployment `staging` begins with `@staging/` and every subject with `@staging.`; no
/// namespace has an `@`, so a deployment can never be mistaken for a namespace. The empty deployment adds
/// nothing.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Deployment(Arc<str>);

name!(text Deployment);

impl Deployment {
    const GRAMMAR: Grammar = Grammar {
        what: "deployment",
        separators: &[],
        permits: lower,
        reserved: None,
        allowed: "nothing, or a-z, 0-9, '_' and '-'",
    };

    /// Parses a deployment; the empty text is the default one.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the input, the position and what is allowed.
    pub fn new(text: impl AsRef<str>) -> Result<Self> {
        let text = text.as_ref();
        if !text.is_empty() {
            Self::GRAMMAR.check(text)?;
        }
        Ok(Self(text.into()))
    }

    /// The namespace of this name in the deployment.
    pub fn namespace(&self, name: NamespaceName) -> NamespacePath {
        NamespacePath::new(self.clone(), name)
    }

    /// All keys that can be the deployment's. Without a deployment that is every key, those of deployments
    /// included: what decodes to another [`deployment`](NamespacePath::deployment) is not its own.
    pub fn range(&self) -> Range {
        if self.0.is_empty() { Range::All } else { path::prefix(self.prefix('/')).into() }
    }

    /// What the subjects of its inboxes begin with: `_INBOX` behind the deployment.
    pub fn inboxes(&self) -> Subject {
        path::subject(format!("{}_INBOX", self.prefix('.')))
    }

    /// The inbox of this number: `{inboxes}.{hex}`.
    pub fn inbox(&self, number: u64) -> Subject {
        path::subject(format!("{}.{number:016x}", self.inboxes()))
    }

    /// The key of a runtime's anchor, `$slipring/anchor/{hex}` behind the deployment: what its writes are
    /// guarded by. No namespace has a `$`.
    pub fn anchor_key(&self, instance: u64) -> Key {
        path::key(format!("{}$slipring/anchor/{instance:x}", self.prefix('/')))
    }

    /// A key that nobody writes, `$slipring/store` behind the deployment: who may read it has credentials that
    /// reach the deployment's keys.
    pub fn store_key(&self) -> Key {
        path::key(format!("{}$slipring/store", self.prefix('/')))
    }

    /// What every key (`/`) and every subject (`.`) begins with.
    fn prefix(&self, separator: char) -> String {
        if self.0.is_empty() { String::new() } else { format!("@{self}{separator}") }
    }
}

/// The empty deployment.
impl Default for Deployment {
    fn default() -> Self {
        Self("".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The document's rule: lower case, digits, hyphen, underscore; and nothing else, with the place.
    #[test]
    fn namespaces_follow_the_document() {
        for good in ["production", "development", "a-z", "0_9", "-", "parent.child", "components"] {
            assert_eq!(NamespaceName::new(good).unwrap().as_str(), good);
        }
        for (bad, byte) in [
            ("", 0),
            ("Production", 0),
            ("prod uction", 4),
            ("a..b", 2),
            ("a.", 2),
            (".a", 0),
            ("a/b", 1),
            ("a|b", 1),
            ("@a", 0),
            ("naïve", 2),
            ("component", 0),
            ("a.component.b", 2),
        ] {
            assert_eq!(position(NamespaceName::new(bad)), byte, "{bad:?}");
        }
    }

    /// Endpoints may hold single slashes and dots, but no empty segment.
    #[test]
    fn endpoints_have_segments() {
        for good in ["generate", "chat/completions", "v1.chat", "a/b.c-d_E", "-"] {
            assert_eq!(EndpointName::new(good).unwrap().as_str(), good);
        }
        for (bad, byte) in [("", 0), ("/a", 0), ("a/", 2), ("a//b", 2), ("a/.b", 2), ("a:b", 1), ("a b", 1)] {
            assert_eq!(position(EndpointName::new(bad)), byte, "{bad:?}");
        }
    }

    /// Components and events are one token, in any case.
    #[test]
    fn components_and_events_are_one_token() {
        assert!(ComponentName::new("Processor-2_b").is_ok() && EventName::new("kv_events").is_ok());
        for (bad, byte) in [("", 0), ("a.b", 1), ("a/b", 1), ("*", 0), ("a\u{0}", 1)] {
            assert_eq!(position(ComponentName::new(bad)), byte, "{bad:?}");
            assert_eq!(position(EventName::new(bad)), byte, "{bad:?}");
        }
    }

    /// A segment ends at 63 bytes, and the error points at the excess.
    #[test]
    fn segments_are_bounded() {
        let (longest, longer) = ("x".repeat(63), "x".repeat(64));
        assert!(ComponentName::new(&longest).is_ok());
        assert_eq!(position(ComponentName::new(&longer)), 63);
        assert_eq!(position(EndpointName::new(format!("a/{longer}"))), 65);
        assert_eq!(position(Deployment::new(&longer)), 63);
        assert_eq!(position(NamespaceName::new(vec!["x"; 129].join("."))), 255);
    }

    /// An error says input, place and what is allowed.
    #[test]
    fn errors_say_input_place_and_what_is_allowed() {
        let error = NamespaceName::new("prodU").unwrap_err().to_string();
        let expected = "invalid namespace \"prodU\" at byte 4: 'U' is not allowed; \
             allowed: segments of a-z, 0-9, '_' and '-', joined by single dots";
        assert_eq!(error, expected);
    }

    /// Nested namespaces are joined by a dot, and checked as a whole.
    #[test]
    fn children_are_nested() {
        let parent = NamespaceName::new("parent").unwrap();
        assert_eq!(parent.child("child").unwrap().as_str(), "parent.child");
        assert_eq!(position(parent.child("component")), 7);
    }

    /// The runtime's own keys and inboxes carry the deployment, and no deployment adds nothing.
    #[test]
    fn a_deployment_stands_in_front() {
        let (none, staging) = (Deployment::default(), Deployment::new("staging").unwrap());
        assert_eq!(Deployment::new("").unwrap(), none);
        assert_eq!(none.store_key().as_str(), "$slipring/store");
        assert_eq!(staging.store_key().as_str(), "@staging/$slipring/store");
        assert_eq!(none.anchor_key(0x1a).as_str(), "$slipring/anchor/1a");
        assert_eq!(staging.anchor_key(0x1a).as_str(), "@staging/$slipring/anchor/1a");
        assert_eq!(none.inbox(0x1a).as_str(), "_INBOX.000000000000001a");
        assert_eq!(staging.inbox(0x1a).as_str(), "@staging._INBOX.000000000000001a");
        assert_eq!(staging.inboxes().as_str(), "@staging._INBOX");
        assert_eq!(none.range(), Range::All);
        assert!(staging.range().contains(&staging.store_key()));
        assert!(!staging.range().contains(&none.store_key()));
        assert_eq!(position(Deployment::new("Staging")), 0);
    }

    fn position<T: fmt::Debug>(result: Result<T>) -> usize {
        let Err(Error::Invalid { position: Some(position), .. }) = result else { panic!("{result:?}") };
        position
    }
}
