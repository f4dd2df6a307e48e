//! One test for each scenario on each combination of backends.

use slipring_servers::Version::{Debian, Newer};

use crate::backends::Backends;
use crate::scenarios;

macro_rules! on_every_combination {
    ($($scenario:ident)*) => { $(
        mod $scenario {
            use super::*;

            on_combinations! { $scenario
                memory_memory: Backends::memory();
                etcd_debian_memory: Backends::memory().with_etcd(Debian).await;
                etcd_newer_memory: Backends::memory().with_etcd(Newer).await;
                memory_nats_debian: Backends::memory().with_nats(Debian).await;
                memory_nats_newer: Backends::memory().with_nats(Newer).await;
                etcd_nats_debian: Backends::memory().with_etcd(Debian).await.with_nats(Debian).await;
                etcd_nats_newer: Backends::memory().with_etcd(Newer).await.with_nats(Newer).await;
            }
        }
    )* };
}

macro_rules! on_combinations {
    ($scenario:ident $($combination:ident: $backends:expr;)*) => { $(
        #[tokio::test]
        async fn $combination() {
            scenarios::$scenario(&$backends).await;
        }
    )* };
}

on_every_combination! { start route stream cancel stop lost_lease rolling_restart }
