//! What a call promises is the same on every plane: one suite, run within the process, over the broker, over TCP,
//! over TLS, and over connections that the worker dials; on sockets, on pipes and in the simulator.
#![allow(clippy::unwrap_used, reason = "a test may, and so may what it is set up with")]
#![allow(clippy::disallowed_methods, reason = "a test is no node of a simulation")]

mod cases;
#[cfg(feature = "tls")]
mod certificates;
mod faults;
mod ground;
mod pipes;
mod report;
#[cfg(feature = "tls")]
mod tls;

/// Every case on one ground, a test each.
macro_rules! suite {
    ($name:ident, $ground:expr, $(#[$attribute:meta])*) => {
        mod $name {
            use crate::ground::Ground;
            suite! {
                @cases $ground, [$(#[$attribute])*]
                a_unary_call_is_answered
                a_stream_may_be_empty
                a_stream_may_have_one_item
                ten_thousand_items_arrive_in_order
                large_items_arrive_whole
                dropping_the_stream_cancels_the_handler
                dropping_the_call_cancels_the_handler
                a_producer_that_fails_is_told_behind_its_items
                a_producer_that_panics_is_told_behind_its_items
                the_deadline_ends_both_sides
                a_stop_waits_for_the_stream_under_way
                a_restarted_worker_is_called_again
                a_slow_reader_stops_its_own_stream_only
                what_is_too_large_is_refused_with_both_figures
                ten_thousand_streams_at_once
                what_travels_along_arrives
                too_many_requests_are_refused
                a_worker_that_goes_away_interrupts_the_stream
                what_travels_is_reported
            }
        }
    };
    (@cases $ground:expr, $attributes:tt $($case:ident)*) => {
        $(suite! { @case $ground, $attributes $case })*
    };
    (@case $ground:expr, [$(#[$attribute:meta])*] $case:ident) => {
        $(#[$attribute])*
        async fn $case() {
            crate::cases::$case(&$ground).await;
        }
    };
}

suite!(local, Ground::local(), #[tokio::test(start_paused = true)]);
suite!(broker, Ground::broker(), #[tokio::test(start_paused = true)]);
suite!(tcp_on_sockets, Ground::tcp().on_sockets(), #[tokio::test(flavor = "multi_thread", worker_threads = 2)]);
suite!(nats_tcp_on_sockets, Ground::nats_tcp().on_sockets(), #[tokio::test(flavor = "multi_thread", worker_threads = 2)]);
suite!(tcp_on_pipes, Ground::tcp().on_pipes(), #[tokio::test(start_paused = true)]);
suite!(nats_tcp_on_pipes, Ground::nats_tcp().on_pipes(), #[tokio::test(start_paused = true)]);
suite!(tcp_in_the_simulator, Ground::tcp().in_the_simulator(), #[tokio::test(start_paused = true)]);
suite!(nats_tcp_in_the_simulator, Ground::nats_tcp().in_the_simulator(), #[tokio::test(start_paused = true)]);
#[cfg(feature = "tls")]
suite!(tcp_with_tls, Ground::tcp().with_tls().on_sockets(), #[tokio::test(flavor = "multi_thread", worker_threads = 2)]);
#[cfg(feature = "tls")]
suite!(nats_tcp_with_tls, Ground::nats_tcp().with_tls().on_sockets(), #[tokio::test(flavor = "multi_thread", worker_threads = 2)]);
#[cfg(feature = "tls")]
suite!(tcp_with_tls_in_the_simulator, Ground::tcp().with_tls().in_the_simulator(), #[tokio::test(start_paused = true)]);
