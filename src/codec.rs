//! Codecs: how requests and items become bytes.

use std::any::type_name;
use std::fmt;
use std::io::Cursor;
use std::str::FromStr;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use slipring_core::{Error, Result, reject_at};

use crate::name::near_misses;

/// How values are written as bytes. An endpoint has one codec, and its record says which.
///
/// Both write structs with the names of their fields, so that adding an optional field breaks nobody, and
/// both refuse to read what is nested deeper than 128 levels or followed by more bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "&'static str")]
#[non_exhaustive]
pub enum Codec {
    /// JSON: for people and for every language. A float that is no number is written as `null`.
    #[default]
    Json,
    /// MessagePack: smaller, and bytes stay bytes.
    MessagePack,
}

/// As much as most values need, so that few are moved while they are written.
const ROOM_BYTES: usize = 256;

impl Codec {
    /// Every codec there is.
    pub const ALL: [Self; 2] = [Self::Json, Self::MessagePack];

    /// As deep as serde_json reads by default.
    const DEPTH_MAX: usize = 128;

    /// Its name in records, headers and settings: `json` or `msgpack`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::MessagePack => "msgpack",
        }
    }

    /// Writes a value.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the type if it cannot be written, such as a JSON map whose keys are no text.
    pub fn encode<T: Serialize + ?Sized>(self, value: &T) -> Result<Bytes> {
        let mut bytes = Vec::with_capacity(ROOM_BYTES);
        match self {
            Self::Json => {
                serde_json::to_writer(&mut bytes, value).map_err(|error| self.invalid::<T>(error))?
            }
            Self::MessagePack => {
                rmp_serde::encode::write_named(&mut bytes, value)
                    .map_err(|error| self.invalid::<T>(error))?;
            }
        }
        Ok(bytes.into())
    }

    /// Reads a value that is all there is.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the type, what is wrong and where in the bytes.
    pub fn decode<T: DeserializeOwned>(self, bytes: &[u8]) -> Result<T> {
        match self {
            Self::Json => serde_json::from_slice(bytes).map_err(|error| self.invalid::<T>(error)),
            Self::MessagePack => self.decode_message_pack(bytes),
        }
    }

    fn decode_message_pack<T: DeserializeOwned>(self, bytes: &[u8]) -> Result<T> {
        // Over a cursor, because `from_slice` says neither where it failed nor that bytes are left.
        let mut reader = rmp_serde::Deserializer::new(Cursor::new(bytes));
        reader.set_max_depth(Self::DEPTH_MAX);
        let value = T::deserialize(&mut reader);
        let position = reader.position();
        match value {
            Ok(value) if position == bytes.len() as u64 => Ok(value),
            Ok(_) => Err(self.invalid::<T>(format_args!("it ends {position} bytes in, and more follow"))),
            Err(error) => Err(self.invalid::<T>(format_args!("{error}, {position} bytes in"))),
        }
    }

    fn invalid<T: ?Sized>(self, problem: impl fmt::Display) -> Error {
        let what = match self {
            Self::Json => "JSON value",
            Self::MessagePack => "MessagePack value",
        };
        Error::invalid(what, type_name::<T>(), problem.to_string())
    }
}

/// The codec's name.
impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Codec {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|codec| codec.name() == name).ok_or_else(|| {
            let names = Self::ALL.map(Self::name);
            let near = near_misses(name, names);
            let hint = if near.is_empty() { String::new() } else { format!("; did you mean {near:?}?") };
            reject_at("codec", name, 0, format!("there is none of this name; allowed: {names:?}{hint}"))
        })
    }
}

impl TryFrom<String> for Codec {
    type Error = Error;

    fn try_from(name: String) -> Result<Self> {
        name.parse()
    }
}

