//! How the component model writes names, as far as a check has to know.

/// The key of an instance's record, without the prefix of its deployment.
/// `endpoint` is `namespace/component/endpoint`.
pub(crate) fn record_key(endpoint: &str, instance: u64) -> String {
    let mut parts = endpoint.splitn(3, '/');
    let (namespace, component) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let endpoint = parts.next().unwrap_or_default();
    format!("{namespace}/components/{component}/{endpoint}:{instance:x}")
}

/// A key without the prefix of its deployment, if it may be a record's.
pub(crate) fn bare(key: &str) -> Option<&str> {
    let bare = match key.strip_prefix('@') {
        Some(deployed) => deployed.split_once('/')?.1,
        None => key,
    };
    (bare.contains("/components/") && bare.contains(':')).then_some(bare)
}
