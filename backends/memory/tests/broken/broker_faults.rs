//! Broken brokers, each caught by the case that is about what it breaks.

use crate::broker;
use crate::broker::BrokerFault;

/// A queue group whose members all get the message is caught.
#[tokio::test(start_paused = true)]
async fn queue_group_delivers_to_all() {
    broker(BrokerFault::QueueToAll, "m4_one_member_gets_each", "once, got").await;
}

/// A broker that takes what it declares not to do is caught.
#[tokio::test(start_paused = true)]
async fn undeclared_is_taken() {
    broker(BrokerFault::TakesUndeclared, "queue_groups_are_declared_or_refused", "expected the error").await;
    broker(BrokerFault::TakesUndeclared, "m5_wildcards_are_declared_or_refused", "expected the error").await;
}

/// A request that waits out its deadline although nobody is there is caught.
#[tokio::test(start_paused = true)]
async fn no_responders_swallowed() {
    broker(BrokerFault::SwallowsNoResponders, "m7_nobody_there", "expected the error").await;
    let inbox = "m7_no_responders_arrives_at_the_inbox";
    broker(BrokerFault::SwallowsNoResponders, inbox, "in vain for the broker's answer").await;
    let stream = "end_of_a_reader_is_noticed";
    broker(BrokerFault::SwallowsNoResponders, stream, "in vain for the writer to be told").await;
}

/// U9734: a payload limit that is not checked is caught.
#[tokio::test(start_paused = true)]
async fn u9734_unchecked_payload_limit() {
    broker(BrokerFault::LimitUnchecked, "m11_payload_limit_is_exact", "expected the error").await;
}

/// A payload limit that forgets the headers is caught.
#[tokio::test(start_paused = true)]
async fn headers_not_counted() {
    broker(BrokerFault::HeadersUncounted, "m11_headers_count", "expected the error").await;
}

/// Headers that are dropped are caught.
#[tokio::test(start_paused = true)]
async fn dropped_headers() {
    broker(BrokerFault::DropsHeaders, "headers_arrive", "the headers").await;
}

/// Stopping that loses what was accepted is caught.
#[tokio::test(start_paused = true)]
async fn stop_loses_messages() {
    broker(BrokerFault::StopLoses, "m12_stop_yields_what_was_accepted", "expected the messages 0..100").await;
}

/// A subscription that is not yet routed to when it resolves is caught.
#[tokio::test(start_paused = true)]
async fn subscribes_late() {
    broker(BrokerFault::SubscribesLate, "m3_subscribed_means_routed", "in vain for the message").await;
}

/// Loss that is not told is caught.
#[tokio::test(start_paused = true)]
async fn hidden_loss() {
    broker(BrokerFault::HidesLoss, "m10_loss_is_counted_exactly", "in vain for a message or a count").await;
}

/// Delivery out of order is caught.
#[tokio::test(start_paused = true)]
async fn reordered_messages() {
    broker(BrokerFault::Reorders, "m2_one_publisher_is_in_order", "in order, got").await;
    broker(BrokerFault::Reorders, "stream_of_answers_is_whole", "the next item").await;
}

/// Delivering twice is caught.
#[tokio::test(start_paused = true)]
async fn duplicated_messages() {
    broker(BrokerFault::Duplicates, "m2_one_publisher_is_in_order", "in order, got").await;
    broker(BrokerFault::Duplicates, "streams_do_not_mix", "the next item").await;
}

/// A `*` that matches several tokens is caught.
#[tokio::test(start_paused = true)]
async fn greedy_wildcard() {
    broker(BrokerFault::GreedyWildcard, "m5_wildcards_are_exact", "the subjects that match \"*\"").await;
}

/// Replies that are handed to the wrong request are caught.
#[tokio::test(start_paused = true)]
async fn crossed_replies() {
    broker(BrokerFault::CrossesReplies, "m6_concurrent_requests_do_not_cross", "the reply to request").await;
}

/// A request that gives up before its time is caught.
#[tokio::test(start_paused = true)]
async fn early_deadline() {
    broker(BrokerFault::GivesUpEarly, "deadline_is_never_early", "ended after").await;
}

/// A timeout that claims that nothing was executed is caught.
#[tokio::test(start_paused = true)]
async fn deadline_with_a_wrong_effect() {
    broker(BrokerFault::DeadlineWithoutEffect, "deadline_is_never_early", "the effect of a request").await;
}

/// Closing one handle that closes the connection of all is caught.
#[tokio::test(start_paused = true)]
async fn close_closes_all() {
    broker(BrokerFault::CloseClosesAll, "close_disturbs_no_other", "the stream ended before the request")
        .await;
}

/// A closed handle that goes on working is caught.
#[tokio::test(start_paused = true)]
async fn close_without_effect() {
    broker(BrokerFault::CloseIdle, "closed_is_unavailable", "expected the error \"unavailable\"").await;
}

/// A flush that waits for something to flush is caught.
#[tokio::test(start_paused = true)]
async fn flush_waits_for_a_message() {
    broker(BrokerFault::FlushWaits, "flush_of_nothing_resolves", "in vain for an empty flush").await;
}

/// A publish that fails because nobody listens is caught.
#[tokio::test(start_paused = true)]
async fn publish_needs_a_reader() {
    broker(BrokerFault::PublishNeedsReaders, "nobody_needs_to_listen", "no_responders").await;
}
