use slipring::name::{Deployment, Reference};
use slipring::record::Record;
use slipring_core::{Bytes, Key, LeaseId, Result};

/// The endpoint of [`records`].
pub const ENDPOINT: &str = "bench/worker/generate";

/// The keys and values of so many instances of [`ENDPOINT`], as their runtimes would write them.
///
/// # Errors
/// None: the type is that of parsing names.
pub fn records(instances: u64) -> Result<Vec<(Key, Bytes)>> {
    let endpoint = ENDPOINT.parse::<Reference>()?.path(&Deployment::default())?;
    let record = |id| {
        let instance = endpoint.instance(id);
        let subject = instance.subject();
        Record::new(instance, LeaseId(id)).with_transport(Record::BROKER, subject.as_str())
    };
    Ok((1..=instances).map(record).map(|record| (record.key(), record.encode())).collect())
}
