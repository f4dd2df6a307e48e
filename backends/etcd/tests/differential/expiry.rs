//! Natural expiry: many leases that end by themselves, at about the same time.
//!
//! Which of two leases that are due together ends first is up to the store, and so are the revisions: what has
//! to agree is what each end deletes, in which order, and what is left. How late they end is measured.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::StreamExt;
use proptest::collection::vec;
use proptest::prelude::*;
use slipring_core::{Batch, Change, Discovery, DiscoveryExt, Entry, Key, LeaseId, Range, Start, Watch};
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::memory::profile;

/// How long an end is waited for that has to come.
const WAIT_MAX: Duration = Duration::from_secs(10);
/// How often the store is asked to do something, to see how busy the machine is.
const PULSE: Duration = Duration::from_millis(50);

/// One lease: how long it lives, how many keys it has, and what happens to it.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub seconds: u64,
    pub keys: usize,
    pub fate: Fate,
}

#[derive(Debug, Clone)]
pub(crate) enum Fate {
    Expires,
    /// Later, after a heartbeat.
    IsKeptOnce,
    IsRevoked,
    /// And its first key is moved to a lease that lives on.
    LosesOne,
    /// And its first key is put without a lease.
    DetachesOne,
    /// And its first key is deleted.
    DeletesOne,
}

/// Plans for a sequence. Its leases live long enough for all of them to be granted.
pub(crate) fn plans() -> impl Strategy<Value = Vec<Plan>> {
    let fate = prop_oneof![
        6 => Just(Fate::Expires),
        1 => Just(Fate::IsKeptOnce),
        1 => Just(Fate::IsRevoked),
        1 => Just(Fate::LosesOne),
        1 => Just(Fate::DetachesOne),
        1 => Just(Fate::DeletesOne),
    ];
    vec((2_u64..4, 0_usize..4, fate).prop_map(|(seconds, keys, fate)| Plan { seconds, keys, fate }), 1..16)
}

/// What came of a sequence.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// What was deleted of each lease's keys, one list for each revision.
    deleted: BTreeMap<String, Vec<Vec<Key>>>,
    /// What is left.
    left: Vec<Key>,
}

/// What was seen of one store.
#[derive(Debug)]
pub(crate) struct Seen {
    pub outcome: Outcome,
    /// How late each lease ended.
    pub delays: Vec<Duration>,
    /// How much the machine may have added to each of them: for how long in all it kept the store from writing.
    pub slack: Duration,
}

/// When a lease was granted or kept: at some moment between the call and its answer.
struct Window {
    from: Instant,
    to: Instant,
    ttl: Duration,
}

/// Carries out all plans, one lease after the other, and waits until all is over. `None` if the machine was so
/// slow that the first lease may have ended before the last plan was carried out.
///
/// # Errors
/// A lease that ended too early, or too late, or together with another.
pub(crate) async fn run(store: &dyn Discovery, plans: &[Plan]) -> Result<Option<Seen>, String> {
    let began = Instant::now();
    let shortest = plans.iter().map(|plan| plan.seconds).min().unwrap_or_default();
    let mut watch = store.watch(Range::All, Start::Snapshot).await.map_err(|error| error.to_string())?;
    let other = store.grant(Duration::from_secs(600)).await.map_err(|error| error.to_string())?.id;
    let mut windows = BTreeMap::new();
    for (at, plan) in plans.iter().enumerate() {
        match carry_out(store, at, plan, other).await {
            Ok((lease, window)) => windows.insert(lease, window),
            Err(_) if began.elapsed() >= Duration::from_secs(shortest) => return Ok(None),
            Err(error) => return Err(error.to_string()),
        };
    }
    let now = store.read(Range::All).await.map_err(|error| error.to_string())?;
    if began.elapsed() >= Duration::from_secs(shortest) {
        return Ok(None);
    }
    let mut due: BTreeMap<String, &Window> = BTreeMap::new();
    for Entry { key, lease, .. } in &now.entries {
        due.extend(lease.and_then(|lease| windows.get(&lease)).map(|window| (family(key), window)));
    }
    let mut outcome = Outcome { deleted: BTreeMap::new(), left: Vec::new() };
    // One look for ended leases removes a bounded number of them.
    let looks = due.len().div_ceil(profile().expiries_per_scan);
    let late_max = profile().expiry_granularity * u32::try_from(looks).expect("few looks");
    let slack = Cell::new(Duration::ZERO);
    let delays = tokio::select! {
        biased;
        delays = watch_ends(&mut watch, due, now.revision.0, late_max + WAIT_MAX, &mut outcome) => delays?,
        error = measure(store, &slack) => return Err(error.to_string()),
    };
    let slack = slack.get();
    if let Some(late) = delays.iter().find(|late| **late > late_max + slack) {
        return Err(format!("a lease ended {late:?} late; {late_max:?} is allowed, and {slack:?} of slack"));
    }
    let left = store.read(Range::All).await.map_err(|error| error.to_string())?;
    outcome.left = left.entries.into_iter().map(|entry| entry.key).filter(|key| *key != pulse()).collect();
    store.revoke(other).await.map_err(|error| error.to_string())?;
    Ok(Some(Seen { outcome, delays, slack }))
}

