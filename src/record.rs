//! Records: what an instance says of itself in the store.

mod labels;

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize};
use slipring_core::{Error, Key, LeaseId, Result};

pub use self::labels::Labels;
use crate::codec::Codec;
use crate::name::{EndpointPath, InstancePath};

/// What an instance says of itself: who it is, how it is reached, and whether it wants requests.
///
/// It is stored as JSON under [`key`](Self::key). Beside `namespace`, `component`, `endpoint`, `lease_id` and
/// `transport` there are `instance_id`, `epoch`, `version`, `ready`, `codec` and `labels`, which a reader
/// fills in where they are missing. Both ids are JSON numbers of up to 64 bits, which readers that keep
/// numbers as floats must not round.
///
/// # Compatibility
/// `version` counts the changes that an older reader would misread; it is 1. Adding a field or a transport is
/// no such change: readers skip what they do not know. A reader accepts every version up to
/// [`VERSION`](Self::VERSION), and refuses a newer one by name. Should such a change ever be needed, release
/// N + 1 reads both versions and writes the old one, and N + 2 writes the new one: so neighbouring releases
/// always read each other.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Record {
    /// Who it is: its names and its instance id, as in the key.
    pub instance: InstancePath,
    /// The lease that the record is tied to now.
    pub lease: LeaseId,
    /// How often the instance has had a lease, from 1.
    pub epoch: u64,
    /// Does it want requests? Others are used only when none is ready.
    pub ready: bool,
    /// How its requests and items are written.
    pub codec: Codec,
    /// Every way in: how to reach it, by transport. May hold transports that this library does not know.
    pub transport: BTreeMap<String, String>,
    /// What it is labelled with.
    pub labels: Labels,
}

impl Record {
    /// The newest version of the format that is read, and the one that is written.
    pub const VERSION: u32 = 1;

    /// The transport over the broker; its value is the instance's subject.
    pub const BROKER: &str = "broker";
    /// The transport with requests over the broker and items over TCP; its value is the instance's subject.
    pub const NATS_TCP: &str = "nats_tcp";
    /// The transport over TCP alone; its value is an address: `host:port`, or `tls://host:port` where TLS is spoken.
    pub const TCP: &str = "tcp";

    /// The record of an instance in its first epoch: ready, in JSON, without a way in and without labels.
    pub fn new(instance: InstancePath, lease: LeaseId) -> Self {
        Self {
            instance,
            lease,
            epoch: 1,
            ready: true,
            codec: Codec::default(),
            transport: BTreeMap::new(),
            labels: Labels::new(),
        }
    }

    /// In this epoch.
    #[must_use]
    pub fn with_epoch(mut self, epoch: u64) -> Self {
        self.epoch = epoch;
        self
    }

    /// Ready for requests, or not.
    #[must_use]
    pub fn with_ready(mut self, ready: bool) -> Self {
        self.ready = ready;
        self
    }

    /// In this codec.
    #[must_use]
    pub fn with_codec(mut self, codec: Codec) -> Self {
        self.codec = codec;
        self
    }

    /// With one more way in, such as [`BROKER`](Self::BROKER) at the instance's subject.
    #[must_use]
    pub fn with_transport(mut self, transport: impl Into<String>, address: impl Into<String>) -> Self {
        self.transport.insert(transport.into(), address.into());
        self
    }

    /// With these labels.
    #[must_use]
    pub fn with_labels(mut self, labels: Labels) -> Self {
        self.labels = labels;
        self
    }

    /// Where the record lies.
    pub fn key(&self) -> Key {
        self.instance.key()
    }

    /// Whose instance it is.
    pub fn endpoint(&self) -> &EndpointPath {
        self.instance.endpoint()
    }

