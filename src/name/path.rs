//! Paths: names put together, and the keys and subjects that they stand for.

use std::fmt;

use slipring_core::service::ServiceName;
use slipring_core::{Key, Prefix, Result, Subject};

use super::escape::{escape, unescape};
use super::event::{EventPath, EventScope};
use super::parse::Reader;
use super::{ComponentName, Deployment, EndpointName, EventName, NamespaceName, Reference};

const CHECKED: &str =
    "names hold nothing that keys and subjects forbid, and lengths were checked when the path was made";

/// A namespace in a deployment.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NamespacePath {
    deployment: Deployment,
    namespace: NamespaceName,
}

impl NamespacePath {
    pub(super) fn new(deployment: Deployment, namespace: NamespaceName) -> Self {
        Self { deployment, namespace }
    }

    /// The deployment.
    pub fn deployment(&self) -> &Deployment {
        &self.deployment
    }

    /// The namespace's name.
    pub fn name(&self) -> &NamespaceName {
        &self.namespace
    }

    /// The component of this name in the namespace.
    ///
    /// # Errors
    /// [`Error::Invalid`](slipring_core::Error::Invalid) if its service name would get too long.
    pub fn component(&self, name: ComponentName) -> Result<ComponentPath> {
        let path = ComponentPath { namespace: self.clone(), component: name };
        ServiceName::new(escape(&path.service_name()))?;
        Ok(path)
    }

    /// The event of this name in the namespace.
    ///
    /// # Errors
    /// [`Error::Invalid`](slipring_core::Error::Invalid) if its subject would get too long.
    pub fn event(&self, name: EventName) -> Result<EventPath> {
        EventPath::new(EventScope::Namespace(self.clone()), name)
    }

    /// Under what its components' records lie: `{namespace}/components/`.
    pub fn components(&self) -> Prefix {
        prefix(format!("{}{}/components/", self.deployment.prefix('/'), self.namespace))
    }
}

/// A component in a namespace.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ComponentPath {
    namespace: NamespacePath,
    component: ComponentName,
}

impl ComponentPath {
    /// The namespace.
    pub fn namespace(&self) -> &NamespacePath {
        &self.namespace
    }

    /// The component's name.
    pub fn name(&self) -> &ComponentName {
        &self.component
    }

    /// The endpoint of this name of the component.
    ///
    /// # Errors
    /// [`Error::Invalid`](slipring_core::Error::Invalid) if an instance's subject could get too long.
    pub fn endpoint(&self, name: EndpointName) -> Result<EndpointPath> {
        let path = EndpointPath { component: self.clone(), endpoint: name };
        // With room for the longest id. Its key is 11 bytes longer, far below the limit of keys.
        Subject::new(path.instance_subject(u64::MAX))?;
        Ok(path)
    }

    /// The event of this name of the component.
    ///
    /// # Errors
    /// [`Error::Invalid`](slipring_core::Error::Invalid) if its subject would get too long.
    pub fn event(&self, name: EventName) -> Result<EventPath> {
        EventPath::new(EventScope::Component(self.clone()), name)
    }

    /// The logical path, `dynamo/processor`: for people; it leaves the deployment out.
    pub fn path(&self) -> String {
        format!("{}/{}", self.namespace.namespace, self.component)
    }

    /// Where it lies in the store, `dynamo/components/processor`, behind the deployment.
    pub fn etcd_path(&self) -> String {
        format!("{}{}", self.namespace.components(), self.component)
    }

    /// Under what its instances' records lie, and nothing else: `{etcd_path}/`.
    pub fn records(&self) -> Prefix {
        prefix(format!("{}/", self.etcd_path()))
    }

    /// The service's name, `dynamo|processor`, behind the deployment (`@staging.dynamo|processor`): what its
    /// endpoints' subjects begin with.
    pub fn service_name(&self) -> String {
        let NamespacePath { deployment, namespace } = &self.namespace;
        format!("{}{namespace}|{}", deployment.prefix('.'), self.component)
    }

    /// The service's name as the NATS micro protocol takes it: [`service_name`](Self::service_name) with
    /// `_` as the escape, so `_` is `__`, `|` is `_p`, `.` is `_d` and `@` is `_a`.
    pub fn micro_name(&self) -> ServiceName {
        ServiceName::new(escape(&self.service_name())).expect(CHECKED)
    }

