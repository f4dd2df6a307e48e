use std::time::Duration;

use etcd_client::LeaseGrantOptions;
use slipring_core::{Effect, Environment, Error, Lease, LeaseId, Result};

use crate::connection::{Connection, Unanswered};
use crate::error::{ETCD, error_of, is_lease_taken, is_lease_unknown};

/// The longest lease, in seconds.
const TTL_SECONDS_MAX: u64 = 9_000_000_000;
/// Ids are below 2^53, so that readers of JSON keep every digit.
const ID_BITS: u32 = 53;
/// How many ids are tried until a fresh one is found.
const IDS_MAX: usize = 8;

/// Grants a lease under an id that was never used. Ids are drawn, and not given by the server, because in the
/// half second after its end a lease would be mistaken for its successor of the same id.
pub(crate) async fn grant(
    connection: &Connection,
    environment: &dyn Environment,
    ttl: Duration,
) -> Result<Lease> {
    let seconds = ttl.as_secs().saturating_add(u64::from(ttl.subsec_nanos() > 0));
    if seconds == 0 || seconds > TTL_SECONDS_MAX {
        let problem = format!("allowed: more than 0s, up to {TTL_SECONDS_MAX}s");
        return Err(Error::invalid("ttl", format!("{ttl:?}"), problem));
    }
    for _ in 0..IDS_MAX {
        let id = environment.random("lease id") >> (u64::BITS - ID_BITS);
        if id == 0 {
            continue;
        }
        let request = |client: etcd_client::Client| async move {
            let options = LeaseGrantOptions::new().with_id(id as i64);
            client.lease_client().grant(seconds as i64, Some(options)).await
        };
        match connection.call(Effect::Unknown, request).await? {
            Ok(granted) => {
                return Ok(Lease { id: LeaseId(id), ttl: seconds_of(granted.ttl()) });
            }
            Err(error) if is_lease_taken(&error) => {}
            Err(error) => return Err(error_of(&error, Effect::Unknown)),
        }
    }
    Err(Error::unavailable(ETCD, format!("no lease id that is free among {IDS_MAX}"), Effect::None))
}

/// One heartbeat. Only the holder of the lease knows how long it may take. Dropped unanswered, it has the next
/// one dial another server.
///
/// Each has a stream of its own, because etcd answers the heartbeat of a lease that is past its end not
/// before the lease is deleted, and lets all behind it wait.
pub(crate) async fn keep_alive(connection: &Connection, lease: LeaseId) -> Result<Duration> {
    let id = id_on_the_wire(lease)?;
    let link = connection.link().await?;
    let unanswered = Unanswered::new(|| connection.give_up(&link));
    let mut client = link.client.lease_client();
    let beat = async {
        // The client swallows the first answer, so the time to live comes with the second.
        let (mut keeper, mut answers) = client.keep_alive(id).await?;
        keeper.keep_alive().await?;
        answers.message().await
    };
    let granted = beat.await;
    unanswered.answered();
    match granted {
        Ok(Some(answer)) if answer.ttl() > 0 => Ok(seconds_of(answer.ttl())),
        Ok(Some(_)) => Err(Error::lease_lost(lease)),
        Ok(None) => Err(Error::unavailable(ETCD, "the heartbeat was not answered", Effect::Unknown)),
        Err(error) if is_lease_unknown(&error) => Err(Error::lease_lost(lease)),
        Err(error) => Err(error_of(&error, Effect::Unknown)),
    }
}

/// Ends a lease.
pub(crate) async fn revoke(connection: &Connection, lease: LeaseId) -> Result<()> {
    let id = id_on_the_wire(lease)?;
    let request = |client: etcd_client::Client| async move { client.lease_client().revoke(id).await };
    match connection.call(Effect::Unknown, request).await? {
        Ok(_) => Ok(()),
        Err(error) if is_lease_unknown(&error) => Err(Error::lease_lost(lease)),
        Err(error) => Err(error_of(&error, Effect::Unknown)),
    }
}

/// A lease as etcd writes it.
///
/// # Errors
/// `LeaseLost` for what never was a lease. 0 above all, which etcd takes for "no lease".
pub(crate) fn id_on_the_wire(lease: LeaseId) -> Result<i64> {
    i64::try_from(lease.0).ok().filter(|id| *id > 0).ok_or(Error::lease_lost(lease))
}

fn seconds_of(seconds: i64) -> Duration {
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}