    /// Writes the record.
    pub fn encode(&self) -> Bytes {
        let endpoint = self.endpoint();
        let stored = Stored {
            component: endpoint.component().name().to_string(),
            endpoint: endpoint.name().to_string(),
            namespace: endpoint.component().namespace().name().to_string(),
            lease_id: self.lease,
            transport: self.transport.clone(),
            instance_id: Some(self.instance.id()),
            epoch: self.epoch,
            version: Self::VERSION,
            ready: self.ready,
            codec: self.codec,
            labels: self.labels.clone(),
        };
        serde_json::to_vec(&stored).expect("numbers and text by text are always written").into()
    }

    /// Reads the record that lies under a key.
    ///
    /// # Errors
    /// Each names the key. [`Error::Unsupported`] if the record's version is newer than
    /// [`VERSION`](Self::VERSION); [`Error::Invalid`] if the key is no instance's, if the value is no record,
    /// or if the two disagree on who the instance is.
    pub fn decode(key: &Key, value: &[u8]) -> Result<Self> {
        let instance = InstancePath::from_key(key)?;
        let invalid = |problem: String| Error::invalid("record", key.as_str(), problem);
        let unreadable = |error: serde_json::Error| invalid(error.to_string());
        // The version first and alone: of a newer one nothing else can be relied on.
        let Versioned { version } = serde_json::from_slice(value).map_err(unreadable)?;
        if version > Self::VERSION {
            let hint = format!("versions up to {} are read here; a newer release is needed", Self::VERSION);
            return Err(Error::unsupported(format!("version {version} of record {key}"), hint));
        }
        let stored: Stored = serde_json::from_slice(value).map_err(unreadable)?;
        stored.disagreement(&instance).map_or(Ok(()), |problem| Err(invalid(problem)))?;
        Ok(Self {
            instance,
            lease: stored.lease_id,
            epoch: stored.epoch,
            ready: stored.ready,
            codec: stored.codec,
            transport: stored.transport,
            labels: stored.labels,
        })
    }
}

/// The JSON, with what is assumed where a field is missing.
#[derive(Serialize, Deserialize)]
struct Stored {
    component: String,
    endpoint: String,
    namespace: String,
    lease_id: LeaseId,
    #[serde(deserialize_with = "text_only")]
    transport: BTreeMap<String, String>,
    /// The first lease's id: without it, the record was never moved to another.
    instance_id: Option<u64>,
    #[serde(default = "first_epoch")]
    epoch: u64,
    #[serde(default = "first_version")]
    version: u32,
    #[serde(default = "ready")]
    ready: bool,
    #[serde(default)]
    codec: Codec,
    #[serde(default)]
    labels: Labels,
}

impl Stored {
    /// Where the record says something other than its key.
    fn disagreement(&self, key: &InstancePath) -> Option<String> {
        let component = key.endpoint().component();
        let names = [
            ("namespace", self.namespace.as_str(), component.namespace().name().as_str()),
            ("component", self.component.as_str(), component.name().as_str()),
            ("endpoint", self.endpoint.as_str(), key.endpoint().name().as_str()),
        ];
        if let Some((field, value, key)) = names.into_iter().find(|(_, value, key)| value != key) {
            return Some(format!("its {field} is {value:?}, but that of its key is {key:?}"));
        }
        let id = self.instance_id.unwrap_or(self.lease_id.0);
        (id != key.id()).then(|| format!("its instance id is {id:x}, but that of its key is {:x}", key.id()))
    }
}

#[derive(Deserialize)]
struct Versioned {
    #[serde(default = "first_version")]
    version: u32,
}

fn first_epoch() -> u64 {
    1
}

fn first_version() -> u32 {
    1
}

fn ready() -> bool {
    true
}

