//! L.

use std::time::Duration;

use slipring_core::{Change, Entry, Fact, Lease, LeaseId, Revision, Txn};
use slipring_memory::store::{LeaseEnd, StoreEvent};
use slipring_sim::Fault;
use slipring_sim::history::{Call, Event};

use crate::cases;
use crate::story::{LEASE, SECOND, Story, TTL, applied, delete, key, leased, put};

fn granted() -> Story {
    Story::new().store(StoreEvent::Granted(LEASE))
}

fn renewed() -> StoreEvent {
    StoreEvent::Renewed(LEASE)
}

/// A call about the lease is answered well, a second after it was sent.
fn answered(story: Story, call: Call, sent: Duration) -> Story {
    story.then(Event::Answered { call, sent, lease: Some(LEASE.id), code: None })
}

/// A runtime with its lease, which it was granted at once.
fn held() -> Story {
    let story = answered(granted(), Call::Grant, Duration::ZERO);
    let story = story.then(Event::Leased { asked: TTL, lease: LEASE });
    story.fact(Fact::LeaseHeld { instance: 1, lease: LEASE.id, epoch: 1 })
}

fn accepted() -> Fact {
    Fact::RequestAccepted { endpoint: "n/c/e".into(), instance: 1, epoch: Some(1) }
}

/// A request was sent to the instance.
fn chosen() -> Fact {
    Fact::RouteChosen { endpoint: "n/c/e".into(), instance: 1, revision: Revision(1) }
}

fn beat(story: Story, after: Duration) -> Story {
    let story = story.wait(after);
    let sent = after;
    answered(story.store(renewed()), Call::KeepAlive, sent)
}