    /// Reads a [`micro_name`](Self::micro_name).
    ///
    /// # Errors
    /// [`Error::Invalid`](slipring_core::Error::Invalid) if it is the name of no component.
    pub fn from_micro_name(name: &ServiceName) -> Result<Self> {
        let text = unescape(name.as_str())?;
        let mut reader = Reader::new("service name", &text);
        let namespace =
            NamespacePath { deployment: deployment(&mut reader, '.')?, namespace: reader.until('|')? };
        namespace.component(reader.rest()?)
    }
}

/// An endpoint of a component.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointPath {
    component: ComponentPath,
    endpoint: EndpointName,
}

impl EndpointPath {
    /// The component.
    pub fn component(&self) -> &ComponentPath {
        &self.component
    }

    /// The endpoint's name.
    pub fn name(&self) -> &EndpointName {
        &self.endpoint
    }

    /// The instance of this id.
    pub fn instance(&self, id: u64) -> InstancePath {
        InstancePath { endpoint: self.clone(), id }
    }

    /// The logical path, `dynamo/processor/generate`: the canonical reference; it leaves the deployment out.
    pub fn path(&self) -> String {
        format!("{}/{}", self.component.path(), self.endpoint)
    }

    /// The endpoint as a reference, which leaves the deployment out.
    pub fn reference(&self) -> Reference {
        let namespace = self.component.namespace.name().clone();
        Reference::new(namespace, self.component.name().clone(), self.endpoint.clone())
    }

    /// Under what its instances' records lie, and nothing else: `{etcd_path}/{endpoint}:`.
    pub fn instances(&self) -> Prefix {
        prefix(format!("{}/{}:", self.component.etcd_path(), self.endpoint))
    }

    fn instance_subject(&self, id: u64) -> String {
        format!("{}.{}-{id:x}", self.component.service_name(), self.endpoint)
    }
}

/// One instance of an endpoint: what a record describes and a request is sent to.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstancePath {
    endpoint: EndpointPath,
    id: u64,
}

impl InstancePath {
    /// The endpoint.
    pub fn endpoint(&self) -> &EndpointPath {
        &self.endpoint
    }

    /// The instance id.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The key of its record: `dynamo/components/processor/generate:1a2b3c4d`.
    pub fn key(&self) -> Key {
        self.endpoint.instances().key(format_args!("{:x}", self.id)).expect(CHECKED)
    }

    /// Where it takes requests: `dynamo|processor.generate-1a2b3c4d`.
    pub fn subject(&self) -> Subject {
        subject(self.endpoint.instance_subject(self.id))
    }

    /// Reads a [`key`](Self::key).
    ///
    /// # Errors
    /// [`Error::Invalid`](slipring_core::Error::Invalid) with the position if it is the key of no instance.
    pub fn from_key(key: &Key) -> Result<Self> {
        let mut reader = Reader::new("instance key", key.as_str());
        let deployment = deployment(&mut reader, '/')?;
        let namespace = NamespacePath { deployment, namespace: reader.until('/')? };
        reader.expect("components/")?;
        let component = namespace.component(reader.until('/')?)?;
        let (endpoint, id) = reader.rest_with_id(':')?;
        Ok(Self { endpoint: component.endpoint(endpoint)?, id })
    }

    /// Reads a [`subject`](Self::subject).
    ///
    /// # Errors
    /// [`Error::Invalid`](slipring_core::Error::Invalid) with the position if it is the subject of no
    /// instance.
    pub fn from_subject(subject: &Subject) -> Result<Self> {
        let mut reader = Reader::new("instance subject", subject.as_str());
        let deployment = deployment(&mut reader, '.')?;
        let namespace = NamespacePath { deployment, namespace: reader.until('|')? };
        let component = namespace.component(reader.until('.')?)?;
        let (endpoint, id) = reader.rest_with_id('-')?;
        Ok(Self { endpoint: component.endpoint(endpoint)?, id })
    }
}

macro_rules! shown {
    ($type:ident, $self:ident => $text:expr, $debug:expr) => {
        impl fmt::Display for $type {
            fn fmt(&$self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", $text)
            }
        }

        // With the deployment, which `Display` may leave out.
        impl fmt::Debug for $type {
            fn fmt(&$self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($type), $debug)
            }
        }
    };
}

pub(super) use shown;

shown!(NamespacePath, self => self.namespace, self.components());
shown!(ComponentPath, self => self.path(), self.etcd_path());
shown!(EndpointPath, self => self.path(), self.instances());
shown!(InstancePath, self => format_args!("{}:{:x}", self.endpoint, self.id), self.key());

pub(super) fn key(text: String) -> Key {
    Key::new(text).expect(CHECKED)
}

