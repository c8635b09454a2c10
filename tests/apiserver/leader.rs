//! Leader election on a real API server: one acts, a standby takes over, who lost the lease ends.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use crate::gate::{Death, Gate};
use crate::world::{Operator, World, run, until};

async fn holder(world: &World) -> Option<String> {
    let lease = world.api::<Lease>().get_opt("godwit").await.unwrap()?;
    lease.spec?.holder_identity
}

async fn held_by(world: &World, identity: &str) {
    until("the lease changes hands", || async { holder(world).await.as_deref() == Some(identity) }).await;
}

/// Long enough for a busy machine, short enough to wait for.
const LEASE: Duration = Duration::from_secs(8);

fn operator(world: &World, identity: &str) -> Operator {
    world.operator_with_lease(identity, Gate::new(Death::Never), LEASE)
}

#[test]
fn a_standby_writes_nothing_until_the_leader_gives_the_lease_up() {
    run(async |world| {
        let leader = operator(world, "first");
        held_by(world, "first").await;
        let standby = operator(world, "second");
        world.create_migration("crm", |_| {}).await;
        world
            .until_migration("crm", "started", |migration| {
                migration.status.as_ref().is_some_and(|status| status.attempts > 0)
            })
            .await;
        assert_eq!(standby.gate.writes(), Vec::<String>::new());
        leader.stop().await.unwrap();
        held_by(world, "second").await;
    });
}

#[test]
fn an_operator_whose_lease_is_taken_by_force_ends() {
    run(async |world| {
        let mut operator = operator(world, "first");
        held_by(world, "first").await;
        let theft = json!({"spec": {"holderIdentity": "thief"}});
        world.api::<Lease>().patch("godwit", &PatchParams::default(), &Patch::Merge(&theft)).await.unwrap();
        let error = operator.ended().await.unwrap_err();
        assert!(error.contains("thief"), "{error}");
        assert_eq!(holder(world).await.as_deref(), Some("thief"));
    });
}

#[test]
fn an_operator_that_the_api_server_does_not_answer_ends_and_a_standby_takes_over() {
    run(async |world| {
        let mut leader = operator(world, "first");
        held_by(world, "first").await;
        let _standby = operator(world, "second");
        leader.gate.cut();
        let error = leader.ended().await.unwrap_err();
        assert!(error.contains("could not be renewed"), "{error}");
        held_by(world, "second").await;
    });
}

#[test]
fn of_two_standbys_one_takes_over() {
    run(async |world| {
        let leader = operator(world, "first");
        held_by(world, "first").await;
        let standbys = [operator(world, "second"), operator(world, "third")];
        drop(leader);
        until("a standby leads", || async { holder(world).await.is_some_and(|holder| holder != "first") }).await;
        world.create_migration("crm", |_| {}).await;
        world
            .until_migration("crm", "started", |migration| {
                migration.status.as_ref().is_some_and(|status| status.attempts > 0)
            })
            .await;
        let writing = standbys.iter().filter(|standby| !standby.gate.writes().is_empty()).count();
        assert_eq!(writing, 1);
    });
}