fn stamped(revision: u64, epoch: u64) -> Change {
    let value = format!(r#"{{"instance_id":1,"epoch":{epoch}}}"#);
    let (key, modified) = (key("n/components/c/e:1"), Revision(revision));
    Change::Put(Entry { key, value: value.into(), modified, lease: None })
}

fn step(step: &'static str) -> Fact {
    Fact::LifecycleChanged { endpoint: "n/c/e".into(), instance: 1, step }
}

cases! {
    /// A lease ends before its time.
    l1_no_lease_ends_early, "L1", |broken| {
        granted().wait(if broken { TTL - SECOND } else { TTL }).expire(LEASE.id)
    };
    /// A lease that was renewed ends before its time.
    l1_a_renewal_counts, "L1", |broken| {
        let story = granted().wait(SECOND).when(broken, |story| story.store(renewed()));
        story.wait(TTL - SECOND).expire(LEASE.id)
    };
    /// A lease ends long after its time.
    l2_no_lease_ends_late, "L2", |broken| {
        granted().wait(TTL + if broken { SECOND } else { SECOND / 2 }).expire(LEASE.id)
    };
    /// A lease is there long after its time.
    l2_no_lease_stays, "L2", |broken| {
        let story = granted().wait(TTL).when(!broken, |story| story.expire(LEASE.id));
        story.wait(SECOND).commit(2, [put(2, "a")])
    };
    /// A key of a lease outlives it.
    l3_all_keys_go, "L3", |broken| {
        let story = granted().commit(2, [leased(2, "a"), leased(2, "b")]).wait(TTL).expire(LEASE.id);
        story.commit(3, if broken { vec![delete("a")] } else { vec![delete("a"), delete("b")] })
    };
    /// The keys of a lease go in another order than theirs.
    l3_keys_go_in_order, "L3", |broken| {
        let story = granted().commit(2, [leased(2, "a"), leased(2, "b")]).wait(TTL).expire(LEASE.id);
        story.commit(3, if broken { [delete("b"), delete("a")] } else { [delete("a"), delete("b")] })
    };
    /// A put without a lease leaves its key attached.
    l4_a_put_detaches, "L4", |broken| {
        let story = granted().send(1, Txn::new().put(key("a"), "", None));
        story.commit(2, [if broken { leased(2, "a") } else { put(2, "a") }]).answer(1, applied(2))
    };
    /// A heartbeat is acknowledged that was sent after the end of its lease.
    l5_what_is_gone_is_not_renewed, "L5", |broken| {
        let story = granted().wait(TTL).expire(LEASE.id).wait(2 * SECOND);
        story.when(broken, |story| answered(story, Call::KeepAlive, TTL + SECOND))
    };
    /// A lease is revoked twice.
    l5_a_revocation_ends, "L5", |broken| {
        let revoked = StoreEvent::Ended { lease: LEASE.id, end: LeaseEnd::Revoked };
        let story = answered(granted().wait(SECOND).store(revoked), Call::Revoke, Duration::ZERO);
        story.wait(2 * SECOND).when(broken, |story| answered(story, Call::Revoke, 2 * SECOND))
    };
    /// A lease is renewed at the end of its time.
    l5_a_renewal_is_in_time, "L5", |broken| {
        granted().wait(if broken { TTL } else { TTL - SECOND }).store(renewed())
    };
    /// A heartbeat is acknowledged that renewed nothing.
    l6_an_acknowledged_heartbeat_renews, "L6", |broken| {
        let story = granted().wait(SECOND).when(!broken, |story| story.store(renewed()));
        answered(story.wait(SECOND), Call::KeepAlive, SECOND)
    };
    /// A new leader gives a lease its time, and ends it before.
    l7_a_new_leader_keeps_its_word, "L7", |broken| {
        let story = granted().wait(2 * SECOND).store(StoreEvent::Revived { by: SECOND });
        story.wait(if broken { TTL } else { TTL + SECOND }).expire(LEASE.id)
    };
    /// A new leader gives a lease more than its time and an election's.
    l7_an_extension_is_bounded, "L7", |broken| {
        granted().store(StoreEvent::Revived { by: if broken { TTL } else { SECOND } })
    };
    /// A lease is granted for less than was asked for.
    l8_no_less_than_asked_for, "L8", |broken| {
        granted().then(Event::Leased { asked: if broken { 2 * TTL } else { TTL }, lease: LEASE })
    };
    /// A holder is told another time than was granted.
    l8_the_holder_knows, "L8", |broken| {
        let told = Lease { ttl: if broken { 2 * TTL } else { TTL }, ..LEASE };
        granted().then(Event::Leased { asked: TTL, lease: told })
    };
    /// A key is written with a lease that is gone.
    l9_no_resurrection, "L9", |broken| {
        granted().wait(TTL).expire(LEASE.id).commit(2, [if broken { leased(2, "a") } else { put(2, "a") }])
    };
    /// The name of a lease comes again.
    l9_no_name_returns, "L9", |broken| {
        let story = granted().wait(TTL).expire(LEASE.id);
        story.store(StoreEvent::Granted(Lease { id: LeaseId(if broken { 1 } else { 2 }), ttl: TTL }))
    };
    /// A write of an earlier epoch is applied after one of a later epoch.
    l9_epochs_go_forward, "L9", |broken| {
        let [first, second] = if broken { [2, 1] } else { [1, 2] };
        Story::new().commit(2, [stamped(2, first)]).commit(3, [stamped(3, second)])
    };
    /// An owner accepts a request as such when its time is over.
    l10_nothing_is_accepted_without_a_lease, "L10", |broken| {
        let story = held().fact(chosen()).wait(if broken { TTL } else { TTL - SECOND }).fact(accepted());
        story.fact(Fact::LeaseLost { instance: 1, lease: LEASE.id })
    };
    /// An owner does not say that its lease is lost before others can see it.
    l10_the_owner_knows_first, "L10", |broken| {
        let lost = Fact::LeaseLost { instance: 1, lease: LEASE.id };
        let story = held().wait(TTL - SECOND).when(!broken, |story| story.fact(lost));
        story.wait(SECOND + SECOND / 4).expire(LEASE.id)
    };
    /// A heartbeat comes after more than a third of the time to live.
    l11_heartbeats_are_regular, "L11", |broken| beat(held(), if broken { TTL / 2 } else { TTL / 3 });
    /// A healthy owner is not registered again when the faults are long over.
    l12_registrations_return, "L12", |broken| {
        let fault = Fault::Cut { node: "n".to_owned(), lasts: SECOND };
        let story = Story::new().commit(2, [put(2, "n/components/c/e:1")]).fact(step("healthy"));
        let story = story.then(Event::Struck(fault.clone())).commit(3, [delete("n/components/c/e:1")]);
        let story = story.wait(SECOND).then(Event::Healed(fault)).wait(10 * SECOND);
        let story = story.when(!broken, |story| story.commit(4, [put(4, "n/components/c/e:1")]));
        story.wait(21 * SECOND).note()
    };
}
