//! Steps to draw. Which lease, watch or revision a step means depends on what happened before it.

use std::time::Duration;

use proptest::prelude::*;
use slipring_core::{Key, Prefix, Range};

#[derive(Debug, Clone)]
pub(crate) enum Step {
    Read(Range),
    Commit(Vec<(Key, Condition)>, Vec<Write>),
    /// A transaction with this many keys guarded, and this many others written.
    Wide(usize, usize),
    Grant(Duration),
    KeepAlive(Which),
    Revoke(Which),
    Watch(Range, From),
    Close(usize),
    /// So many revisions before the current one.
    Compact(i64),
    /// Read all watches up to now.
    CatchUp,
}

#[derive(Debug, Clone)]
pub(crate) enum Condition {
    Absent,
    Unchanged,
    /// One revision before the last write.
    Stale,
    /// At revision 0, at which nothing ever happened.
    AtZero,
    /// At a revision that no store reaches.
    AtEnd,
}

#[derive(Debug, Clone)]
pub(crate) enum Write {
    Put(Key, Value, Option<Which>),
    Delete(Key),
}

#[derive(Debug, Clone)]
pub(crate) enum Value {
    /// Of 0 to 2 bytes.
    Short(u8),
    /// Longer than the longest that is allowed, by so many bytes.
    Limit(isize),
}

/// A lease.
#[derive(Debug, Clone)]
pub(crate) enum Which {
    /// One of those that were granted, ended or not.
    Granted(usize),
    /// One that never was.
    Unknown(u64),
}

/// Where a watch starts.
#[derive(Debug, Clone)]
pub(crate) enum From {
    Snapshot,
    /// So many revisions before the current one.
    Back(i64),
    /// At a revision that no store reaches.
    AtEnd,
}

/// Keys that try the borders of prefixes, the order of bytes, and what text a key may be.
const KEYS: [&str; 10] = ["a", "a/", "a/x", "a/x:1", "a//y", "a0", "a:", "ab/x", "é/ \u{10ffff}", "-"];

const PREFIXES: [&str; 7] = ["a/", "a/x:", "a//", "a:", "ab/", "é/", "z/"];

fn key() -> impl Strategy<Value = Key> {
    let long = "k".repeat(Key::BYTES_MAX);
    prop_oneof![
        30 => prop::sample::select(&KEYS[..]).prop_map(|text| Key::new(text).unwrap()),
        1 => Just(Key::new(long).unwrap()),
    ]
}

fn range() -> impl Strategy<Value = Range> {
    prop_oneof![
        Just(Range::All),
        key().prop_map(Range::Key),
        prop::sample::select(&PREFIXES[..]).prop_map(|text| Range::Prefix(Prefix::new(text).unwrap())),
    ]
}

fn which() -> impl Strategy<Value = Which> {
    prop_oneof![
        12 => (0_usize..8).prop_map(Which::Granted),
        1 => prop::sample::select(&[0, 1, 1 << 60, u64::MAX][..]).prop_map(Which::Unknown),
    ]
}

/// A lease for a put. One that etcd cannot even name is left out: the adapter refuses it before any guard is
/// looked at, the simulator after, and neither does anything.
fn lease() -> impl Strategy<Value = Which> {
    which().prop_map(|which| match which {
        Which::Unknown(_) => Which::Unknown(1),
        granted => granted,
    })
}

fn condition() -> impl Strategy<Value = Condition> {
    prop_oneof![
        6 => Just(Condition::Unchanged),
        6 => Just(Condition::Absent),
        3 => Just(Condition::Stale),
        1 => Just(Condition::AtZero),
        1 => Just(Condition::AtEnd),
    ]
}

fn write() -> impl Strategy<Value = Write> {
    let value = prop_oneof![
        200 => any::<u8>().prop_map(Value::Short),
        1 => (-1_isize..2).prop_map(Value::Limit),
    ];
    prop_oneof![
        3 => (key(), value, prop::option::weighted(0.6, lease())).prop_map(|(k, v, l)| Write::Put(k, v, l)),
        1 => key().prop_map(Write::Delete),
    ]
}

fn commit() -> impl Strategy<Value = Step> {
    let conditions = prop::collection::vec((key(), condition()), 0..3);
    (conditions, prop::collection::vec(write(), 0..5)).prop_map(|(c, w)| Step::Commit(c, w))
}

/// Whole seconds, parts of them, none, and the longest. None is short enough to end by itself.
fn ttl() -> impl Strategy<Value = Duration> {
    prop_oneof![
        10 => (60_u64..600).prop_map(Duration::from_secs),
        3 => (60_001_u64..600_000).prop_map(Duration::from_millis),
        1 => (9_000_000_000_u64..9_000_000_002).prop_map(Duration::from_secs),
        1 => Just(Duration::from_nanos(9_000_000_000_000_000_001)),
        1 => Just(Duration::ZERO),
        1 => Just(Duration::MAX),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let from = prop_oneof![
        6 => Just(From::Snapshot),
        6 => (-1_i64..8).prop_map(From::Back),
        1 => Just(From::AtEnd),
    ];
    let wide = prop::sample::select(&[1_usize, 125, 126, 127, 128, 129][..]);
    prop_oneof![
        4 => range().prop_map(Step::Read),
        24 => commit(),
        1 => (0_usize..4, wide).prop_map(|(guarded, written)| Step::Wide(guarded, written)),
        6 => ttl().prop_map(Step::Grant),
        4 => which().prop_map(Step::KeepAlive),
        4 => which().prop_map(Step::Revoke),
        6 => (range(), from).prop_map(|(range, from)| Step::Watch(range, from)),
        2 => (0_usize..6).prop_map(Step::Close),
        3 => (-1_i64..8).prop_map(Step::Compact),
        2 => Just(Step::CatchUp),
    ]
}

/// A sequence. Its leases end by being revoked.
pub(crate) fn steps() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(step(), 1..40)
}