/// Skips transports whose value is no text: they are none of ours.
fn text_only<'de, D: Deserializer<'de>>(reader: D) -> Result<BTreeMap<String, String>, D::Error> {
    let all = BTreeMap::<String, serde_json::Value>::deserialize(reader)?;
    let text = |(name, value)| match value {
        serde_json::Value::String(address) => Some((name, address)),
        _ => None,
    };
    Ok(all.into_iter().filter_map(text).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::name::{Deployment, Reference};

    const ID: u64 = 0x1a2b_3c4d;

    fn instance(reference: &str, id: u64) -> InstancePath {
        let reference: Reference = reference.parse().unwrap();
        reference.path(&Deployment::default()).unwrap().instance(id)
    }

    fn generate() -> Record {
        let instance = instance("dynamo/processor/generate", ID);
        let subject = instance.subject();
        Record::new(instance, LeaseId(ID)).with_transport(Record::BROKER, subject.as_str())
    }

    fn decode(key: &Key, value: Value) -> Result<Record> {
        Record::decode(key, value.to_string().as_bytes())
    }

    /// The record with one field replaced.
    fn changed(field: &str, value: Value) -> Value {
        let mut record: Value = serde_json::from_slice(&generate().encode()).unwrap();
        record[field] = value;
        record
    }

    /// The document's record, letter by letter, is read, and what it lacks is filled in.
    #[test]
    fn the_documents_record_is_read() {
        let value = r#"{
            "component": "processor",
            "endpoint": "generate",
            "namespace": "dynamo",
            "lease_id": 123456789,
            "transport": { "nats_tcp": "dynamo|processor.generate-1a2b3c4d" }
        }"#;
        let instance = instance("dynamo/processor/generate", 123_456_789);
        let record = Record::decode(&instance.key(), value.as_bytes()).unwrap();
        let expected = Record::new(instance, LeaseId(123_456_789))
            .with_transport(Record::NATS_TCP, "dynamo|processor.generate-1a2b3c4d");
        assert_eq!(record, expected);
        assert_eq!((record.epoch, record.ready, record.codec), (1, true, Codec::Json));
    }

    /// The stored form is fixed: names, types and all.
    #[test]
    fn the_stored_form_is_fixed() {
        let labels = Labels::new().with("zone", "eu").unwrap();
        let record = generate().with_epoch(2).with_ready(false).with_codec(Codec::MessagePack);
        let stored: Value = serde_json::from_slice(&record.with_labels(labels).encode()).unwrap();
        let expected = json!({
            "component": "processor",
            "endpoint": "generate",
            "namespace": "dynamo",
            "lease_id": 439_041_101,
            "transport": { "broker": "dynamo|processor.generate-1a2b3c4d" },
            "instance_id": 439_041_101,
            "epoch": 2,
            "version": 1,
            "ready": false,
            "codec": "msgpack",
            "labels": { "zone": "eu" },
        });
        assert_eq!(stored, expected);
    }

    /// A record from the future: what a newer release adds is skipped.
    #[test]
    fn additions_of_a_newer_release_are_skipped() {
        let record = generate();
        let mut value = changed("shards", json!([1, { "of": 2 }]));
        value["transport"]["quic"] = json!("[::1]:7000");
        value["transport"]["rdma"] = json!({ "device": "mlx5_0", "port": 1 });
        let read = decode(&record.key(), value).unwrap();
        assert_eq!(read, record.with_transport("quic", "[::1]:7000"));
    }

    /// A record from the future of a version that would be misread is refused by name, whatever it holds.
    #[test]
    fn a_newer_version_is_refused_by_name() {
        let key = generate().key();
        let error = decode(&key, json!({ "version": 2, "transport": ["entirely", "new"] })).unwrap_err();
        assert!(matches!(error, Error::Unsupported { .. }), "{error:?}");
        assert!(error.to_string().contains("version 2 of record dynamo/components/processor/"), "{error}");
    }

    /// A record that does not belong to its key is refused, whichever part differs.
    #[test]
    fn a_record_agrees_with_its_key() {
        let record = generate();
        for (field, value, said) in [
            ("namespace", json!("Dynamo"), "namespace is \"Dynamo\""),
            ("component", json!("router"), "component is \"router\""),
            ("endpoint", json!("generate/all"), "endpoint is \"generate/all\""),
            ("instance_id", json!(1), "instance id is 1,"),
        ] {
            let error = decode(&record.key(), changed(field, value)).unwrap_err().to_string();
            assert!(error.contains(said) && error.contains(record.key().as_str()), "{error}");
        }
        let mut moved = changed("lease_id", json!(7));
        moved.as_object_mut().unwrap().remove("instance_id");
        let error = decode(&record.key(), moved).unwrap_err().to_string();
        assert!(error.contains("instance id is 7,"), "{error}");
        // After the loss of a lease the two ids differ, and the key keeps the first.
        assert_eq!(decode(&record.key(), changed("lease_id", json!(7))).unwrap().lease, LeaseId(7));
    }

    /// What cannot be read is a typed error that names the key and what is wrong.
    #[test]
    fn an_unreadable_record_is_named() {
        let key = generate().key();
        for (field, value, said) in [
            ("lease_id", json!("7"), "expected u64"),
            ("lease_id", json!(-7), "expected u64"),
            ("transport", json!("broker"), "expected a map"),
            ("ready", json!(null), "expected a boolean"),
            ("version", json!("1"), "expected u32"),
            ("codec", json!("cbor"), "allowed: [\"json\", \"msgpack\"]"),
            ("labels", json!({ "weight": "heavy" }), "whole number"),
        ] {
            let error = decode(&key, changed(field, value)).unwrap_err();
            assert!(matches!(&error, Error::Invalid { what: "record", input, .. } if input == key.as_str()));
            assert!(error.to_string().contains(said), "{error}");
        }
        for field in ["component", "endpoint", "namespace", "lease_id", "transport"] {
            let mut value: Value = serde_json::from_slice(&generate().encode()).unwrap();
            value.as_object_mut().unwrap().remove(field);
            let error = decode(&key, value).unwrap_err().to_string();
            assert!(error.contains(&format!("missing field `{field}`")), "{error}");
        }
        let foreign = Deployment::default().store_key();
        assert!(Record::decode(&foreign, &generate().encode()).is_err());
    }

    prop_compose! {
        fn records()(
            id in any::<u64>(),
            lease in any::<u64>(),
            epoch in any::<u64>(),
            ready in any::<bool>(),
            codec in prop::sample::select(&Codec::ALL[..]),
            transport in prop::collection::btree_map(any::<String>(), any::<String>(), 0..4),
            labels in prop::collection::btree_map("[a-z]{1,9}([./][a-z]{1,9})?", "[^\\pC]{0,60}", 0..4),
        ) -> Record {
            let mut record = Record::new(instance("a.b/C/d/e", id), LeaseId(lease));
            record = record.with_epoch(epoch).with_ready(ready).with_codec(codec);
            record.transport = transport;
            record.with_labels(labels.into_iter().fold(Labels::new(), |all, (name, value)| {
                all.clone().with(name, value).unwrap_or(all)
            }))
        }
    }

    proptest! {
        /// What is written is read back, with every digit of its ids.
        #[test]
        fn records_come_back(record in records()) {
            prop_assert_eq!(Record::decode(&record.key(), &record.encode()).unwrap(), record);
        }

        /// D29: whatever lies under a key is a record or a typed error that names the key, never a panic.
        #[test]
        fn d29_any_bytes_are_a_record_or_an_error(
            record in records(),
            noise in prop::collection::vec(any::<u8>(), 0..100),
            flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        ) {
            let mut flipped = record.encode().to_vec();
            for (at, byte) in flips {
                let at = at.index(flipped.len());
                flipped[at] = byte;
            }
            for value in [noise, flipped] {
                match Record::decode(&record.key(), &value) {
                    Ok(read) => prop_assert_eq!(read.instance, record.instance.clone()),
                    Err(error) => prop_assert!(error.to_string().contains(record.key().as_str()), "{}", error),
                }
            }
        }
    }
}