/// Writes again and again, and adds up how long that takes, with the time by which it is begun too late.
async fn measure(store: &dyn Discovery, slack: &Cell<Duration>) -> slipring_core::Error {
    loop {
        let due = Instant::now() + PULSE;
        sleep_until(due).await;
        if let Err(error) = store.put(pulse(), "".into(), None).await {
            return error;
        }
        slack.set(slack.get() + due.elapsed());
    }
}

/// What is written then.
fn pulse() -> Key {
    Key::new("pulse").unwrap()
}

async fn carry_out(
    store: &dyn Discovery,
    at: usize,
    plan: &Plan,
    other: LeaseId,
) -> slipring_core::Result<(LeaseId, Window)> {
    let from = Instant::now();
    let lease = store.grant(Duration::from_secs(plan.seconds)).await?;
    let mut window = Window { from, to: Instant::now(), ttl: lease.ttl };
    // Not in the order of the keys.
    let keys: Vec<Key> =
        (0..plan.keys).rev().map(|key| Key::new(format!("{at:04}/{key}")).unwrap()).collect();
    for key in &keys {
        store.put(key.clone(), "".into(), Some(lease.id)).await?;
    }
    match (&plan.fate, keys.into_iter().next()) {
        (Fate::IsKeptOnce, _) => {
            let from = Instant::now();
            store.keep_alive(lease.id).await?;
            window = Window { from, to: Instant::now(), ttl: lease.ttl };
        }
        (Fate::IsRevoked, _) => store.revoke(lease.id).await?,
        (Fate::LosesOne, Some(key)) => {
            store.put(key, "".into(), Some(other)).await?;
        }
        (Fate::DetachesOne, Some(key)) => {
            store.put(key, "".into(), None).await?;
        }
        (Fate::DeletesOne, Some(key)) => store.delete(key).await?,
        _ => {}
    }
    Ok((lease.id, window))
}

/// Reads until all that is due has ended, and all up to a revision was seen; how late each end was. None may be
/// later than `wait_max`.
async fn watch_ends(
    watch: &mut Watch,
    mut due: BTreeMap<String, &Window>,
    revision: u64,
    wait_max: Duration,
    outcome: &mut Outcome,
) -> Result<Vec<Duration>, String> {
    let Some(last) = due.values().map(|window| window.to + window.ttl).max() else { return Ok(Vec::new()) };
    let mut delays = Vec::new();
    while !due.is_empty() {
        let item = timeout_at(last + wait_max, watch.events.next()).await;
        let Ok(Some(Ok(Batch { revision: at, changes }))) = item else {
            return Err(format!("after {wait_max:?} there are still {:?}: {item:?}", due.keys()));
        };
        let now = Instant::now();
        let deleted: Vec<Key> = changes
            .into_iter()
            .filter_map(|change| match change {
                Change::Delete(key) => Some(key),
                Change::Put(_) => None,
            })
            .collect();
        let Some(name) = deleted.first().map(family) else { continue };
        if deleted.iter().any(|key| family(key) != name) {
            return Err(format!("two leases ended as one: {deleted:?}"));
        }
        if at.0 > revision
            && let Some(Window { from, to, ttl }) = due.remove(&name)
        {
            if now < *from + *ttl {
                return Err(format!("{name} ended {:?} too early", *from + *ttl - now));
            }
            delays.push(now.saturating_duration_since(*to + *ttl));
        }
        outcome.deleted.entry(name).or_default().push(deleted);
    }
    Ok(delays)
}

/// Which lease's key it is, or once was.
fn family(key: &Key) -> String {
    key.as_str().split('/').next().unwrap_or_default().to_owned()
}
