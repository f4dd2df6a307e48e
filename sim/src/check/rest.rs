use super::Findings;
use crate::history::{Event, History, Rest};

/// N1, N2: what is left, and what broke.
pub(super) fn check(history: &History, found: &mut Findings<'_>) {
    for (place, moment) in history.moments().iter().enumerate() {
        match &moment.event {
            Event::Counted(rest) if *rest != Rest::default() => {
                let Rest { watches, subscriptions, stray_tasks } = rest;
                let what = format!(
                    "{watches} watches, {subscriptions} subscriptions and {stray_tasks} stray tasks are left"
                );
                found.add("N1", [place], what);
            }
            Event::Panicked { task, message } => {
                found.add("N2", [place], format!("task {task} of {}: {message}", moment.node));
            }
            _ => {}
        }
    }
}
