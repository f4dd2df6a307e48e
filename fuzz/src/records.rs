//! Records as they lie in a store that anybody may write to.

use slipring::record::Record;
use slipring_core::{Error, Key};

/// A record: a key, a line break, and its value. What is accepted lies under its own key and survives being
/// written; what is refused is refused by the name of its key.
pub fn records(data: &[u8]) {
    let Some(end) = data.iter().position(|byte| *byte == b'\n') else { return };
    let (key, value) = (&data[..end], &data[end + 1..]);
    let Ok(key) = std::str::from_utf8(key).map_err(drop).and_then(|text| Key::new(text).map_err(drop)) else {
        return;
    };
    match Record::decode(&key, value) {
        Ok(record) => {
            assert_eq!(record.key(), key);
            let again =
                Record::decode(&key, &record.encode()).expect("what was read can be written and read");
            assert_eq!(again, record);
        }
        Err(error @ (Error::Invalid { .. } | Error::Unsupported { .. })) => {
            assert!(error.to_string().contains(key.as_str()), "{error}");
        }
        Err(error) => panic!("{error:?}"),
    }
}
