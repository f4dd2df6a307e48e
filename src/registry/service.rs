use std::sync::Arc;

use slipring_core::Result;
use slipring_core::service::{Service, ServiceReport, ServiceSpec};
use tokio::sync::OnceCell;

use crate::name::ComponentPath;
use crate::platform::Platform;

/// A component's service, shared by its endpoints: it lives as long as the longest of them.
pub(crate) struct SharedService {
    pub(crate) running: Arc<Service>,
    pub(super) _slot: Arc<ServiceSlot>,
}

/// Where the service of a component is, or will be: whoever comes first starts it, the others wait for that
/// one alone.
pub(crate) struct ServiceSlot {
    platform: Arc<Platform>,
    component: ComponentPath,
    running: OnceCell<Arc<Service>>,
}

impl ServiceSlot {
    pub(super) fn new(platform: Arc<Platform>, component: ComponentPath) -> Self {
        Self { platform, component, running: OnceCell::new() }
    }

    pub(super) async fn running(&self) -> Result<Arc<Service>> {
        self.running.get_or_try_init(|| self.start()).await.cloned()
    }

    /// What the service did, if it runs.
    pub(super) fn report(&self) -> Option<ServiceReport> {
        self.running.get().map(|service| service.report())
    }

    async fn start(&self) -> Result<Arc<Service>> {
        let platform = &self.platform;
        let spec = ServiceSpec::new(self.component.micro_name(), format!("{:x}", platform.instance))
            .with_version(env!("CARGO_PKG_VERSION"))
            .with_description(format!("slipring component {}", self.component.path()))
            .with_metadata("slipring.component", self.component.path())
            .with_metadata("slipring.service", self.component.service_name())
            .with_metadata("slipring.deployment", platform.deployment.as_str());
        Service::start(platform.messaging.clone(), platform.environment.clone(), spec).await.map(Arc::new)
    }
}
