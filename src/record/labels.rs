//! Labels of an instance.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use slipring_core::{Error, Result, reject_at};

use crate::name::{Grammar, mixed};

/// Free text by name that an instance carries in its record, for routing and for people.
///
/// At most 32 labels. A name is written like an endpoint's (`zone`, `example.com/rack`); a value has at most
/// 255 bytes and no control characters. Three names have a meaning: [`zone`](Self::zone),
/// [`version`](Self::version) and [`weight`](Self::weight).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "BTreeMap<String, String>", into = "BTreeMap<String, String>")]
pub struct Labels(BTreeMap<String, String>);

impl Labels {
    /// How many labels there may be.
    pub const COUNT_MAX: usize = 32;
    /// The longest value, in bytes.
    pub const VALUE_BYTES_MAX: usize = 255;
    /// The label behind [`zone`](Self::zone).
    pub const ZONE: &str = "zone";
    /// The label behind [`version`](Self::version).
    pub const VERSION: &str = "version";
    /// The label behind [`weight`](Self::weight).
    pub const WEIGHT: &str = "weight";

    const NAME: Grammar = Grammar {
        what: "label name",
        separators: &['/', '.'],
        permits: mixed,
        reserved: None,
        allowed: "segments of letters, digits, '_' and '-', joined by single '/' or '.'",
    };

    /// No labels.
    pub fn new() -> Self {
        Self::default()
    }

    /// With one more label; of the same name there is one, the last.
    ///
    /// # Errors
    /// [`Error::Invalid`] if name or value is not allowed, if there are too many, or if the value of
    /// `weight` is no whole number below 2^32.
    pub fn with(mut self, name: impl Into<String>, value: impl Into<String>) -> Result<Self> {
        let (name, value) = (name.into(), value.into());
        Self::NAME.check(&name)?;
        check_value(&name, &value)?;
        self.0.insert(name, value);
        if self.0.len() > Self::COUNT_MAX {
            let problem = format!("allowed: at most {}", Self::COUNT_MAX);
            return Err(Error::invalid("number of labels", self.0.len().to_string(), problem));
        }
        Ok(self)
    }

    /// The value under a name.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// All labels, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Are there none?
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Where the instance runs, for routing that stays near.
    pub fn zone(&self) -> Option<&str> {
        self.value(Self::ZONE)
    }

    /// Which version of the service it runs.
    pub fn version(&self) -> Option<&str> {
        self.value(Self::VERSION)
    }

    /// Its share of the traffic, relative to the weights of the others.
    pub fn weight(&self) -> Option<u32> {
        self.value(Self::WEIGHT).and_then(|weight| weight.parse().ok())
    }
}

impl TryFrom<BTreeMap<String, String>> for Labels {
    type Error = Error;

    fn try_from(labels: BTreeMap<String, String>) -> Result<Self> {
        labels.into_iter().try_fold(Self::new(), |all, (name, value)| all.with(name, value))
    }
}

impl From<Labels> for BTreeMap<String, String> {
    fn from(labels: Labels) -> Self {
        labels.0
    }
}

fn check_value(name: &str, value: &str) -> Result<()> {
    const WHAT: &str = "label value";
    let limit = Labels::VALUE_BYTES_MAX;
    let refused = value.char_indices().find(|(at, c)| c.is_control() || at + c.len_utf8() > limit);
    if let Some((position, c)) = refused {
        let problem =
            format!("{name}: {c:?} is not allowed here; allowed: {limit} bytes without control characters");
        return Err(reject_at(WHAT, value, position, problem));
    }
    if name == Labels::WEIGHT && value.parse::<u32>().is_err() {
        let problem = format!("{name}: allowed: a whole number from 0 to {}", u32::MAX);
        return Err(reject_at(WHAT, value, 0, problem));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The three names with a meaning are read by their accessors.
    #[test]
    fn well_known_labels() {
        let labels = Labels::new().with("zone", "eu-1").unwrap().with("version", "2.1").unwrap();
        let labels = labels.with("weight", "10").unwrap().with("example.com/rack", "é").unwrap();
        assert_eq!((labels.zone(), labels.version(), labels.weight()), (Some("eu-1"), Some("2.1"), Some(10)));
        assert_eq!(labels.value("example.com/rack"), Some("é"));
        assert_eq!(labels.iter().next(), Some(("example.com/rack", "é")));
        assert_eq!(Labels::new().weight(), None);
    }

    /// Number, names and values are bounded, and what is refused is named.
    #[test]
    fn labels_are_bounded() {
        let full = (0..32).try_fold(Labels::new(), |all, n| all.with(format!("l{n}"), "")).unwrap();
        assert!(full.clone().with("l0", "again").is_ok(), "replacing is not adding");
        assert!(full.with("one-more", "").unwrap_err().to_string().contains("at most 32"));
        for (name, value) in [
            ("", "x"),
            ("a b", "x"),
            ("a", "line\nbreak"),
            ("weight", "heavy"),
            ("weight", "-1"),
            ("weight", "4294967296"),
        ] {
            assert!(Labels::new().with(name, value).is_err(), "{name}={value}");
        }
        let error = Labels::new().with("a", "é".repeat(128)).unwrap_err();
        assert!(matches!(error, Error::Invalid { position: Some(254), .. }), "{error:?}");
        assert!(Labels::new().with("a", "x".repeat(255)).is_ok());
    }
}
