//! The API server is away for a while: connections break, none is taken, and what happens meanwhile is found out afterwards.

use std::time::Duration;

use k8s_openapi::api::batch::v1::Job;
use kube::ResourceExt;
use kube::api::ListParams;

use crate::line::Line;
use crate::world::{World, is_completed, run, until};

/// Nine steps have a Job; with one more an attempt was made twice.
const JOBS: usize = 9;

async fn is_running(world: &World, step: &str) {
    let labelled = ListParams::default().labels(&format!("godwit.dev/step={step}"));
    let api = world.api::<k8s_openapi::api::core::v1::Pod>();
    until("the step's pod", || async { !api.list(&labelled).await.unwrap().items.is_empty() }).await;
}

async fn has_ended(world: &World, step: &str) {
    let labelled = ListParams::default().labels(&format!("godwit.dev/step={step}"));
    until("the end of the step's Job", || async {
        let jobs = world.api::<Job>().list(&labelled).await.unwrap();
        jobs.iter().any(|job| job.status.as_ref().is_some_and(|status| status.completion_time.is_some()))
    })
    .await;
}

#[test]
fn an_api_server_that_is_away_for_a_minute_while_a_job_ends_costs_time_and_nothing_else() {
    run(async |world| {
        let line = Line::to(world.port()).await;
        world.kubelet.hold("backup");
        let operator = world.operator_over(&line, "godwit-1", Duration::from_secs(120));
        world.create_migration("crm", |_| {}).await;
        world.create_cohort("all", "crm").await;
        is_running(world, "backup").await;
        line.cut();
        world.kubelet.release("backup");
        has_ended(world, "backup").await;
        // Long enough for every backoff to have grown.
        tokio::time::sleep(Duration::from_secs(60)).await;
        let away = world.migration("crm").await;
        line.mend();
        let completed = world.until_migration("crm", "completed", is_completed).await;
        assert_eq!(away.status.unwrap().phase.as_deref(), Some("BackingUp"), "nothing was written over the cut line");
        assert_eq!(completed.uid(), world.migration("crm").await.uid());
        assert_eq!(world.jobs().await.len(), JOBS);
        drop(operator);
    });
}

#[test]
fn an_operator_that_cannot_renew_its_lease_ends_and_its_restart_takes_everything_up() {
    run(async |world| {
        let line = Line::to(world.port()).await;
        world.kubelet.hold("copy");
        let mut operator = world.operator_over(&line, "godwit-1", Duration::from_secs(8));
        world.create_migration("crm", |_| {}).await;
        world.create_cohort("all", "crm").await;
        is_running(world, "copy").await;
        line.cut();
        world.kubelet.release("copy");
        let ended = operator.ended().await.unwrap_err();
        assert!(ended.contains("could not be renewed"), "{ended}");
        has_ended(world, "copy").await;
        line.mend();
        let _restarted = world.operator_over(&line, "godwit-2", Duration::from_secs(60));
        world.until_migration("crm", "completed", is_completed).await;
        assert_eq!(world.jobs().await.len(), JOBS);
    });
}
