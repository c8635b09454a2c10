//! The operator is killed at each of its writes and reaches the same end.

use godwit::api::Migration;

use crate::gate::{Death, Gate};
use crate::world::{World, is_completed, run};

async fn undisturbed(world: &World) -> serde_json::Value {
    let operator = world.operator();
    world.create_migration("calm", |spec| spec["routing"]["routeTable"]["configMapName"] = "calm-routes".into()).await;
    world.create_cohort("calm-all", "calm").await;
    world.until_migration("calm", "completed", is_completed).await;
    world
        .until_cohort("calm-all", "done", |cohort| cohort.status.as_ref().is_some_and(|s| s.completion_time.is_some()))
        .await;
    operator.stop().await.unwrap();
    world.facts("calm", "calm-all").await
}

/// Kills each operator at the same point of its short life, until an operator has nothing left to write.
async fn killed_at_every_write(world: &World, death: Death) -> (serde_json::Value, usize) {
    world.create_migration("crm", |_| {}).await;
    world.create_cohort("all", "crm").await;
    let mut killed = 0;
    loop {
        world.clear_lease().await;
        let operator = world.operator_behind(&format!("godwit-{killed}"), Gate::new(death));
        let completed = world.until_migration("crm", "completed", is_completed);
        tokio::select! {
            () = operator.gate.death() => killed += 1,
            _ = completed => break,
        }
        assert!(killed < 300, "no end after {killed} operators: {:#?}", world.migration("crm").await.status);
        drop(operator);
    }
    world.clear_lease().await;
    let last = world.operator();
    world
        .until_cohort("all", "done", |cohort| cohort.status.as_ref().is_some_and(|s| s.completion_time.is_some()))
        .await;
    last.stop().await.unwrap();
    (world.facts("crm", "all").await, killed)
}

fn without_jobs(mut facts: serde_json::Value) -> serde_json::Value {
    facts.as_object_mut().unwrap().remove("jobs");
    facts
}

fn same_end(death: Death) {
    run(async |world| {
        let wanted = undisturbed(world).await;
        let before = world.jobs().await.len();
        let (facts, killed) = killed_at_every_write(world, death).await;
        assert!(killed > 20, "only {killed} operators were killed");
        // No attempt was made twice: as many Jobs as in the quiet run.
        assert_eq!(world.jobs().await.len(), 2 * before);
        assert_eq!(without_jobs(facts), without_jobs(wanted));
        let _: Migration = world.migration("crm").await;
    });
}

#[test]
fn an_operator_killed_after_each_write_reaches_the_same_end() {
    same_end(Death::After(1));
}

#[test]
fn an_operator_killed_before_each_second_write_reaches_the_same_end() {
    same_end(Death::Before(2));
}
