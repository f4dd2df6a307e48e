//! What holds of all names.

use proptest::prelude::*;
use slipring_core::service::ServiceName;
use slipring_core::{Error, Key, Subject};

use super::*;

/// Few letters and every separator, so that what might collide is generated often.
fn small(letters: &str, separators: &str) -> impl Strategy<Value = String> + use<> {
    proptest::string::string_regex(&format!("{letters}{{1,3}}({separators}{letters}{{1,2}}){{0,2}}"))
        .expect("a regular expression")
}

fn deployments() -> impl Strategy<Value = Deployment> {
    prop_oneof![3 => Just(String::new()), 2 => "[ab_-]{1,2}", 1 => "[a-z0-9_-]{1,63}"]
        .prop_map(|text| Deployment::new(text).unwrap())
}

fn namespaces() -> impl Strategy<Value = NamespaceName> {
    prop_oneof![4 => small("[ab_-]", "[.]"), 1 => "[a-z0-9_-]{1,63}([.][a-z0-9_-]{1,20}){0,3}"]
        .prop_filter_map("reserved", |text| NamespaceName::new(text).ok())
}

fn tokens() -> impl Strategy<Value = String> {
    prop_oneof![4 => "[abP_-]{1,3}", 1 => Just("component".to_owned()), 1 => "[A-Za-z0-9_-]{1,63}"]
}

fn endpoint_names() -> impl Strategy<Value = EndpointName> {
    prop_oneof![4 => small("[a1F_-]", "[./]"), 1 => "[A-Za-z0-9_-]{1,63}([./][A-Za-z0-9_-]{1,40}){0,3}"]
        .prop_map(|text| EndpointName::new(text).unwrap())
}

fn ids() -> impl Strategy<Value = u64> {
    prop_oneof![0..32_u64, any::<u64>(), Just(u64::MAX)]
}

fn components() -> impl Strategy<Value = ComponentPath> {
    (deployments(), namespaces(), tokens()).prop_filter_map(
        "too long together",
        |(deployment, namespace, token)| {
            deployment.namespace(namespace).component(ComponentName::new(token).unwrap()).ok()
        },
    )
}

fn instances() -> impl Strategy<Value = InstancePath> {
    (components(), endpoint_names(), ids())
        .prop_filter_map("too long together", |(component, endpoint, id)| {
            Some(component.endpoint(endpoint).ok()?.instance(id))
        })
}

/// Two instances that may agree in any of their parts.
fn pairs() -> impl Strategy<Value = (InstancePath, InstancePath)> {
    (instances(), instances(), any::<[bool; 5]>()).prop_filter_map("too long together", |(a, b, same)| {
        let of = |part: usize| if same[part] { &a } else { &b };
        let component = |part| of(part).endpoint().component();
        let namespace =
            component(0).namespace().deployment().namespace(component(1).namespace().name().clone());
        let mixed = namespace.component(component(2).name().clone()).ok()?;
        let mixed = mixed.endpoint(of(3).endpoint().name().clone()).ok()?.instance(of(4).id());
        Some((a, mixed))
    })
}

fn events() -> impl Strategy<Value = EventPath> {
    (components(), tokens(), any::<bool>()).prop_filter_map(
        "too long together",
        |(component, event, whole)| {
            let event = EventName::new(event).unwrap();
            if whole { component.namespace().event(event).ok() } else { component.event(event).ok() }
        },
    )
}

