use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::Notify;

/// A value that changes, for one that changes it.
///
/// What tokio's `watch` is, with one difference: those who wait are woken in the order in which they began to
/// wait, never in a random one, so that the same seed gives the same run.
pub(crate) struct Observed<T> {
    shared: Arc<Shared<T>>,
}

/// A value that changes, to look at and to wait for. Sees the newest value; may miss those in between.
///
/// Cheap to clone. Waiting ends with `None` when nobody is left to change the value.
pub struct Observer<T> {
    shared: Arc<Shared<T>>,
    /// The version that was seen last.
    seen: u64,
}

struct Shared<T> {
    state: Mutex<State<T>>,
    changed: Notify,
}

struct State<T> {
    value: T,
    version: u64,
    closed: bool,
}

impl<T: Clone> Observed<T> {
    pub(crate) fn new(value: T) -> Self {
        let state = State { value, version: 0, closed: false };
        Self { shared: Arc::new(Shared { state: Mutex::new(state), changed: Notify::new() }) }
    }

    /// The value now.
    pub(crate) fn get(&self) -> T {
        self.shared.lock().value.clone()
    }

    /// Replaces the value, and wakes those who wait, even if it is the same.
    pub(crate) fn set(&self, value: T) {
        self.update(|now| {
            *now = value;
            true
        });
    }

    /// Changes the value in place, and wakes those who wait if `change` says that it did.
    pub(crate) fn update(&self, change: impl FnOnce(&mut T) -> bool) {
        let mut state = self.shared.lock();
        let changed = change(&mut state.value);
        state.version += u64::from(changed);
        drop(state);
        if changed {
            self.shared.changed.notify_waiters();
        }
    }

    /// Somebody who has seen the value as it is now.
    pub(crate) fn observe(&self) -> Observer<T> {
        let seen = self.shared.lock().version;
        Observer { shared: self.shared.clone(), seen }
    }
}

impl<T> Drop for Observed<T> {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.changed.notify_waiters();
    }
}

impl<T: Clone> Observer<T> {
    /// The value now. Does not count as seen.
    pub fn get(&self) -> T {
        self.shared.lock().value.clone()
    }

    /// Counts the value as it is now as seen.
    pub(crate) fn mark_seen(&mut self) {
        self.seen = self.shared.lock().version;
    }

    /// Waits for a value that was not seen yet, and returns it. Cancel-safe.
    pub async fn changed(&mut self) -> Option<T> {
        let seen = self.seen;
        self.reach(|version, _| version != seen).await
    }

    /// Waits until the value is as wanted, and returns it; at once if it is. Cancel-safe.
    pub async fn wait_for(&mut self, wanted: impl Fn(&T) -> bool) -> Option<T> {
        self.reach(|_, value| wanted(value)).await
    }

    async fn reach(&mut self, reached: impl Fn(u64, &T) -> bool) -> Option<T> {
        loop {
            let changed = self.shared.changed.notified();
            tokio::pin!(changed);
            // Registered before the look, so that no change is missed.
            changed.as_mut().enable();
            {
                let state = self.shared.lock();
                if reached(state.version, &state.value) {
                    self.seen = state.version;
                    return Some(state.value.clone());
                }
                if state.closed {
                    return None;
                }
            }
            changed.await;
        }
    }
}

impl<T> Clone for Observer<T> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone(), seen: self.seen }
    }
}

impl<T: Clone + fmt::Debug> fmt::Debug for Observer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Observer").field(&self.get()).finish()
    }
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // A panic in a change leaves some value; the version says whether it counts.
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use slipring_core::{Environment, SystemEnvironment};

    use super::*;

    /// Those who wait are woken in the order in which they came, time after time: the same seed gives the same
    /// run.
    #[tokio::test]
    async fn waiters_are_woken_in_order() {
        let observed = Observed::new(0);
        let order = Arc::new(Mutex::new(Vec::new()));
        let wait = |name: usize| {
            let (mut observer, order) = (observed.observe(), order.clone());
            let task = async move {
                while observer.changed().await.is_some() {
                    order.lock().unwrap().push(name);
                }
            };
            SystemEnvironment::new().spawn("waiter", Box::pin(task))
        };
        let tasks: Vec<_> = (0..16).map(wait).collect();
        for round in 0..20 {
            tokio::task::yield_now().await;
            observed.set(round);
        }
        drop(observed);
        for mut task in tasks {
            task.end().await;
        }
        let expected: Vec<usize> = (0..20).flat_map(|_| 0..16).collect();
        assert_eq!(*order.lock().unwrap(), expected);
    }

    /// A change that was not seen is not waited for; the last one is told even when nobody is left to make
    /// another, and then the end.
    #[tokio::test]
    async fn the_last_change_is_seen_and_then_the_end() {
        let observed = Observed::new(1);
        let mut observer = observed.observe();
        observed.set(2);
        drop(observed);
        assert_eq!(observer.changed().await, Some(2));
        assert_eq!(observer.changed().await, None);
        assert_eq!(observer.wait_for(|now| *now == 2).await, Some(2));
        assert_eq!(observer.wait_for(|now| *now == 3).await, None);
    }
}