pub(super) fn prefix(text: String) -> Prefix {
    Prefix::new(text).expect(CHECKED)
}

pub(super) fn subject(text: String) -> Subject {
    Subject::new(text).expect(CHECKED)
}

/// Reads the deployment that a key or subject may begin with.
pub(super) fn deployment(reader: &mut Reader<'_>, end: char) -> Result<Deployment> {
    if !reader.skip("@") {
        return Ok(Deployment::default());
    }
    // Not `Deployment::new`, which takes the empty text: `@` alone would be a second spelling of nothing.
    reader.until_with(end, |text| Deployment::GRAMMAR.check(text).map(|()| Deployment(text.into())))
}

#[cfg(test)]
mod tests {
    use slipring_core::Error;

    use super::*;

    fn component(deployment: &str, namespace: &str, component: &str) -> Result<ComponentPath> {
        let namespace = Deployment::new(deployment)?.namespace(NamespaceName::new(namespace)?);
        namespace.component(ComponentName::new(component)?)
    }

    fn endpoint(namespace: &str, name: &str, endpoint: &str) -> EndpointPath {
        component("", namespace, name).unwrap().endpoint(EndpointName::new(endpoint).unwrap()).unwrap()
    }

    /// Paths, keys and subjects are those of the document, letter by letter.
    #[test]
    fn the_documents_strings() {
        let processor = component("", "dynamo", "processor").unwrap();
        assert_eq!(processor.path(), "dynamo/processor");
        assert_eq!(processor.etcd_path(), "dynamo/components/processor");
        assert_eq!(processor.service_name(), "dynamo|processor");
        let generate = endpoint("dynamo", "processor", "generate").instance(0x1a2b_3c4d);
        assert_eq!(generate.subject().as_str(), "dynamo|processor.generate-1a2b3c4d");
        assert_eq!(generate.key().as_str(), "dynamo/components/processor/generate:1a2b3c4d");
        let events =
            component("", "dynamo", "a").unwrap().event(EventName::new("kv_events").unwrap()).unwrap();
        assert_eq!(events.subject().as_str(), "namespace.dynamo.component.a.kv_events");
        let event = processor.namespace().event(EventName::new("event").unwrap()).unwrap();
        assert_eq!(event.subject().as_str(), "namespace.dynamo.event");
    }

    /// D01, D02: a nested namespace has one full name everywhere, and it is one token of an event's subject.
    #[test]
    fn d01_nested_namespaces_have_one_name() {
        let worker = component("", "parent.child", "worker").unwrap();
        assert_eq!(worker.etcd_path(), "parent.child/components/worker");
        assert_eq!(worker.service_name(), "parent.child|worker");
        let event = worker.event(EventName::new("e").unwrap()).unwrap();
        assert_eq!(event.subject().as_str(), "namespace.parent/child.component.worker.e");
        let chat = endpoint("parent.child", "Worker", "chat/completions").instance(7);
        assert_eq!(chat.subject().as_str(), "parent.child|Worker.chat/completions-7");
        assert_eq!(InstancePath::from_subject(&chat.subject()).unwrap(), chat);
    }

    /// U11144: the records of `component` are not those of `component2`, nor those of `gen` those of
    /// `gen/erate`.
    #[test]
    fn u11144_prefixes_end_where_names_end() {
        use slipring_core::Range;
        let key = endpoint("ns", "component2", "gen").instance(1).key();
        assert!(!Range::from(component("", "ns", "component").unwrap().records()).contains(&key));
        assert!(Range::from(component("", "ns", "component2").unwrap().records()).contains(&key));
        let (gen_, longer) = (endpoint("ns", "c", "gen"), endpoint("ns", "c", "gen/erate"));
        assert!(Range::from(gen_.instances()).contains(&gen_.instance(1).key()));
        assert!(!Range::from(gen_.instances()).contains(&longer.instance(1).key()));
        assert!(Range::from(gen_.component().namespace().components()).contains(&longer.instance(1).key()));
    }

    /// D25: names that run together when joined carelessly stay apart, and an endpoint with a slash is read
    /// back.
    #[test]
    fn d25_names_do_not_run_together() {
        let (left, right) = (component("", "a_b", "c").unwrap(), component("", "a", "b_c").unwrap());
        assert_ne!(left.etcd_path(), right.etcd_path());
        assert_ne!(left.service_name(), right.service_name());
        assert_eq!(left.micro_name().as_str(), "a__b_pc");
        assert_eq!(right.micro_name().as_str(), "a_pb__c");
        let chat = endpoint("dynamo", "Processor", "chat/completions").instance(u64::MAX);
        assert_eq!(InstancePath::from_key(&chat.key()).unwrap(), chat);
    }

