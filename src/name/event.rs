//! Paths of events.

use std::fmt;

use slipring_core::{Result, Subject};

use super::parse::Reader;
use super::path::{deployment, shown, subject};
use super::{ComponentPath, EventName, NamespaceName, NamespacePath};

/// Whose an event is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EventScope {
    /// A namespace's.
    Namespace(NamespacePath),
    /// A component's.
    Component(ComponentPath),
}

/// An event of a namespace or a component.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventPath {
    scope: EventScope,
    event: EventName,
}

impl EventPath {
    pub(super) fn new(scope: EventScope, event: EventName) -> Result<Self> {
        let path = Self { scope, event };
        Subject::new(path.text())?;
        Ok(path)
    }

    /// Whose it is.
    pub fn scope(&self) -> &EventScope {
        &self.scope
    }

    /// The event's name.
    pub fn name(&self) -> &EventName {
        &self.event
    }

    /// Where it is published: `namespace.dynamo.event`, or `namespace.dynamo.component.a.kv_events`.
    pub fn subject(&self) -> Subject {
        subject(self.text())
    }

    /// Reads a [`subject`](Self::subject).
    ///
    /// # Errors
    /// [`Error::Invalid`](slipring_core::Error::Invalid) with the position if it is the subject of no event.
    pub fn from_subject(subject: &Subject) -> Result<Self> {
        let mut reader = Reader::new("event subject", subject.as_str());
        let deployment = deployment(&mut reader, '.')?;
        reader.expect("namespace.")?;
        let namespace = reader.until_with('.', |token| NamespaceName::new(token.replace('/', ".")))?;
        let namespace = deployment.namespace(namespace);
        if reader.skip("component.") {
            return namespace.component(reader.until('.')?)?.event(reader.rest()?);
        }
        namespace.event(reader.rest()?)
    }

    fn text(&self) -> String {
        let (namespace, component) = match &self.scope {
            EventScope::Namespace(namespace) => (namespace, String::new()),
            EventScope::Component(path) => (path.namespace(), format!(".component.{}", path.name())),
        };
        // One token, also of a nested namespace: so the number of tokens alone tells a namespace's event from
        // a component's.
        let token = namespace.name().as_str().replace('.', "/");
        format!("{}namespace.{token}{component}.{}", namespace.deployment().prefix('.'), self.event)
    }
}

shown!(EventPath, self => self.subject(), self.subject());
