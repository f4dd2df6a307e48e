//! M1 to M7, and M9 to M11.

use slipring_core::{Effect, Pattern, QueueGroup, Subject};
use slipring_sim::history::{Event, Failure, Letter, RequestStep};

use crate::cases;
use crate::story::Story;

/// A message to `news.today`, told apart by its digest.
fn letter(digest: u64, line: u64) -> Letter {
    let subject = Subject::new("news.today").unwrap();
    Letter { subject, bytes: 8, digest, reply: None, no_responders: false, line }
}

fn to(subject: &str, letter: Letter) -> Letter {
    Letter { subject: Subject::new(subject).unwrap(), ..letter }
}

/// Published by handle 100.
fn publish(digest: u64) -> Event {
    Event::Published(letter(digest, 100))
}

/// Delivered to a subscription.
fn deliver(digest: u64, line: u64) -> Event {
    Event::Delivered(letter(digest, line))
}

fn subscribe(line: u64, pattern: &str) -> Event {
    Event::Subscribed { line, pattern: Pattern::new(pattern).unwrap(), queue: None }
}

fn join(line: u64) -> Event {
    let queue = Some(QueueGroup::new("readers").unwrap());
    Event::Subscribed { line, pattern: Pattern::new("news.*").unwrap(), queue }
}

fn heard() -> Story {
    Story::new().then(subscribe(1, "news.today"))
}

fn request(request: u64, step: RequestStep) -> Event {
    Event::Request { request, step }
}

fn reply(digest: u64, inbox: &str) -> Letter {
    to(inbox, letter(digest, 100))
}

cases! {
    /// A message comes twice.
    m1_at_most_once, "M1", |broken| {
        heard().all([publish(7), deliver(7, 1)]).when(broken, |story| story.then(deliver(7, 1)))
    };
    /// Two messages of one publisher come in another order.
    m2_in_order, "M2", |broken| {
        let [first, second] = if broken { [8, 7] } else { [7, 8] };
        heard().all([publish(7), publish(8), deliver(first, 1), deliver(second, 1)])
    };
    /// A message comes from before the beginning.
    m3_nothing_from_before, "M3", |broken| {
        let events = if broken { [publish(7), subscribe(1, ">")] } else { [subscribe(1, ">"), publish(7)] };
        Story::new().all(events).then(deliver(7, 1))
    };
    /// A message comes that was published after the end.
    m3_nothing_after_the_end, "M3", |broken| {
        let end = Event::Unsubscribed { line: 1 };
        heard().all(if broken { [end, publish(7)] } else { [publish(7), end] }).then(deliver(7, 1))
    };
    /// A message does not come, and the next one does.
    m4_everybody_gets_it, "M4", |broken| {
        heard().all([publish(7), publish(8)]).when(!broken, |story| story.then(deliver(7, 1))).then(deliver(8, 1))
    };
    /// Two of a group get a message.
    m4_one_of_a_group_gets_it, "M4", |broken| {
        let story = Story::new().all([join(1), join(2), publish(7), deliver(7, 1)]);
        story.when(broken, |story| story.then(deliver(7, 2)))
    };
    /// A message comes that the pattern does not match.
    m5_patterns_are_exact, "M5", |broken| {
        let story = Story::new().then(subscribe(1, "news.*"));
        let subject = if broken { "news.today.late" } else { "news.today" };
        story.then(Event::Published(to(subject, letter(7, 100)))).then(Event::Delivered(to(subject, letter(7, 1))))
    };
    /// A request gets the second of two replies.
    m6_the_first_reply_counts, "M6", |broken| {
        let story = heard().then(request(1, RequestStep::Arrived(letter(7, 100))));
        let story = story.all([8, 9].map(|digest| Event::Published(reply(digest, "inbox.1"))));
        story.then(request(1, RequestStep::Executed(Ok(reply(if broken { 9 } else { 8 }, "inbox.1")))))
    };
    /// Two requests get the same reply.
    m6_replies_do_not_cross, "M6", |broken| {
        let arrived = |number, digest| request(number, RequestStep::Arrived(letter(digest, 100)));
        let story = heard().all([arrived(1, 7), arrived(2, 8), Event::Published(reply(9, "inbox.1"))]);
        let story = story.then(Event::Published(reply(10, "inbox.2")));
        let story = story.then(request(1, RequestStep::Executed(Ok(reply(9, "inbox.1")))));
        let second = if broken { reply(9, "inbox.1") } else { reply(10, "inbox.2") };
        story.then(request(2, RequestStep::Executed(Ok(second))))
    };
    /// Nobody is said to be there, and somebody is.
    m7_no_responders_is_true, "M7", |broken| {
        let story = if broken { heard() } else { Story::new() };
        let failure = Failure { code: "no_responders", effect: Effect::None };
        let arrived = request(1, RequestStep::Arrived(letter(7, 100)));
        story.then(arrived).then(request(1, RequestStep::Executed(Err(failure))))
    };
    /// Nobody is there, and that is not said.
    m7_no_responders_is_said, "M7", |broken| {
        let story = if broken { Story::new() } else { heard() };
        let failure = Failure { code: "deadline_exceeded", effect: Effect::Unknown };
        let arrived = request(1, RequestStep::Arrived(letter(7, 100)));
        story.then(arrived).then(request(1, RequestStep::Executed(Err(failure))))
    };
    /// A subscription goes on after a cut without a word.
    m9_loss_is_said, "M9", |broken| {
        let story = heard().all([Event::Unsubscribed { line: 1 }, subscribe(1, "news.today")]);
        let story = story.when(!broken, |story| story.then(Event::Lagged { line: 1, missed: 0 }));
        story.all([publish(7), deliver(7, 1)])
    };
    /// Two messages are missing, and one is said to be.
    m10_loss_is_counted, "M10", |broken| {
        let lag = Event::Lagged { line: 1, missed: if broken { 1 } else { 2 } };
        heard().all([publish(7), publish(8), publish(9), lag, deliver(9, 1)])
    };
    /// A message is larger than the broker takes.
    m11_size_is_bounded, "M11", |broken| {
        let bytes = 1024 * 1024 + usize::from(broken);
        Story::new().then(Event::Published(Letter { bytes, ..letter(7, 100) }))
    };
}
