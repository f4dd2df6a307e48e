use std::sync::Arc;

/// Targets that came lately: requests have few different ones, and share them.
#[derive(Debug, Default)]
pub(super) struct Targets {
    lately: Vec<Arc<str>>,
    /// The one that came last, and the one to be replaced next.
    last: usize,
    oldest: usize,
}

impl Targets {
    /// So many are kept.
    const KEPT_MAX: usize = 16;

    /// The target, shared with those before it that were the same.
    pub(super) fn shared(&mut self, target: &str) -> Arc<str> {
        if let Some(last) = self.lately.get(self.last).filter(|last| ***last == *target) {
            return last.clone();
        }
        if let Some(at) = self.lately.iter().position(|kept| **kept == *target) {
            self.last = at;
            return self.lately[at].clone();
        }
        let target: Arc<str> = target.into();
        if self.lately.len() < Self::KEPT_MAX {
            self.last = self.lately.len();
            self.lately.push(target.clone());
        } else {
            self.last = self.oldest;
            self.lately[self.oldest] = target.clone();
            self.oldest = (self.oldest + 1) % Self::KEPT_MAX;
        }
        target
    }
}
