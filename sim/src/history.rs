//! What happened in a run, as data.

mod difference;
mod event;
mod line;

use std::fmt::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use slipring_core::{
    Base, Batch, Commit, Effect, Error, Fact, Lease, LeaseId, Pattern, QueueGroup, Range, Result, Snapshot,
    Subject, Txn,
};
use slipring_memory::store::StoreEvent;

pub use self::difference::Difference;
pub(crate) use self::line::REST_FROM;
use crate::Fault;
use crate::random::Fnv;

/// All that happened in a run, in order. The events of the store are its commit order, so a checker is a
/// replay. Printed, it is the run's [`Trace`](crate::Trace).
///
/// A run whose history is [taken](crate::World::take_history) piece by piece leaves the last piece; its
/// [hash](Self::hash) is that of the whole.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    moments: Vec<Moment>,
    /// How many moments were taken out before these, and their hash.
    taken: usize,
    hash_of_taken: Fnv,
}

/// One event, with its time and its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moment {
    /// Virtual time since the world began.
    pub at: Duration,
    /// Where: the name of a node's life, `broker`, or `scenario`.
    pub node: Arc<str>,
    /// What.
    pub event: Event,
}

/// Something that happened in a world.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// What a scenario or a node wanted to say.
    Note(String),
    /// What the component model did.
    Fact(Fact),
    /// A node's life began.
    Began,
    /// A node's life ended.
    Died(Death),
    /// A node was given an operation.
    Asked(String),
    /// A fault struck.
    Struck(Fault),
    /// A fault that lasts is over.
    Healed(Fault),
    /// A task ended in a panic.
    Panicked {
        /// The task's name.
        task: &'static str,
        /// What it said.
        message: String,
    },
    /// A rare situation came about that a program or a scenario wants to have counted.
    Sometimes(String),
    /// From here on no task of the node takes a step.
    Paused,
    /// The node's tasks run again, unless it was paused more than once.
    Resumed,
    /// A link was switched by hand.
    Link(&'static str),
    /// Something happened in the store.
    Store {
        /// The time on the store's clock, which may run at another rate.
        clock: Duration,
        /// What.
        event: StoreEvent,
    },
    /// A node got the answer to a call.
    Answered {
        /// Which call.
        call: Call,
        /// When it was sent.
        sent: Duration,
        /// The lease that it is about, if it is about one.
        lease: Option<LeaseId>,
        /// The code of its error; none if it went well.
        code: Option<&'static str>,
    },
    /// A caller gave a call up, and gets no answer: the counterpart of `Answered`.
    GaveUp {
        /// Which call.
        call: Call,
        /// When it was sent.
        sent: Duration,
        /// The lease that it is about, if that was known.
        lease: Option<LeaseId>,
    },
    /// A node was granted a lease; told beside `Answered`.
    Leased {
        /// The time to live that it asked for.
        asked: Duration,
        /// What it was told.
        lease: Lease,
    },
    /// A transaction is on its way; told beside `Answered`.
    Txn {
        /// The transaction; unique in a world.
        request: u64,
        /// How far it is.
        step: TxnStep,
    },
    /// A node read.
    Read {
        /// When it asked.
        sent: Duration,
        /// For what.
        range: Range,
        /// What it was told.
        snapshot: Snapshot,
    },
    /// A node opened a watch.
    WatchOpened {
        /// The watch; unique in a world.
        watch: u64,
        /// What it watches.
        range: Range,
        /// What it began with.
        base: Base,
    },
    /// A watch could not be opened.
    WatchRefused {
        /// What was to be watched.
        range: Range,
        /// The error's code.
        code: &'static str,
    },
    /// A watch delivered a batch to its reader.
    WatchDelivered {
        /// The watch.
        watch: u64,
        /// What it delivered.
        batch: Batch,
    },
    /// A watch ended with an error.
    WatchEnded {
        /// The watch.
        watch: u64,
        /// The error's code.
        code: &'static str,
    },
    /// A watch was let go of by its reader.
    WatchDropped {
        /// The watch.
        watch: u64,
    },
    /// A message reached the broker; told if the [`Setup`](crate::Setup::with_messages) says so, as all that
    /// follows.
    Published(Letter),
    /// A message was handed to a subscriber.
    Delivered(Letter),
    /// The broker routes to a subscription from here on; again after each cut.
    Subscribed {
        /// The subscription; unique in a world.
        line: u64,
        /// What it subscribes to.
        pattern: Pattern,
        /// The group with whose members it shares.
        queue: Option<QueueGroup>,
    },
    /// The broker routes no more to a subscription.
    Unsubscribed {
        /// The subscription.
        line: u64,
    },
    /// A subscriber was told that messages are missing.
    Lagged {
        /// The subscription.
        line: u64,
        /// How many; 0 if that is not known.
        missed: u64,
    },
    /// A request over the bus is on its way; told beside `Answered`.
    Request {
        /// The request; unique in a world.
        request: u64,
        /// How far it is.
        step: RequestStep,
    },
    /// What is left at the end, when all nodes are ended.
    Counted(Rest),
}