proptest! {
    /// Keys, subjects and service names decode back to what they were made of, so no two instances share
    /// one.
    #[test]
    fn d25_instances_decode_back(path in instances()) {
        prop_assert_eq!(InstancePath::from_key(&path.key()).unwrap(), path.clone());
        prop_assert_eq!(InstancePath::from_subject(&path.subject()).unwrap(), path.clone());
        let component = path.endpoint().component();
        prop_assert_eq!(&ComponentPath::from_micro_name(&component.micro_name()).unwrap(), component);
        let range = Range::from(path.endpoint().instances());
        prop_assert!(range.contains(&path.key()));
        prop_assert!(Range::from(component.records()).contains(&path.key()));
        prop_assert!(Range::from(component.namespace().components()).contains(&path.key()));
        prop_assert!(component.namespace().deployment().range().contains(&path.key()));
    }

    /// Two instances that differ share no key, subject or (if of different components) service name, and
    /// are in each other's prefixes only if they have that part in common.
    #[test]
    fn d25_different_instances_have_nothing_in_common((a, b) in pairs()) {
        prop_assert_eq!(a == b, a.key() == b.key());
        prop_assert_eq!(a == b, a.subject() == b.subject());
        let (left, right) = (a.endpoint(), b.endpoint());
        prop_assert_eq!(left == right, Range::from(left.instances()).contains(&b.key()));
        let (left, right) = (left.component(), right.component());
        prop_assert_eq!(left == right, left.micro_name() == right.micro_name());
        prop_assert_eq!(left == right, Range::from(left.records()).contains(&b.key()));
        let (left, right) = (left.namespace(), right.namespace());
        prop_assert_eq!(left == right, Range::from(left.components()).contains(&b.key()));
    }

    /// Events decode back, and are never taken for instances, nor instances for events.
    #[test]
    fn events_decode_back(event in events(), instance in instances()) {
        prop_assert_eq!(EventPath::from_subject(&event.subject()).unwrap(), event.clone());
        prop_assert!(InstancePath::from_subject(&event.subject()).is_err());
        prop_assert!(EventPath::from_subject(&instance.subject()).is_err());
    }

    /// Two events that differ share no subject.
    #[test]
    fn different_events_have_different_subjects(a in events(), b in events()) {
        prop_assert_eq!(a == b, a.subject() == b.subject());
    }

    /// Whatever decodes is written back as the very same text: nothing has two spellings.
    #[test]
    fn nothing_has_two_spellings(
        text in "(@?[ab]?[/.])?[ab.]{1,3}(/components/|[|])[ab]{1,2}[/.][ab/.-]{1,4}[:-][01aA]{0,3}",
        event in "(@a[.])?namespace[.][ab/]{0,3}[.](component[.])?[ab.]{1,4}",
        micro in "(_a[a_]_d)?[ab_dp]{1,8}",
    ) {
        if let Ok(path) = InstancePath::from_key(&Key::new(&text).unwrap()) {
            prop_assert_eq!(path.key().to_string(), text.clone());
        }
        for subject in [Subject::new(&text), Subject::new(&event)].into_iter().flatten() {
            if let Ok(path) = InstancePath::from_subject(&subject) {
                prop_assert_eq!(path.subject(), subject.clone());
            }
            if let Ok(path) = EventPath::from_subject(&subject) {
                prop_assert_eq!(path.subject(), subject);
            }
        }
        let micro = ServiceName::new(micro).unwrap();
        if let Ok(path) = ComponentPath::from_micro_name(&micro) {
            prop_assert_eq!(path.micro_name(), micro);
        }
    }

    /// What a reference displays reads back as the same reference, nested namespaces included.
    #[test]
    fn references_read_back(namespace in namespaces(), token in tokens(), endpoint in endpoint_names()) {
        let reference = Reference::new(namespace, ComponentName::new(token).unwrap(), endpoint);
        prop_assert_eq!(reference.to_string().parse::<Reference>().unwrap(), reference);
    }

    /// The dotted form of a flat namespace is read as it was written, unless it can be read as canonical too.
    #[test]
    fn canonical_wins_over_dotted(
        namespace in "[ab]{1,2}",
        component in "[aB]{1,2}",
        endpoint in "[ab]{1,2}([./][ab]{1,2}){0,3}",
    ) {
        let text = format!("{namespace}.{component}.{endpoint}");
        let slashed: Vec<_> = text.splitn(3, '/').collect();
        let canonical = matches!(*slashed, [first, second, _] if !first.contains('B') && !second.contains('.'));
        let expected =
            if canonical { text.clone() } else { format!("{namespace}/{component}/{endpoint}") };
        prop_assert_eq!(text.parse::<Reference>().unwrap().to_string(), expected);
    }

    /// Every refusal points into the input or at its end, at the beginning of a character.
    #[test]
    fn every_refusal_points_into_the_input(
        text in prop_oneof![any::<String>(), "[aB./|@_: é-]{0,12}", "[a-z./]{60,70}", "([a-z]{1,9}[./]){25,40}"],
    ) {
        let refusals = [
            NamespaceName::new(&text).err(),
            ComponentName::new(&text).err(),
            EndpointName::new(&text).err(),
            EventName::new(&text).err(),
            Deployment::new(&text).err(),
            text.parse::<Reference>().err(),
            Key::new(&text).ok().and_then(|key| InstancePath::from_key(&key).err()),
            Subject::new(&text).ok().and_then(|subject| InstancePath::from_subject(&subject).err()),
            Subject::new(&text).ok().and_then(|subject| EventPath::from_subject(&subject).err()),
            ServiceName::new(&text).ok().and_then(|name| ComponentPath::from_micro_name(&name).err()),
        ];
        for error in refusals.into_iter().flatten() {
            let Error::Invalid { input, position: Some(position), .. } = &error else { panic!("{error:?}") };
            prop_assert!(input.is_char_boundary(*position), "{}", error);
        }
    }
}
