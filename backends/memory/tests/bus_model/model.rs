//! What a bus should do, said as plainly as possible: a list of subscriptions that is searched from its
//! beginning every time. Shares no code with the bus, nor its matcher.

/// What a reader finds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Item {
    /// The number of a publish.
    Message(u64),
    /// That nobody was there for a publish with this reply subject.
    NoResponders(String),
    /// How many are missing.
    Gap(u64),
}

#[derive(Debug, Clone)]
pub(crate) struct Subscribed {
    pub(crate) connection: usize,
    pub(crate) pattern: String,
    pub(crate) queue: Option<String>,
    pub(crate) messages_max: usize,
    /// Routed to.
    pub(crate) live: bool,
    /// Given up: what it held is gone.
    pub(crate) removed: bool,
    pub(crate) waiting: Vec<Item>,
}

impl Subscribed {
    fn push(&mut self, item: Item) {
        let messages = self.waiting.iter().filter(|item| !matches!(item, Item::Gap(_))).count();
        if messages < self.messages_max {
            self.waiting.push(item);
        } else if let Some(Item::Gap(missed)) = self.waiting.last_mut() {
            *missed += 1;
        } else {
            self.waiting.push(Item::Gap(1));
        }
    }

    /// Can something still be read, now or later?
    pub(crate) fn exists(&self) -> bool {
        !self.removed && (self.live || !self.waiting.is_empty())
    }
}

#[derive(Debug, Default)]
pub(crate) struct Model {
    pub(crate) subscriptions: Vec<Subscribed>,
    pub(crate) closed: Vec<usize>,
}

impl Model {
    pub(crate) fn publish(
        &mut self,
        connection: usize,
        publish: u64,
        to: &str,
        reply: Option<&str>,
        seen: &dyn Fn(usize) -> Vec<Item>,
    ) {
        let anybody = self.interested(to).next().is_some();
        match reply {
            Some(reply) if !anybody => {
                let own = |s: &Subscribed| {
                    s.live && s.connection == connection && s.queue.is_none() && matches(&s.pattern, reply)
                };
                if let Some(told) = self.subscriptions.iter_mut().find(|s| own(s)) {
                    told.push(Item::NoResponders(reply.to_owned()));
                }
            }
            _ => self.deliver(to, &Item::Message(publish), seen),
        }
    }

    /// Which member of a group is drawn is not the model's to say: it looks (`seen`) at who got it, and
    /// insists that this is exactly one of those who may.
    fn deliver(&mut self, to: &str, item: &Item, seen: &dyn Fn(usize) -> Vec<Item>) {
        let interested: Vec<usize> = self.interested(to).collect();
        let mut groups: Vec<String> = Vec::new();
        for at in &interested {
            match self.subscriptions[*at].queue.clone() {
                None => self.subscriptions[*at].push(item.clone()),
                Some(queue) if !groups.contains(&queue) => groups.push(queue),
                Some(_) => {}
            }
        }
        for group in groups {
            let got_it = |at: &usize| {
                let have = &self.subscriptions[*at];
                have.queue.as_ref() == Some(&group) && have.waiting != seen(*at)
            };
            let drawn: Vec<usize> = interested.iter().copied().filter(got_it).collect();
            assert_eq!(drawn.len(), 1, "exactly one member of {group} gets {item:?} to {to}, not {drawn:?}");
            self.subscriptions[drawn[0]].push(item.clone());
        }
    }

    fn interested(&self, to: &str) -> impl Iterator<Item = usize> {
        let wanted = |s: &Subscribed| s.live && matches(&s.pattern, to);
        (0..self.subscriptions.len()).filter(move |at| wanted(&self.subscriptions[*at]))
    }

    pub(crate) fn close(&mut self, connection: usize) {
        self.closed.push(connection);
        for subscribed in self.subscriptions.iter_mut().filter(|s| s.connection == connection) {
            subscribed.live = false;
        }
    }
}

/// `*` is any one token, a last `>` is one or more.
pub(crate) fn matches(pattern: &str, subject: &str) -> bool {
    let pattern: Vec<&str> = pattern.split('.').collect();
    let subject: Vec<&str> = subject.split('.').collect();
    let fits = |at: usize| pattern[at] == "*" || pattern[at] == subject[at];
    match pattern.split_last() {
        Some((&">", before)) => subject.len() > before.len() && (0..before.len()).all(fits),
        _ => subject.len() == pattern.len() && (0..pattern.len()).all(fits),
    }
}