/// How far a transaction is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TxnStep {
    /// A node sent it.
    Sent(Txn),
    /// It is with the store. What the store does next, up to `Executed`, is this, and what was due before.
    Arrived,
    /// The store executed it.
    Executed(Result<Commit, Failure>),
    /// Its node got this answer.
    Answered(Result<Commit, Failure>),
}

/// How far a request is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RequestStep {
    /// It is with the broker.
    Arrived(Letter),
    /// The broker has the first reply, or knows that there is none.
    Executed(Result<Letter, Failure>),
}

/// An error, as far as a history tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure {
    /// Its code.
    pub code: &'static str,
    /// May the request have been executed?
    pub effect: Effect,
}

impl From<&Error> for Failure {
    fn from(error: &Error) -> Self {
        Self { code: error.code(), effect: error.effect() }
    }
}

/// What is left of a world, and should not be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rest {
    /// Watches that are open at the store.
    pub watches: usize,
    /// Subscriptions at the bus.
    pub subscriptions: usize,
    /// Tasks that were started past the environments.
    pub stray_tasks: usize,
}

/// A call to the store or to the bus that has an effect, or a heartbeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Call {
    /// A transaction.
    Commit,
    /// A new lease.
    Grant,
    /// A heartbeat.
    KeepAlive,
    /// The end of a lease.
    Revoke,
    /// A request over the bus.
    Request,
}

/// A message without its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// Its subject.
    pub subject: Subject,
    /// The bytes of its payload.
    pub bytes: usize,
    /// A hash of its headers and of the beginning of its payload, to tell messages apart.
    pub digest: u64,
    /// Where an answer is expected.
    pub reply: Option<Subject>,
    /// Is it the broker's word that nobody is there?
    pub no_responders: bool,
    /// The handle that published it, or the subscription that it was delivered to.
    pub line: u64,
}

/// How a node's life ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Death {
    /// The process died, and its machine told everybody: connections are reset.
    Crash,
    /// The machine died. Nobody is told anything; its connections are silent.
    PowerLoss,
}

impl History {
    /// A history out of these moments: for tests of checkers.
    pub fn new(moments: Vec<Moment>) -> Self {
        Self { moments, ..Self::default() }
    }

    /// What happened, in order.
    pub fn moments(&self) -> &[Moment] {
        &self.moments
    }

    /// A number for all that happened, which is another one if anything of the [trace](crate::Trace) is. The
    /// same on every machine and by every compiler.
    pub fn hash(&self) -> u64 {
        self.hashed().value()
    }

    /// The first moment in which another history differs; none if they are equal.
    pub fn first_difference(&self, other: &Self) -> Option<Difference> {
        Difference::between(self, other)
    }

    pub(crate) fn push(&mut self, moment: Moment) {
        self.moments.push(moment);
    }

    /// Takes out what is in it; what is added later goes on from there.
    pub(crate) fn take(&mut self) -> Self {
        self.hash_of_taken = self.hashed();
        self.taken += self.moments.len();
        Self::new(std::mem::take(&mut self.moments))
    }

    fn hashed(&self) -> Fnv {
        let mut hash = self.hash_of_taken;
        for moment in &self.moments {
            writeln!(hash, "{moment}").expect("a hash takes everything");
        }
        hash
    }
}

/// A line for each moment.
impl fmt::Display for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.moments.iter().try_for_each(|moment| writeln!(f, "{moment}"))
    }
}
