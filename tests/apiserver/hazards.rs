//! Objects that should not be as they are: they stop themselves, and nobody else.

use godwit::api::{Cohort, Migration};
use godwit::plan::names::job_name;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::events::v1::Event;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, DynamicObject};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use crate::world::{World, condition, holds_for, is_completed, of, run, until};

/// A number that the schema takes and no version of the operator can read.
fn unreadable() -> Value {
    json!({"status": {"step": {"name": "Copy", "startTime": "2026-03-01T10:00:00Z", "failures": 5_000_000_000_u64}}})
}

async fn spoil<K>(api: &Api<K>, name: &str)
where
    K: Clone + serde::de::DeserializeOwned + std::fmt::Debug,
{
    let spoiled = api.patch_status(name, &PatchParams::default(), &Patch::Merge(&unreadable())).await;
    assert!(matches!(spoiled, Err(kube::Error::SerdeError(_))), "{spoiled:?}");
}

async fn is_told(world: &World, kind: &str, name: &str) {
    until("an event about the malformed object", || async {
        let events = world.api::<Event>().list(&ListParams::default()).await.unwrap();
        events.iter().any(|event| {
            let about = event.regarding.clone().unwrap_or_default();
            about.kind.as_deref() == Some(kind)
                && about.name.as_deref() == Some(name)
                && event.reason.as_deref() == Some("InvalidSpec")
        })
    })
    .await;
}

/// The object as it is, whatever it holds.
fn loose(world: &World, kind: &str) -> Api<DynamicObject> {
    let resource =
        if kind == "Migration" { ApiResource::erase::<Migration>(&()) } else { ApiResource::erase::<Cohort>(&()) };
    Api::namespaced_with(world.client.clone(), &world.namespace, &resource)
}

fn stalled(object: &DynamicObject) -> Option<(String, String)> {
    let conditions = object.data["status"]["conditions"].as_array()?;
    let found = conditions.iter().find(|one| one["type"] == "Stalled" && one["status"] == "True")?;
    Some((found["reason"].as_str()?.to_owned(), found["message"].as_str()?.to_owned()))
}

/// The object itself says which of its fields cannot be read; kstatus shows it as failed.
async fn says_so(world: &World, kind: &str, name: &str) {
    let api = loose(world, kind);
    until("a condition on the malformed object", || async { stalled(&api.get(name).await.unwrap()).is_some() }).await;
    let object = api.get(name).await.unwrap();
    let (reason, message) = stalled(&object).unwrap();
    assert_eq!(reason, "InvalidSpec");
    assert!(message.starts_with("status.step.failures cannot be read") && message.contains("Correct it"), "{message}");
    assert_eq!(object.data["status"]["phase"], "Stalled");
    assert_eq!(object.data["status"]["observedGeneration"].as_i64(), object.metadata.generation);
    assert_eq!(object.data["status"]["step"]["failures"], 5_000_000_000_u64, "what is wrong is left for a person");
}

#[test]
fn a_malformed_object_that_is_mended_is_as_if_nothing_had_been() {
    run(async |world| {
        let _operator = world.operator();
        world.create_migration("crm", |spec| spec["suspend"] = true.into()).await;
        let paused = |migration: &Migration| condition(migration, "Paused").is_some_and(|(status, _)| status == "True");
        world.until_migration("crm", "paused", paused).await;
        spoil(&world.api::<Migration>(), "crm").await;
        says_so(world, "Migration", "crm").await;
        let mended = Patch::Merge(json!({"status": {"step": {"name": "Assess", "failures": 0}}}));
        loose(world, "Migration").patch_status("crm", &PatchParams::default(), &mended).await.unwrap();
        world.until_migration("crm", "paused again", paused).await;
        let resume = json!({"spec": {"suspend": false}});
        world.api::<Migration>().patch("crm", &PatchParams::default(), &Patch::Merge(&resume)).await.unwrap();
        world.create_cohort("all", "crm").await;
        let completed = world.until_migration("crm", "completed", is_completed).await;
        assert_eq!(condition(&completed, "Stalled"), Some(("False", "NotStalled")));
    });
}

