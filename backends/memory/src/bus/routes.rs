use std::collections::BTreeMap;

use slipring_core::{Pattern, QueueGroup, Subject};

use super::SubscriptionId;

/// Who is subscribed to what: a tree of tokens, so that a subject finds its subscriptions in a look-up per
/// token, however many others there are, with wildcards and without.
#[derive(Debug, Clone, Default)]
pub(super) struct Routes {
    root: Node,
}

/// The patterns that share their first tokens.
#[derive(Debug, Clone, Default)]
struct Node {
    /// Patterns that end here.
    end: Interest,
    /// Patterns that end here in `>`.
    rest: Interest,
    /// Patterns that go on with `*`.
    any: Option<Box<Node>>,
    /// Patterns that go on with a token.
    tokens: BTreeMap<Box<str>, Node>,
}

/// The subscriptions of one pattern, in the order of their ids.
#[derive(Debug, Clone, Default)]
struct Interest {
    plain: Vec<SubscriptionId>,
    groups: BTreeMap<QueueGroup, Vec<SubscriptionId>>,
}

impl Routes {
    /// Ids have to come in ascending order.
    pub(super) fn insert(&mut self, pattern: &Pattern, queue: Option<&QueueGroup>, id: SubscriptionId) {
        let mut node = &mut self.root;
        for token in pattern.tokens() {
            node = match token {
                ">" => return node.rest.insert(queue, id),
                "*" => node.any.get_or_insert_default(),
                // Most inserts share all but their last token with others: no copy for those.
                _ if node.tokens.contains_key(token) => {
                    node.tokens.get_mut(token).expect("the line above has found it")
                }
                _ => node.tokens.entry(token.into()).or_default(),
            };
        }
        node.end.insert(queue, id);
    }

    pub(super) fn remove(&mut self, pattern: &Pattern, queue: Option<&QueueGroup>, id: SubscriptionId) {
        self.root.remove(Some(pattern.as_str()), queue, id);
    }

    /// Who gets a message to this subject: every plain subscription that matches, and of each queue group one
    /// member, drawn evenly from all that match under whichever pattern.
    pub(super) fn targets(
        &self,
        subject: &Subject,
        random: &mut dyn FnMut() -> u64,
        targets: &mut Vec<SubscriptionId>,
    ) {
        let mut groups: Vec<(&QueueGroup, &[SubscriptionId])> = Vec::new();
        self.root.visit(Some(subject.as_str()), &mut |interest| {
            targets.extend(&interest.plain);
            groups.extend(interest.groups.iter().map(|(name, members)| (name, members.as_slice())));
        });
        groups.sort_by_key(|(name, _)| *name);
        for group in groups.chunk_by(|(one, _), (other, _)| one == other) {
            targets.push(draw(group, random));
        }
    }

    /// [`targets`](Self::targets), but as if only these were subscribed.
    pub(super) fn targets_among(
        &self,
        subject: &Subject,
        is_there: impl Fn(SubscriptionId) -> bool,
        random: &mut dyn FnMut() -> u64,
        targets: &mut Vec<SubscriptionId>,
    ) {
        let mut groups: BTreeMap<&QueueGroup, Vec<SubscriptionId>> = BTreeMap::new();
        self.root.visit(Some(subject.as_str()), &mut |interest| {
            targets.extend(interest.plain.iter().filter(|id| is_there(**id)));
            for (name, members) in &interest.groups {
                let members = members.iter().filter(|id| is_there(**id));
                groups.entry(name).or_default().extend(members);
            }
        });
        groups.retain(|_, members| !members.is_empty());
        for (name, members) in &groups {
            targets.push(draw(&[(name, members)], random));
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.root.is_empty()
    }
}

impl Node {
    /// `rest` is what remains of the pattern's text. Nodes left empty go.
    fn remove(&mut self, rest: Option<&str>, queue: Option<&QueueGroup>, id: SubscriptionId) {
        let Some((token, rest)) = rest.map(first_token) else { return self.end.remove(queue, id) };
        match token {
            ">" => self.rest.remove(queue, id),
            "*" => {
                if let Some(any) = &mut self.any {
                    any.remove(rest, queue, id);
                }
                self.any.take_if(|any| any.is_empty());
            }
            _ => {
                let Some(node) = self.tokens.get_mut(token) else { return };
                node.remove(rest, queue, id);
                if node.is_empty() {
                    self.tokens.remove(token);
                }
            }
        }
    }

    /// Visits the interests that match what remains of a subject. As deep as a subject has tokens, at most 128.
    fn visit<'a>(&'a self, rest: Option<&str>, found: &mut impl FnMut(&'a Interest)) {
        let Some((token, rest)) = rest.map(first_token) else { return found(&self.end) };
        found(&self.rest);
        if let Some(node) = self.tokens.get(token) {
            node.visit(rest, found);
        }
        if let Some(any) = &self.any {
            any.visit(rest, found);
        }
    }

    fn is_empty(&self) -> bool {
        self.end.is_empty() && self.rest.is_empty() && self.any.is_none() && self.tokens.is_empty()
    }
}

impl Interest {
    fn insert(&mut self, queue: Option<&QueueGroup>, id: SubscriptionId) {
        match queue {
            None => self.plain.push(id),
            Some(queue) => self.groups.entry(queue.clone()).or_default().push(id),
        }
    }

    fn remove(&mut self, queue: Option<&QueueGroup>, id: SubscriptionId) {
        match queue {
            None => remove_sorted(&mut self.plain, id),
            Some(queue) => {
                let Some(members) = self.groups.get_mut(queue) else { return };
                remove_sorted(members, id);
                if members.is_empty() {
                    self.groups.remove(queue);
                }
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.plain.is_empty() && self.groups.is_empty()
    }
}

fn remove_sorted(ids: &mut Vec<SubscriptionId>, id: SubscriptionId) {
    if let Ok(at) = ids.binary_search(&id) {
        ids.remove(at);
    }
}

fn first_token(text: &str) -> (&str, Option<&str>) {
    // Faster than a search for a character, which is made for longer texts.
    match text.bytes().position(|byte| byte == b'.') {
        Some(dot) => (&text[..dot], Some(&text[dot + 1..])),
        None => (text, None),
    }
}

/// One member of a group, whose members stand in one slice per pattern; each slice has at least one.
fn draw(group: &[(&QueueGroup, &[SubscriptionId])], random: &mut dyn FnMut() -> u64) -> SubscriptionId {
    let members = || group.iter().flat_map(|(_, members)| members.iter());
    let count: usize = group.iter().map(|(_, members)| members.len()).sum();
    let at = match count {
        1 => 0,
        // The high half of the product is even over 0..count, to within 2^-64 of each.
        _ => ((u128::from(random()) * count as u128) >> 64) as usize,
    };
    *members().nth(at).expect("a group is kept only while it has members, and the draw is below their number")
}
