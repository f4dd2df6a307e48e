//! What hurts the users of other systems, and does not hurt here: named after the defect, or the report, that
//! it is about. Each on both versions of the servers.

mod cases;

macro_rules! on_both_versions {
    ($($case:ident)*) => { $(
        mod $case {
            use slipring_servers::Version;

            #[tokio::test]
            async fn debian() {
                super::cases::$case(Version::Debian).await;
            }

            #[tokio::test]
            async fn newer() {
                super::cases::$case(Version::Newer).await;
            }
        }
    )* };
}

on_both_versions! {
    d04_u3493_an_outage_longer_than_the_lease_heals
    d05_a_removal_that_was_compacted_is_reported
    d14_a_stop_without_servers_is_bounded
    d19_runtimes_on_one_connection_do_not_disturb_each_other
    u7932_a_blink_of_etcd_changes_nothing
    u10798_etcd_may_start_later
    u10798_nats_may_start_later
    u11144_an_instance_that_went_during_an_outage_does_not_stay
    u11144_a_component_does_not_match_a_longer_name
    u13206_a_removal_during_an_outage_is_reported
    u1592_a_watch_that_falls_silent_is_noticed
    u4904_a_caller_that_is_restarted_finds_all
    curator638_every_registration_is_back_after_a_lost_session
    a_worker_that_subscribes_again_is_waited_for
}

mod d15_a_busy_pool_does_not_lose_the_lease {
    use slipring_servers::Version;

    #[test]
    fn debian() {
        super::cases::d15_a_busy_pool_does_not_lose_the_lease(Version::Debian);
    }

    #[test]
    fn newer() {
        super::cases::d15_a_busy_pool_does_not_lose_the_lease(Version::Newer);
    }
}
