//! SW.

use slipring_core::{Base, Fact, Prefix, Range, Revision, Told};
use slipring_sim::history::Event;

use crate::cases;
use crate::story::{SECOND, Story, entry, put, snapshot};

const PREFIX: &str = "n/components/c/e:";

fn prefix() -> String {
    PREFIX.to_owned()
}

/// A shared watch with its watch of the store, which begins with nothing.
fn watching() -> Story {
    open(Story::new().fact(Fact::WatcherStarted { prefix: prefix() }), 1, 1, [])
}

fn open<const N: usize>(story: Story, watch: u64, revision: u64, records: [(u64, &str); N]) -> Story {
    let entries = records.map(|(revision, id)| entry(revision, &format!("{PREFIX}{id}"), None));
    let range = Range::Prefix(Prefix::new(PREFIX).unwrap());
    let base = Base::Snapshot(snapshot(revision, entries));
    story.then(Event::WatchOpened { watch, range, base })
}

/// A record is committed, and shown.
fn registered(story: Story, revision: u64, id: u64) -> Story {
    let change = put(revision, &format!("{PREFIX}{id:x}"));
    story.commit(revision, [change.clone()]).show(1, revision, [change])
}

fn changed(story: Story, revision: u64, changes: &[(u64, Option<u64>)]) -> Story {
    let changes = changes.iter().map(|(id, revision)| (*id, revision.map(Revision))).collect();
    story.fact(Fact::ViewChanged { prefix: prefix(), revision: Revision(revision), instances: 1, changes })
}

fn told(story: Story, told: Told) -> Story {
    story.fact(Fact::ViewRead { prefix: prefix(), reader: 1, told })
}

fn all(records: &[(u64, u64)]) -> Told {
    Told::All(records.iter().map(|(id, revision)| (*id, Revision(*revision))).collect())
}

cases! {
    /// A view lacks an instance that it had to have.
    sw1_a_view_is_the_store, "SW1", |broken| {
        let story = registered(registered(watching(), 2, 1), 3, 2);
        let changes: &[_] = if broken { &[(3, Some(3))] } else { &[(1, Some(2)), (2, Some(3))] };
        changed(story, 3, changes)
    };
    /// Who joins is given less than there is.
    sw2_a_late_joiner_is_given_the_view, "SW2", |broken| {
        let story = changed(registered(watching(), 2, 1), 2, &[(1, Some(2))]);
        told(story, all(if broken { &[] } else { &[(1, 2)] }))
    };
    /// Two watches of the store for one shared watch.
    sw3_one_upstream, "SW3", |broken| {
        open(watching(), 2, 1, []).when(!broken, |story| story.then(Event::WatchDropped { watch: 1 }))
            .wait(2 * SECOND).note()
    };
    /// The watch of the store stays when the last user has gone.
    sw3_torn_down, "SW3", |broken| {
        let story = watching().fact(Fact::WatcherStopped { prefix: prefix() });
        story.when(!broken, |story| story.then(Event::WatchDropped { watch: 1 })).wait(2 * SECOND).note()
    };
    /// A reader misses a change, and is told that it has them all.
    sw4_a_slow_reader_misses_nothing, "SW4", |broken| {
        let story = told(watching(), all(&[]));
        let story = changed(registered(story, 2, 1), 2, &[(1, Some(2))]);
        let story = if broken { story } else { told(story, Told::Put(1, Revision(2))) };
        told(story, Told::Latest)
    };
    /// After a compaction a view keeps an instance that has gone meanwhile.
    sw5_no_phantoms, "SW5", |broken| {
        let story = changed(registered(watching(), 2, 1), 2, &[(1, Some(2))]);
        let story = story.then(Event::WatchEnded { watch: 1, code: "compacted" });
        let story = story.commit(3, [slipring_core::Change::Delete(crate::story::key(&format!("{PREFIX}1")))]);
        let story = open(story.commit(4, [put(4, &format!("{PREFIX}2"))]), 2, 4, [(4, "2")]);
        changed(story, 4, if broken { &[(2, Some(4))] } else { &[(2, Some(4)), (1, None)] })
    };
    /// Snapshots are taken again and again.
    sw7_relists_are_bounded, "SW7", |broken| {
        let story = watching().judged(|terms| terms.relists_per_minute_max = 3);
        (2..if broken { 6 } else { 4 }).fold(story, |story, watch| {
            let story = story.then(Event::WatchDropped { watch: watch - 1 });
            open(story, watch, 1, [])
        })
    };
}
