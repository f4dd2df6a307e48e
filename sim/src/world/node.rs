use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex};

use slipring_core::{BoxFuture, Discovery, Effect, Environment, Error, Messaging, Result};
use tokio::sync::Notify;

use super::{World, lock};
use crate::cancel::Orders;
use crate::environment::SimEnvironment;
use crate::history::{Death, Event};
use crate::link::Link;
use crate::trace::Log;

/// One life of a process of the world, with its way to the broker. Clones are the same node.
///
/// All that it hands out belongs to this life: once it is over, calls fail (after a crash) or hang (after a
/// power loss), and reach nothing.
#[derive(Debug, Clone)]
pub struct Node {
    name: Arc<str>,
    log: Log,
    environment: Arc<SimEnvironment>,
    link: Link,
    discovery: Arc<dyn Discovery>,
    messaging: Arc<dyn Messaging>,
    inbox: Arc<Inbox>,
    cancellations: Arc<Orders>,
}

/// The operations that a node has not taken yet.
#[derive(Debug, Default)]
struct Inbox {
    operations: Mutex<VecDeque<String>>,
    arrived: Notify,
}

impl Node {
    pub(super) fn new(
        name: Arc<str>,
        log: Log,
        environment: Arc<SimEnvironment>,
        link: Link,
        discovery: Arc<dyn Discovery>,
        messaging: Arc<dyn Messaging>,
    ) -> Self {
        log.add(&name, Event::Began);
        let (inbox, cancellations) = (Arc::default(), Arc::default());
        Self { name, log, environment, link, discovery, messaging, inbox, cancellations }
    }

    /// Its name; from the second life on with the number of the life.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its environment; it owns the node's tasks.
    pub fn environment(&self) -> Arc<SimEnvironment> {
        self.environment.clone()
    }

    /// Its way to the broker.
    pub fn link(&self) -> &Link {
        &self.link
    }

    /// The store as this node reaches it.
    pub fn discovery(&self) -> Arc<dyn Discovery> {
        self.discovery.clone()
    }

    /// The broker as this node reaches it; all calls give the same handle.
    pub fn messaging(&self) -> Arc<dyn Messaging> {
        self.messaging.clone()
    }

    /// Adds a line in the name of this node to the trace.
    pub fn note(&self, what: impl fmt::Display) {
        self.log.add(&self.name, Event::Note(what.to_string()));
    }

    /// Counts a rare situation that came about, under a name of the program's own:
    /// a report counts them.
    pub fn sometimes(&self, name: impl fmt::Display) {
        self.log.add(&self.name, Event::Sometimes(name.to_string()));
    }

    /// The next operation of the [schedule](crate::Schedule) for this life of the node, in the order of their
    /// times; waits for one. Each goes to one caller; giving up loses none.
    pub async fn operation(&self) -> String {
        loop {
            if let Some(what) = lock(&self.inbox.operations).pop_front() {
                return what;
            }
            self.inbox.arrived.notified().await;
        }
    }

    /// F37: runs a future that [`Fault::Cancel`](crate::Fault::Cancel) may drop at one of its await points, as a
    /// program does that loses interest. Gives its output, or nothing if it was dropped.
    pub async fn cancellable<F: Future>(&self, future: F) -> Option<F::Output> {
        let output = self.cancellations.cancellable(future).await;
        if output.is_none() {
            self.note("cancelled");
        }
        output
    }

    /// Is this life not over?
    pub fn is_alive(&self) -> bool {
        !self.environment.is_crashed()
    }

    /// F1: ends the process: all its tasks, and its connections, which are reset. What it left in the store
    /// stays until its lease runs out. Again is no-op.
    pub fn crash(&self) {
        self.die(Death::Crash);
    }

    pub(super) fn die(&self, death: Death) {
        if self.is_alive() {
            self.log.add(&self.name, Event::Died(death));
            // First the link: what the tasks hold is dropped with them, and a machine without power does not
            // take its leave.
            self.link.die(death);
            self.environment.die(death);
        }
    }

    pub(super) fn cancel(&self, waits: u32) {
        self.cancellations.cancel(waits);
    }

    pub(super) fn ask(&self, what: &str) -> Result<()> {
        let refused = |cause| Err(Error::unavailable(&*self.name, cause, Effect::None));
        if !self.is_alive() {
            return refused("this node is down");
        }
        {
            let mut operations = lock(&self.inbox.operations);
            if operations.len() >= World::OPERATIONS_MAX {
                return refused("it leaves too many operations lying");
            }
            operations.push_back(what.to_owned());
        }
        self.log.add(&self.name, Event::Asked(what.to_owned()));
        self.inbox.arrived.notify_one();
        Ok(())
    }

    pub(super) fn run(&self, program: BoxFuture<'static, ()>) {
        self.environment.spawn("program", program).detach();
    }

    pub(super) fn tasks(&self) -> usize {
        self.environment.tasks()
    }
}