    /// A deployment is on keys, subjects and service names, and reads back.
    #[test]
    fn a_deployment_is_on_everything() {
        let path = component("staging", "dynamo", "processor").unwrap();
        assert_eq!(path.path(), "dynamo/processor");
        assert_eq!(path.etcd_path(), "@staging/dynamo/components/processor");
        assert_eq!(path.service_name(), "@staging.dynamo|processor");
        assert_eq!(path.micro_name().as_str(), "_astaging_ddynamo_pprocessor");
        assert_eq!(ComponentPath::from_micro_name(&path.micro_name()).unwrap(), path);
        let event = path.namespace().event(EventName::new("e").unwrap()).unwrap();
        assert_eq!(event.subject().as_str(), "@staging.namespace.dynamo.e");
        assert_eq!(EventPath::from_subject(&event.subject()).unwrap(), event);
    }

    /// Names that are each short enough are refused where together they are too long: at once, not at the
    /// first request.
    #[test]
    fn what_gets_too_long_together_is_refused_at_once() {
        let long = "x".repeat(63);
        let error = component("", &[&*long; 3].join("."), &long).unwrap_err();
        assert!(matches!(error, Error::Invalid { what: "service name", position: Some(200), .. }), "{error}");
        // Each underscore takes two bytes of the service name.
        assert!(component("", &"x".repeat(60), &"_".repeat(63)).is_ok());
        assert!(component("", &["_".repeat(63), "x".repeat(10)].join("."), &"_".repeat(63)).is_err());

        let path = component("", "n", "c").unwrap();
        // `n|c.` and `-` with 16 digits leave 234 bytes.
        let fits = [&*long, &*long, &*long, &long[..42]].join("/");
        let path = path.endpoint(EndpointName::new(&fits).unwrap()).unwrap();
        assert_eq!(path.instance(u64::MAX).subject().as_str().len(), 255);
        let excess = EndpointName::new(format!("{fits}x")).unwrap();
        let error = path.component().endpoint(excess).unwrap_err();
        assert!(matches!(error, Error::Invalid { what: "subject", position: Some(255), .. }), "{error}");

        let deep = NamespaceName::new([&*long, &*long].join(".")).unwrap();
        let path = Deployment::default().namespace(deep).component(ComponentName::new("c").unwrap()).unwrap();
        assert!(path.event(EventName::new(&long).unwrap()).is_ok());
        let staging = Deployment::new(&long).unwrap().namespace(path.namespace().name().clone());
        assert!(staging.event(EventName::new(&long).unwrap()).is_err());
    }

    /// A key or subject that is not exactly what an instance has is refused, with the place.
    #[test]
    fn foreign_keys_are_refused() {
        for (text, byte) in [
            ("$slipring/store", 0),
            ("dynamo", 6),
            ("dynamo/component/p/g:1", 7),
            ("dynamo/components/p", 19),
            ("dynamo/components/p/g", 21),
            ("dynamo/components/p/:1", 20),
            ("dynamo/components/p/g:", 22),
            ("dynamo/components/p/g:1A", 22),
            ("dynamo/components/p/g:01", 22),
            ("dynamo/components/p/g:+1", 22),
            ("dynamo/components/p/g:10000000000000000", 22),
            ("dynamo/components/p|/g:1", 19),
            ("@/dynamo/components/p/g:1", 1),
            ("Dynamo/components/p/g:1", 0),
        ] {
            let result = InstancePath::from_key(&Key::new(text).unwrap());
            let Err(Error::Invalid { position, .. }) = result else { panic!("{text}: {result:?}") };
            assert_eq!(position, Some(byte), "{text:?}");
        }
        for text in
            ["_INBOX.1", "namespace.dynamo.e", "a|b", "a|b.c", "a|b.c-", "a|b.c-0x1", "$SRV.PING.a_pb"]
        {
            assert!(InstancePath::from_subject(&Subject::new(text).unwrap()).is_err(), "{text}");
        }
        for text in ["namespace", "namespace.a", "namespace.a.b.c", "namespace.component.e", "a|b.c-1"] {
            assert!(EventPath::from_subject(&Subject::new(text).unwrap()).is_err(), "{text}");
        }
        for text in ["a", "a_", "a_x", "a_pb_", "a_pb_pc"] {
            assert!(ComponentPath::from_micro_name(&ServiceName::new(text).unwrap()).is_err(), "{text}");
        }
    }
}
