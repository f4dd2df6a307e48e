//! References: how people write which endpoint they mean.

use std::fmt;
use std::str::FromStr;

use slipring_core::{Error, Result};

use super::parse::Reader;
use super::{ComponentName, Deployment, EndpointName, EndpointPath, NamespaceName};

const WHAT: &str = "endpoint reference";

/// An endpoint as people write it, in one of two forms:
/// - `namespace/component/endpoint`, the canonical one, which `Display` writes. The endpoint may hold
///   further slashes, the namespace may be nested.
/// - `namespace.Component.endpoint`, such as `dynamo.Processor.chat/completions`: split at its first two
///   dots, so its namespace is flat.
///
/// A text that can be read as canonical is, and only otherwise is the dotted form tried: what is displayed
/// always reads back. The consequence: `a.b.c/d/e` is the endpoint `e` of component `d` in the nested
/// namespace `a.b.c`, and not the endpoint `c/d/e`; the canonical `a/b/c/d/e` says the latter.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    namespace: NamespaceName,
    component: ComponentName,
    endpoint: EndpointName,
}

impl Reference {
    /// A reference of its parts.
    pub fn new(namespace: NamespaceName, component: ComponentName, endpoint: EndpointName) -> Self {
        Self { namespace, component, endpoint }
    }

    /// The namespace.
    pub fn namespace(&self) -> &NamespaceName {
        &self.namespace
    }

    /// The component.
    pub fn component(&self) -> &ComponentName {
        &self.component
    }

    /// The endpoint.
    pub fn endpoint(&self) -> &EndpointName {
        &self.endpoint
    }

    /// The endpoint that is meant in a deployment.
    ///
    /// # Errors
    /// [`Error::Invalid`] if its keys or subjects could get too long.
    pub fn path(&self, deployment: &Deployment) -> Result<EndpointPath> {
        let namespace = deployment.namespace(self.namespace.clone());
        namespace.component(self.component.clone())?.endpoint(self.endpoint.clone())
    }

    fn split_at(separator: char, text: &str) -> Result<Self> {
        let mut reader = Reader::new(WHAT, text);
        Ok(Self::new(reader.until(separator)?, reader.until(separator)?, reader.rest()?))
    }
}

/// Reads either form.
impl FromStr for Reference {
    type Err = Error;

    /// # Errors
    /// [`Error::Invalid`] with the position, naming the part that is wrong.
    fn from_str(text: &str) -> Result<Self> {
        Self::split_at('/', text).or_else(|canonical| {
            let parts = |separator| text.splitn(3, separator).count();
            // The form that has its three parts is the one that was meant.
            let dotted_was_meant = parts('.') == 3 && parts('/') < 3;
            Self::split_at('.', text).map_err(|dotted| if dotted_was_meant { dotted } else { canonical })
        })
    }
}

/// The canonical form.
impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.namespace, self.component, self.endpoint)
    }
}

impl fmt::Debug for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reference({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str) -> (String, String, String) {
        let reference: Reference = text.parse().unwrap();
        let Reference { namespace, component, endpoint } = &reference;
        (namespace.to_string(), component.to_string(), endpoint.to_string())
    }

    fn expect(text: &str, namespace: &str, component: &str, endpoint: &str) {
        assert_eq!(parts(text), (namespace.into(), component.into(), endpoint.into()), "{text}");
    }

    /// The document's reference, and every form around it.
    #[test]
    fn both_forms_are_read() {
        expect("dynamo.Processor.chat/completions", "dynamo", "Processor", "chat/completions");
        expect("dynamo/Processor/chat/completions", "dynamo", "Processor", "chat/completions");
        expect("dynamo.processor.generate", "dynamo", "processor", "generate");
        expect("dynamo.processor.v1.chat", "dynamo", "processor", "v1.chat");
        expect("parent.child/worker/generate", "parent.child", "worker", "generate");
        expect("dynamo/processor/v1.chat", "dynamo", "processor", "v1.chat");
    }

    /// Canonical wins wherever it can be read; upper case or too few slashes make a text dotted.
    #[test]
    fn canonical_wins() {
        expect("a.b.c/d/e", "a.b.c", "d", "e");
        expect("a/b/c/d/e", "a", "b", "c/d/e");
        expect("a.B.c/d/e", "a", "B", "c/d/e");
    }

    /// An error names the part that is wrong, and points into the whole text.
    #[test]
    fn errors_name_the_part() {
        for (text, byte, part) in [
            ("Dynamo/processor/generate", 0, "namespace: "),
            ("dynamo/pro cessor/generate", 10, "component: "),
            ("dynamo/processor/gen//erate", 21, "endpoint: "),
            ("dynamo/processor/", 17, "endpoint: "),
            ("dynamo.Pro|cessor.generate", 10, "component: "),
            ("a.b/c!/d.e", 5, "component: "),
            ("Dynamo.Processor.chat/completions", 0, "namespace: "),
            ("dynamo.Processor.", 17, "endpoint: "),
            ("component/a/b", 0, "namespace: "),
            ("dynamo/processor", 16, "expected '/'"),
            ("dynamo", 6, "expected '/'"),
            ("", 0, "expected '/'"),
        ] {
            let result = text.parse::<Reference>();
            let Err(Error::Invalid { position, problem, .. }) = result else { panic!("{text}: {result:?}") };
            assert_eq!(position, Some(byte), "{text:?}: {problem}");
            assert!(problem.contains(part), "{text:?}: {problem}");
        }
    }

    /// A reference becomes a path in a deployment, and back.
    #[test]
    fn a_reference_is_a_path_without_deployment() {
        let reference: Reference = "dynamo.Processor.chat/completions".parse().unwrap();
        let path = reference.path(&Deployment::new("staging").unwrap()).unwrap();
        assert_eq!(path.reference(), reference);
        assert_eq!(path.path(), reference.to_string());
        assert_eq!(path.component().etcd_path(), "@staging/dynamo/components/Processor");
    }
}
