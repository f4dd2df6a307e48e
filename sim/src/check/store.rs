use slipring_core::Revision;
use slipring_memory::store::StoreEvent;

use super::Violation;
use crate::history::{Event, History};

/// K2.
pub(super) fn check(history: &History) -> Vec<Violation> {
    let mut violations = Vec::new();
    let mut head = Revision(1);
    for moment in history.moments() {
        let Event::Store { event, .. } = &moment.event else { continue };
        match event {
            StoreEvent::Replaced { content, .. } => head = content.revision,
            StoreEvent::Committed(batch) => {
                let what = if batch.revision.0 != head.0 + 1 {
                    Some(format!("revision {} was committed after {head}", batch.revision))
                } else if batch.changes.is_empty() {
                    Some(format!("revision {} changes nothing", batch.revision))
                } else {
                    None
                };
                violations.extend(what.map(|what| Violation { invariant: "K2", at: moment.at, what }));
                head = batch.revision;
            }
            _ => {}
        }
    }
    violations
}
