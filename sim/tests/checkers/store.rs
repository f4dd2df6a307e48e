//! K, and W8, which the commit order shows.

use slipring_core::{Commit, Effect, Range, ReadConsistency, Revision, Txn};
use slipring_sim::history::{Event, Failure, TxnStep};

use crate::cases;
use crate::story::{SECOND, Story, applied, delete, entry, key, put, snapshot};

fn creates(name: &str) -> Txn {
    Txn::new().absent(key(name)).put(key(name), "", None)
}

fn puts(name: &str) -> Txn {
    Txn::new().put(key(name), "", None)
}

fn read(story: Story, range: Range, revision: u64, entries: &[(u64, &str)]) -> Story {
    let entries = entries.iter().map(|(revision, name)| entry(*revision, name, None));
    let snapshot = snapshot(revision, entries);
    let sent = snapshot_sent(&story);
    story.then(Event::Read { sent, range, snapshot })
}

/// It is answered a second after it was sent.
fn snapshot_sent(story: &Story) -> std::time::Duration {
    story.history().moments().last().map(|moment| moment.at).unwrap_or_default() + SECOND
}

cases! {
    /// A transaction is refused although its guards hold.
    k1_a_refusal_has_a_reason, "K1", |broken| {
        let story = Story::new().when(!broken, |story| story.commit(2, [put(2, "a")]));
        story.send(1, creates("a")).answer(1, Ok(Commit::Refused))
    };
    /// A caller is told another outcome than there was.
    k1_an_answer_is_the_outcome, "K1", |broken| {
        let story = Story::new().send(1, puts("a")).commit(2, [put(2, "a")]);
        let story = story.txn(1, TxnStep::Executed(applied(2)));
        story.txn(1, TxnStep::Answered(if broken { Ok(Commit::Refused) } else { applied(2) }))
    };
    /// What is committed is something else than was sent.
    k1_a_commit_is_what_was_sent, "K1", |broken| {
        let name = if broken { "b" } else { "a" };
        Story::new().send(1, puts("a")).commit(2, [put(2, name)]).answer(1, applied(2))
    };
    /// A linearizable read misses what was committed before it was sent.
    k1_a_read_is_not_stale, "K1", |broken| {
        let story = Story::new().commit(2, [put(2, "a")]).commit(3, [put(3, "a")]).wait(2 * SECOND);
        let seen = if broken { 2 } else { 3 };
        read(story, Range::All, seen, &[(seen, "a")])
    };
    /// A revision is left out.
    k2_revisions_are_counted, "K2", |broken| {
        let next = if broken { 4 } else { 3 };
        Story::new().commit(2, [put(2, "a")]).commit(next, [put(next, "a")])
    };
    /// A revision comes twice.
    k2_a_revision_comes_once, "K2", |broken| {
        let next = if broken { 2 } else { 3 };
        Story::new().commit(2, [put(2, "a")]).commit(next, [put(next, "a")])
    };
    /// Nothing happens in a revision.
    k2_a_revision_changes_something, "K2", |broken| Story::new().when(broken, |story| story.commit(2, []));
    /// A refused transaction makes a revision.
    k3_a_refusal_changes_nothing, "K3", |broken| {
        let story = Story::new().commit(2, [put(2, "a")]).send(1, creates("a"));
        story.when(broken, |story| story.commit(3, [put(3, "a")])).answer(1, Ok(Commit::Refused))
    };
    /// A deletion of what is not there makes a revision.
    k3_no_op_makes_no_revision, "K3", |broken| {
        let story = Story::new().commit(2, [put(2, "b")]).send(1, Txn::new().delete(key("a")));
        let story = story.when(broken, |story| story.commit(3, [put(3, "b")]));
        story.answer(1, applied(if broken { 3 } else { 2 }))
    };
    /// A write bears another revision than its commit.
    k4_writes_bear_their_revision, "K4", |broken| {
        Story::new().commit(2, [put(2, "a")]).commit(3, [put(3, "b"), put(if broken { 2 } else { 3 }, "c")])
    };
    /// A key is written twice at one revision.
    k4_a_key_is_written_once, "K4", |broken| {
        Story::new().commit(2, [put(2, "a"), put(2, if broken { "a" } else { "b" })])
    };
    /// A guard takes a key that was deleted and written anew for the old one.
    k5_a_new_key_is_another, "K5", |broken| {
        let story = Story::new().commit(2, [put(2, "a")]).commit(3, [delete("a")]).commit(4, [put(4, "a")]);
        let txn = Txn::new().unchanged(key("a"), Revision(if broken { 2 } else { 4 })).put(key("a"), "", None);
        story.send(1, txn).commit(5, [put(5, "a")]).answer(1, applied(5))
    };
    /// A read shows a key that is not there.
    k6_a_read_shows_its_revision, "K6", |broken| {
        let story = Story::new().commit(2, [put(2, "a")]).commit(3, [put(3, "b")]).wait(2 * SECOND);
        let entries: &[_] = if broken { &[(2, "a")] } else { &[(2, "a"), (3, "b")] };
        read(story, Range::All, 3, entries)
    };
    /// A read shows a key beyond its range.
    k7_a_read_keeps_to_its_range, "K7", |broken| {
        let story = Story::new().commit(2, [put(2, "a"), put(2, "b")]).wait(2 * SECOND);
        let entries: &[_] = if broken { &[(2, "a"), (2, "b")] } else { &[(2, "a")] };
        read(story, Range::Key(key("a")), 2, entries)
    };
    /// A read shows keys in another order than theirs.
    k7_a_read_is_in_order, "K7", |broken| {
        let story = Story::new().commit(2, [put(2, "a"), put(2, "b")]).wait(2 * SECOND);
        let entries: &[_] = if broken { &[(2, "b"), (2, "a")] } else { &[(2, "a"), (2, "b")] };
        read(story, Range::All, 2, entries)
    };
    /// Two of two that create a key are told that they did.
    k8_one_creates, "K8", |broken| {
        let story = Story::new().send(1, creates("a")).commit(2, [put(2, "a")]).answer(1, applied(2));
        let story = story.send(2, creates("a"));
        if broken {
            story.commit(3, [put(3, "a")]).answer(2, applied(3))
        } else {
            story.answer(2, Ok(Commit::Refused))
        }
    };
    /// A write is executed twice.
    k9_a_write_is_executed_once, "K9", |broken| {
        let story = Story::new().send(1, puts("a")).commit(2, [put(2, "a")]).txn(1, TxnStep::Executed(applied(2)));
        story.when(broken, |story| {
            let again = story.txn(1, TxnStep::Arrived).commit(3, [put(3, "a")]);
            again.txn(1, TxnStep::Executed(applied(3)))
        })
    };
    /// A write is applied whose caller was told that it would not be.
    k9_no_effect_is_none, "K9", |broken| {
        let effect = if broken { Effect::None } else { Effect::Unknown };
        let story = Story::new().send(1, puts("a")).commit(2, [put(2, "a")]).txn(1, TxnStep::Executed(applied(2)));
        story.txn(1, TxnStep::Answered(Err(Failure { code: "unavailable", effect })))
    };
    /// A write is acknowledged, and committed nowhere.
    k10_what_is_acknowledged_is_committed, "K10", |broken| {
        let story = Story::new().send(1, puts("a")).when(!broken, |story| story.commit(2, [put(2, "a")]));
        story.answer(1, applied(2))
    };
    /// A client of a store with sequential reads sees time go back.
    k11_a_client_does_not_go_back, "K11", |broken| {
        let story = Story::new().judged(|terms| terms.profile.discovery.read = ReadConsistency::Sequential);
        let story = story.commit(2, [put(2, "a")]).commit(3, [put(3, "a")]).wait(2 * SECOND);
        let story = read(story, Range::All, 3, &[(3, "a")]).wait(2 * SECOND);
        let seen = if broken { 2 } else { 3 };
        read(story, Range::All, seen, &[(seen, "a")])
    };
    /// What is not there is deleted.
    w8_a_deletion_is_of_what_was_there, "W8", |broken| {
        Story::new().commit(2, [put(2, if broken { "b" } else { "a" })]).commit(3, [delete("a")])
    };
}