impl From<Codec> for &'static str {
    fn from(codec: Codec) -> Self {
        codec.name()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    struct Prompt {
        text: String,
        temperature: f64,
        stop: Option<Vec<String>>,
        seed: u64,
        kind: Kind,
    }

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    enum Kind {
        Chat,
        Completion { max_tokens: i32 },
    }

    fn prompts() -> impl Strategy<Value = Prompt> {
        let kinds = prop_oneof![
            Just(Kind::Chat),
            any::<i32>().prop_map(|max_tokens| Kind::Completion { max_tokens })
        ];
        let stops = proptest::option::of(proptest::collection::vec(any::<String>(), 0..3));
        (any::<String>(), proptest::num::f64::NORMAL, stops, any::<u64>(), kinds)
            .prop_map(|(text, temperature, stop, seed, kind)| Prompt { text, temperature, stop, seed, kind })
    }

    proptest! {
        /// What is written is read back, by every codec.
        #[test]
        fn values_come_back(prompt in prompts()) {
            for codec in Codec::ALL {
                let back: Prompt = codec.decode(&codec.encode(&prompt).unwrap()).unwrap();
                prop_assert_eq!(back, prompt.clone());
            }
        }

        /// D29: whatever arrives is a value or a typed error, never a panic.
        #[test]
        fn d29_any_bytes_are_a_value_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            for codec in Codec::ALL {
                for result in [
                    codec.decode::<Prompt>(&bytes).map(|_| ()),
                    codec.decode::<serde_json::Value>(&bytes).map(|_| ()),
                    codec.decode::<BTreeMap<String, Vec<u8>>>(&bytes).map(|_| ()),
                ] {
                    let typed = matches!(result, Ok(()) | Err(Error::Invalid { .. }));
                    prop_assert!(typed, "{:?}", result);
                }
            }
        }

        /// A value that is cut short is an error, and so is one that is followed by more.
        #[test]
        fn cut_and_followed_values_are_refused(prompt in prompts(), cut in any::<prop::sample::Index>()) {
            for codec in Codec::ALL {
                let bytes = codec.encode(&prompt).unwrap();
                prop_assert!(codec.decode::<Prompt>(&bytes[..cut.index(bytes.len())]).is_err());
                prop_assert!(codec.decode::<Prompt>(&[&bytes[..], b"1"].concat()).is_err());
            }
        }
    }

    /// Names are stable, and a wrong one is answered with the right ones.
    #[test]
    fn codecs_are_found_by_name() {
        for codec in Codec::ALL {
            assert_eq!(codec.name().parse::<Codec>().unwrap(), codec);
        }
        assert_eq!(Codec::ALL.map(Codec::name), ["json", "msgpack"]);
        let error = "Msg-Pack".parse::<Codec>().unwrap_err().to_string();
        assert!(error.contains(r#"allowed: ["json", "msgpack"]; did you mean ["msgpack"]?"#), "{error}");
        assert!(!"cbor".parse::<Codec>().unwrap_err().to_string().contains("did you mean"));
    }

    /// Structs carry their fields' names: a reader that knows fewer fields still reads them.
    #[test]
    fn fields_are_named() {
        #[derive(Deserialize)]
        struct Older {
            seed: u64,
        }
        let prompt =
            Prompt { text: "x".into(), temperature: 0.5, stop: None, seed: u64::MAX, kind: Kind::Chat };
        for codec in Codec::ALL {
            let older: Older = codec.decode(&codec.encode(&prompt).unwrap()).unwrap();
            assert_eq!(older.seed, u64::MAX);
        }
    }

    /// An error names the type and the place.
    #[test]
    fn errors_name_type_and_place() {
        let error = Codec::Json.decode::<Prompt>(br#"{"text": 1}"#).unwrap_err().to_string();
        assert!(error.contains("codec::tests::Prompt") && error.contains("line 1 column 10"), "{error}");
        let error = Codec::MessagePack.decode::<Vec<u64>>(&[0x92, 1, 0xa1, b'x']).unwrap_err().to_string();
        assert!(error.contains("Vec<u64>") && error.contains("3 bytes in"), "{error}");
        let error = Codec::MessagePack.decode::<u8>(&[1, 2]).unwrap_err().to_string();
        assert!(error.contains("ends 1 bytes in"), "{error}");
        let keys = BTreeMap::from([(vec![1], 1)]);
        let error = Codec::Json.encode(&keys).unwrap_err().to_string();
        assert!(error.contains("BTreeMap"), "{error}");
        assert!(Codec::MessagePack.encode(&keys).is_ok());
    }

    /// D29: neither depth nor a length that lies can take the stack or the memory.
    #[test]
    fn d29_depth_and_lengths_are_bounded() {
        let deep = [vec![0x91; 100_000], vec![0xc0]].concat();
        let error = Codec::MessagePack.decode::<serde_json::Value>(&deep).unwrap_err().to_string();
        assert!(error.contains("depth limit"), "{error}");
        assert!(Codec::Json.decode::<serde_json::Value>("[".repeat(100_000).as_bytes()).is_err());
        for length in [0xc6, 0xdb, 0xdd, 0xdf] {
            let lie = [length, 0xff, 0xff, 0xff, 0xff, 1];
            assert!(Codec::MessagePack.decode::<serde_json::Value>(&lie).is_err(), "{length:x}");
            assert!(Codec::MessagePack.decode::<Vec<u64>>(&lie).is_err(), "{length:x}");
        }
    }
}
