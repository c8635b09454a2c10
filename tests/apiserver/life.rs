//! A whole migration with a real Job controller, and what it costs the API server.

use std::time::Duration;

use godwit::api::Cohort;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt;
use kube::api::ListParams;

use crate::gate::Gate;
use crate::world::{World, condition, is_completed, run};

async fn happy_path(world: &World) -> Gate {
    let operator = world.operator();
    world.create_migration("crm", |_| {}).await;
    world.create_cohort("all", "crm").await;
    world.until_migration("crm", "completed", is_completed).await;
    world.until_cohort("all", "done", |cohort| phase(cohort) == "Done").await;
    let gate = operator.gate.clone();
    operator.stop().await.unwrap();
    gate
}

fn phase(cohort: &Cohort) -> String {
    cohort.status.as_ref().and_then(|status| status.phase.clone()).unwrap_or_default()
}

#[test]
fn a_migration_completes_when_its_jobs_do_and_a_step_costs_at_most_three_writes() {
    run(async |world| {
        let gate = happy_path(world).await;
        let facts = world.facts("crm", "all").await;
        assert_eq!(facts["cohort"]["owner"], "Target");
        assert_eq!(facts["cohort"]["epoch"], 2);

        let jobs = world.api::<Job>().list(&ListParams::default()).await.unwrap();
        let mut steps: Vec<_> = jobs.iter().map(|job| job.labels()["godwit.dev/step"].clone()).collect();
        steps.sort();
        assert_eq!(
            steps,
            ["assess", "backup", "copy", "cutover", "finalize", "prepare", "select", "validate", "verify-backup"]
        );
        let routes = world.api::<ConfigMap>().get("routes").await.unwrap().data.unwrap();
        assert!(routes["routes.json"].contains("Target"), "{routes:?}");

        let writes = gate.writes();
        // Finalizers and the route table are written once an object or a change of owner, not once a step.
        let of_steps = |write: &&String| write.ends_with("/status") || *write == "POST events";
        let beside_jobs = writes.iter().filter(of_steps).count();
        let taken = ["migration", "cohort"].map(|kind| facts[kind]["steps"].as_array().unwrap().len());
        let steps: usize = taken.iter().sum();
        assert!(beside_jobs <= 3 * steps, "{beside_jobs} writes for {steps} steps: {writes:#?}");
    });
}

#[test]
fn steady_state_makes_no_writes() {
    run(async |world| {
        let gate = happy_path(world).await;
        let known = gate.writes().len();
        assert!(known > 0);
        world.clear_lease().await;
        // A new operator looks at everything anew, and each change of an annotation makes it look again.
        let operator = world.operator();
        for n in 0..5 {
            world.annotate("crm", "example.org/note", &n.to_string()).await;
            tokio::time::sleep(Duration::from_millis(400)).await;
        }
        assert_eq!(operator.gate.writes(), Vec::<String>::new());
    });
}

#[test]
fn a_running_job_makes_no_writes_while_nothing_changes() {
    run(async |world| {
        world.kubelet.hold("assess");
        let operator = world.operator();
        world.create_migration("crm", |_| {}).await;
        world
            .until_migration("crm", "seen running", |migration| {
                let step = migration.status.as_ref().and_then(|status| status.step.as_ref());
                step.and_then(|step| step.job.as_ref()).is_some_and(|job| job.seen)
            })
            .await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        let known = operator.gate.writes();
        for n in 0..5 {
            world.annotate("crm", "example.org/note", &n.to_string()).await;
            tokio::time::sleep(Duration::from_millis(400)).await;
        }
        assert_eq!(operator.gate.writes(), known);
    });
}

#[test]
fn a_refusing_worker_stalls_the_migration_and_says_what_was_found() {
    run(async |world| {
        let report = serde_json::json!({"v": 1, "result": "fail", "findings": [
            {"severity": "Blocker", "code": "PrimaryKeyMissing", "object": "public.deal", "message": "Declare one."},
        ]});
        world.kubelet.end_next("assess", 65, report);
        let _operator = world.operator();
        world.create_migration("crm", |_| {}).await;
        let stalled = world
            .until_migration("crm", "stalled", |migration| {
                condition(migration, "Stalled").is_some_and(|(status, _)| status == "True")
            })
            .await;
        let status = stalled.status.unwrap();
        assert_eq!(status.findings[0].object, "public.deal");
        assert_eq!(status.attempts, 1);
    });
}

#[test]
fn a_ready_migration_shows_its_conditions_in_the_order_in_which_kstatus_reads_them() {
    run(async |world| {
        world.kubelet.hold("assess");
        let _operator = world.operator();
        world.create_migration("crm", |_| {}).await;
        let ready = world
            .until_migration("crm", "ready", |migration| {
                condition(migration, "Ready").is_some_and(|(status, _)| status == "True")
            })
            .await;
        let status = ready.status.unwrap();
        assert_eq!(status.observed_generation, ready.metadata.generation);
        let kinds: Vec<_> = status.conditions.iter().map(|condition| condition.type_.as_str()).collect();
        assert_eq!(kinds[..3], ["Reconciling", "Stalled", "Ready"]);
    });
}
