//! The kit's macro makes a test of each case.

use slipring_memory::Profile;

mod outages;
mod world;

slipring_conformance::tests! {
    clock: Paused,
    fixture: async || world::WorldFixture::of(Profile::exact()),
    skips: outages::outages(),
}