#[test]
fn a_malformed_migration_stops_nobody_else() {
    run(async |world| {
        world.create_migration("odd", |spec| spec["suspend"] = true.into()).await;
        spoil(&world.api::<Migration>(), "odd").await;
        let _operator = world.operator();
        world.create_migration("crm", |_| {}).await;
        world.create_cohort("all", "crm").await;
        world.until_migration("crm", "completed", is_completed).await;
        is_told(world, "Migration", "odd").await;
        says_so(world, "Migration", "odd").await;
    });
}

#[test]
fn a_malformed_cohort_stops_no_other_cohort_of_its_migration() {
    run(async |world| {
        world.create_migration("crm", |_| {}).await;
        world.create_cohort("odd", "crm").await;
        spoil(&world.api::<Cohort>(), "odd").await;
        let _operator = world.operator();
        is_told(world, "Cohort", "odd").await;
        says_so(world, "Cohort", "odd").await;
        let named = holds_for("CohortNeedsAttention", &["odd", "InvalidSpec", "status.step.failures"]);
        world.until_migration("crm", "waiting for a person", named).await;
    });
}

#[test]
fn a_job_of_somebody_else_under_our_name_stalls_the_step_and_is_left_alone() {
    run(async |world| {
        let migration = world.create_migration("crm", |spec| spec["suspend"] = true.into()).await;
        let name = job_name(&migration.uid().unwrap(), "crm", "Assess", 1);
        let foreign: Job = of(json!({
            "metadata": {"name": name}, "spec": {"suspend": true, "template": {"spec": {
                "restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}],
            }}},
        }));
        let foreign = world.api::<Job>().create(&PostParams::default(), &foreign).await.unwrap();
        let _operator = world.operator();
        let resume = json!({"spec": {"suspend": false}});
        world.api::<Migration>().patch("crm", &PatchParams::default(), &Patch::Merge(&resume)).await.unwrap();
        world
            .until_migration("crm", "stalled", |migration| {
                condition(migration, "Stalled") == Some(("True", "JobNameTaken"))
            })
            .await;
        let kept = world.api::<Job>().get(&name).await.unwrap();
        assert_eq!(kept.uid(), foreign.uid());
        assert_eq!(kept.metadata.deletion_timestamp, None);
        assert_eq!(kept.metadata.owner_references, None);
    });
}

#[test]
fn a_deleted_migration_is_let_go_when_nothing_is_left_in_the_databases() {
    run(async |world| {
        world.kubelet.hold("assess");
        let _operator = world.operator();
        world.create_migration("crm", |_| {}).await;
        world
            .until_migration("crm", "under way", |migration| {
                migration.finalizers().iter().any(|name| name == "godwit.dev/finalizer")
                    && migration.status.as_ref().is_some_and(|status| status.attempts == 1)
            })
            .await;
        let api = world.api::<Migration>();
        api.delete("crm", &kube::api::DeleteParams::background()).await.unwrap();
        until("the end of the migration", || async { api.get_opt("crm").await.unwrap().is_none() }).await;
    });
}

#[test]
fn a_migration_in_a_namespace_that_is_deleted_does_not_hold_it() {
    run(async |world| {
        let _operator = world.operator();
        world.create_migration("crm", |_| {}).await;
        world.create_cohort("all", "crm").await;
        world
            .until_migration("crm", "moving", |migration| {
                migration.status.as_ref().is_some_and(|status| status.phase.as_deref() == Some("Moving"))
            })
            .await;
        let namespaces: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(world.client.clone());
        namespaces.delete(&world.namespace, &kube::api::DeleteParams::default()).await.unwrap();
        let gone = || async { world.api::<Migration>().get_opt("crm").await.unwrap().is_none() };
        until("the end of the migration", gone).await;
    });
}
