use slipring_sim::Scenario;
pub(crate) fn all() -> Vec<Scenario> {
    Vec::new()
}
