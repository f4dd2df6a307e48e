//! M8, M12 to M14, and the rest.

use slipring_core::{Fact, Revision};
use slipring_sim::history::{Event, Rest};

use crate::cases;
use crate::story::{SECOND, Story, delete, put};

const RECORD: &str = "n/components/c/e:1";

fn step(instance: u64, step: &'static str) -> Fact {
    Fact::LifecycleChanged { endpoint: "n/c/e".into(), instance, step }
}

fn chosen(revision: u64) -> Fact {
    Fact::RouteChosen { endpoint: "n/c/e".into(), instance: 1, revision: Revision(revision) }
}

fn accepted() -> Fact {
    Fact::RequestAccepted { endpoint: "n/c/e".into(), instance: 1, epoch: None }
}

fn ended() -> Fact {
    Fact::RequestEnded { endpoint: "n/c/e".into(), instance: 1 }
}

fn call_started() -> Fact {
    Fact::CallStarted { endpoint: "n/c/e".into(), call: 1, deadline: 5 * SECOND, any: true }
}

fn call_ended(code: Option<&'static str>) -> Fact {
    Fact::CallEnded { call: 1, code }
}

/// Two instances serve, for a while.
fn two() -> Story {
    let records = [put(2, RECORD), put(2, "n/components/c/e:2")];
    Story::new().commit(2, records).fact(step(1, "healthy")).fact(step(2, "healthy")).wait(60 * SECOND)
}

cases! {
    /// An instance accepts two requests, and one was sent to it.
    m8_no_more_than_was_sent, "M8", |broken| {
        let story = Story::new().fact(chosen(1)).fact(accepted()).fact(ended());
        story.when(!broken, |story| story.fact(chosen(1))).fact(accepted()).fact(ended())
    };
    /// An endpoint is drained, and works on a request.
    m12_what_was_accepted_is_finished, "M12", |broken| {
        let story = two().fact(chosen(2)).fact(accepted()).when(!broken, |story| story.fact(ended()));
        story.fact(step(1, "stopping")).commit(3, [delete(RECORD)]).fact(step(1, "deregistered"))
    };
    /// An endpoint is drained, and accepts a request.
    m12_nothing_more_is_accepted, "M12", |broken| {
        let story = two().fact(chosen(2)).fact(step(1, "stopping")).commit(3, [delete(RECORD)]);
        let story = story.when(!broken, |story| story.fact(accepted()).fact(ended()));
        let story = story.fact(step(1, "deregistered"));
        story.when(broken, |story| story.fact(accepted()).fact(ended()))
    };
    /// A call goes to an instance whose removal the view had seen.
    m13_the_removed_get_no_calls, "M13", |broken| {
        let story = Story::new().commit(2, [put(2, RECORD)]).commit(3, [delete(RECORD)]);
        story.fact(chosen(if broken { 3 } else { 2 }))
    };
    /// A call fails because an instance stops, and another one was there.
    m14_a_stop_fails_no_call, "M14", |broken| {
        let story = two().fact(call_started()).fact(step(1, "stopping")).commit(3, [delete(RECORD)]);
        story.fact(call_ended(broken.then_some("draining")))
    };
    /// A stop is over, and the record is there.
    m14_a_stop_leaves_no_record, "M14", |broken| {
        let story = two().fact(step(1, "stopping")).when(!broken, |story| story.commit(3, [delete(RECORD)]));
        story.fact(step(1, "deregistered"))
    };
    /// A call goes on after its deadline.
    c1_calls_end, "C1", |broken| {
        let story = Story::new().fact(call_started()).wait(5 * SECOND);
        let story = story.when(!broken, |story| story.fact(call_ended(Some("deadline_exceeded"))));
        story.wait(2 * SECOND).note().when(broken, |story| story.fact(call_ended(None)))
    };
    /// A watch is left.
    n1_nothing_is_left, "N1", |broken| {
        Story::new().then(Event::Counted(Rest { watches: usize::from(broken), ..Rest::default() }))
    };
    /// A task panics.
    n2_nobody_panics, "N2", |broken| {
        let panicked = Event::Panicked { task: "program", message: "it is broken".to_owned() };
        Story::new().when(broken, |story| story.then(panicked))
    };
}
