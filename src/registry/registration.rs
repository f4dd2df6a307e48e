//! TEMPORARY stand-in until the registrar lands.
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use slipring_core::{DiscoveryExt, Key, Result, Task};
use tokio::sync::watch;

use crate::lifecycle::LeaseHolder;
use crate::platform::Platform;
use crate::record::Record;

pub(crate) struct Registration {
    desired: Arc<Mutex<BTreeMap<Key, Option<Record>>>>,
    done: watch::Sender<u64>,
    wake: watch::Sender<u64>,
    _task: Task,
}

impl Registration {
    pub(crate) fn start(platform: Arc<Platform>, lease: &Arc<LeaseHolder>) -> Self {
        let desired: Arc<Mutex<BTreeMap<Key, Option<Record>>>> = Arc::default();
        let (wake, mut woken) = watch::channel(0);
        let (done, _) = watch::channel(0);
        let (d, dn, l, p) = (desired.clone(), done.clone(), lease.clone(), platform.clone());
        let task = platform.spawn("registrar", async move {
            while woken.changed().await.is_ok() {
                let all = std::mem::take(&mut *d.lock().unwrap());
                for (key, record) in all {
                    match record {
                        Some(mut record) => {
                            record.lease = l.id();
                            let _ = p.discovery.put(key, record.encode(), Some(l.id())).await;
                        }
                        None => drop(p.discovery.delete(key).await),
                    }
                }
                dn.send_modify(|n| *n += 1);
            }
        });
        Self { desired, done, wake, _task: task }
    }
    pub(crate) fn set(&self, key: Key, record: Record) {
        self.desired.lock().unwrap().insert(key, Some(record));
        self.wake.send_modify(|n| *n += 1);
    }
    pub(crate) fn remove(&self, key: &Key) {
        self.desired.lock().unwrap().insert(key.clone(), None);
        self.wake.send_modify(|n| *n += 1);
    }
    pub(crate) async fn confirmed(&self, key: &Key) -> Result<()> {
        self.withdrawn(key).await;
        Ok(())
    }
    pub(crate) async fn withdrawn(&self, key: &Key) {
        let mut done = self.done.subscribe();
        while self.desired.lock().unwrap().contains_key(key) {
            let _ = done.changed().await;
        }
    }
    pub(crate) fn trouble(&self) -> String {
        String::new()
    }
    pub(crate) async fn end(&self) {}
}
