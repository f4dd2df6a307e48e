//! W.

use slipring_core::{Base, Range, Revision};
use slipring_memory::store::StoreEvent;
use slipring_sim::history::Event;

use crate::cases;
use crate::story::{SECOND, Story, entry, key, put};

fn resumed(story: Story, range: Range, after: u64) -> Story {
    story.then(Event::WatchOpened { watch: 1, range, base: Base::Resumed(Revision(after)) })
}

fn a_and_b() -> Story {
    Story::new().commit(2, [put(2, "a")]).commit(3, [put(3, "b")])
}

cases! {
    /// A watch goes back.
    w1_a_watch_goes_forward, "W1", |broken| {
        let story = Story::new().open(1, 1, []).commit(2, [put(2, "a")]).commit(3, [put(3, "b")]);
        let story = story.show(1, 2, [put(2, "a")]).show(1, 3, [put(3, "b")]);
        story.when(broken, |story| story.show(1, 2, [put(2, "a")]))
    };
    /// A watch shows a revision twice.
    w2_a_watch_repeats_nothing, "W2", |broken| {
        let story = Story::new().open(1, 1, []).commit(2, [put(2, "a")]).show(1, 2, [put(2, "a")]);
        story.when(broken, |story| story.show(1, 2, [put(2, "a")]))
    };
    /// A watch leaves out a revision.
    w3_a_watch_leaves_out_nothing, "W3", |broken| {
        let story = Story::new().open(1, 1, []).commit(2, [put(2, "a")]).commit(3, [put(3, "b")]);
        story.when(!broken, |story| story.show(1, 2, [put(2, "a")])).show(1, 3, [put(3, "b")])
    };
    /// A watch shows a part of a revision.
    w4_a_watch_shows_revisions_whole, "W4", |broken| {
        let story = Story::new().open(1, 1, []).commit(2, [put(2, "a"), put(2, "b")]);
        story.show(1, 2, if broken { vec![put(2, "a")] } else { vec![put(2, "a"), put(2, "b")] })
    };
    /// A watch shows the writes of a revision in another order.
    w4_a_watch_keeps_the_order, "W4", |broken| {
        let story = Story::new().open(1, 1, []).commit(2, [put(2, "a"), put(2, "b")]);
        story.show(1, 2, if broken { [put(2, "b"), put(2, "a")] } else { [put(2, "a"), put(2, "b")] })
    };
    /// A watch that goes on leaves out what came next.
    w5_resumable, "W5", |broken| {
        let story = resumed(a_and_b(), Range::All, 1);
        story.when(!broken, |story| story.show(1, 2, [put(2, "a")])).show(1, 3, [put(3, "b")])
    };
    /// Progress comes before what it says was shown.
    w6_progress_is_true, "W6", |broken| {
        let story = Story::new().open(1, 1, []).commit(2, [put(2, "a")]);
        story.when(!broken, |story| story.show(1, 2, [put(2, "a")])).show(1, 2, [])
    };
    /// Progress goes to a revision that was never there.
    w6_progress_is_within_the_store, "W6", |broken| Story::new().open(1, 1, []).show(1, if broken { 5 } else { 1 }, []);
    /// A watch shows a key beyond its range.
    w7_a_watch_keeps_to_its_range, "W7", |broken| {
        let story = resumed(Story::new(), Range::Key(key("a")), 1);
        let story = story.commit(2, [put(2, "a"), put(2, "b")]);
        story.show(1, 2, if broken { vec![put(2, "a"), put(2, "b")] } else { vec![put(2, "a")] })
    };
    /// A watch shows what was in its snapshot.
    w10_nothing_from_before, "W10", |broken| {
        let story = Story::new().commit(2, [put(2, "a")]);
        let (shown, entries) = if broken { (2, vec![entry(2, "a", None)]) } else { (1, vec![]) };
        story.open(1, shown, entries).show(1, 2, [put(2, "a")])
    };
    /// A watch passes silently over what was forgotten before it was shown.
    w11_a_compaction_is_said, "W11", |broken| {
        let story = Story::new().open(1, 1, []).commit(2, [put(2, "a")]);
        let story = story.when(!broken, |story| story.show(1, 2, [put(2, "a")]));
        let story = story.store(StoreEvent::Compacted(Revision(2))).commit(3, [put(3, "b")]);
        story.show(1, 3, [put(3, "b")])
    };
    /// A watch shows something that was never opened.
    w12_open_before_showing, "W12", |broken| {
        let story = Story::new().when(!broken, |story| story.open(1, 1, []));
        story.commit(2, [put(2, "a")]).show(1, 2, [put(2, "a")])
    };
    /// A watch begins with a key too few.
    w13_a_watch_begins_with_the_store, "W13", |broken| {
        let entries = if broken { vec![] } else { vec![entry(2, "a", None)] };
        Story::new().commit(2, [put(2, "a")]).open(1, 2, entries)
    };
    /// A watch begins at a revision that was never there.
    w13_a_watch_begins_within_the_store, "W13", |broken| Story::new().open(1, if broken { 3 } else { 1 }, []);
    /// A watch is silent about what there is.
    w14_what_there_is_is_shown, "W14", |broken| {
        let story = Story::new().open(1, 1, []).commit(2, [put(2, "a")]);
        story.when(!broken, |story| story.show(1, 2, [put(2, "a")])).wait(60 * SECOND).note()
    };
    /// A watch shows something after its end.
    w15_the_end_is_the_end, "W15", |broken| {
        let story = Story::new().open(1, 1, []).commit(2, [put(2, "a")]);
        let story = story.when(broken, |story| story.then(Event::WatchEnded { watch: 1, code: "unavailable" }));
        story.show(1, 2, [put(2, "a")])
    };
}
