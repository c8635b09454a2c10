//! A Migration is deleted and created again under the same name, in each of its steps: nothing of the former one is taken over.

use godwit::api::{Cohort, Migration};
use k8s_openapi::api::batch::v1::Job;
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams};

use crate::world::{World, is_completed, run, until};

async fn is_running(world: &World, step: &str) {
    let labelled = ListParams::default().labels(&format!("godwit.dev/step={step}"));
    let api = world.api::<k8s_openapi::api::core::v1::Pod>();
    until("the step's pod", || async {
        api.list(&labelled).await.unwrap().iter().any(|pod| pod.metadata.deletion_timestamp.is_none())
    })
    .await;
}

async fn is_gone<K>(world: &World, name: &str)
where
    K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned,
{
    let api = world.api::<K>();
    api.delete(name, &DeleteParams::background()).await.unwrap();
    until("the end of the object", || async { api.get_opt(name).await.unwrap().is_none() }).await;
}

fn replaced(cohort: &Cohort) -> bool {
    let conditions = cohort.status.iter().flat_map(|status| &status.conditions);
    conditions
        .into_iter()
        .any(|one| one.type_ == "Stalled" && one.reason == "MigrationReplaced" && one.status == "True")
}

fn in_steps(steps: &'static [&'static str]) {
    run(async |world| {
        let _operator = world.operator();
        for step in steps {
            world.kubelet.hold(step);
            let first = world.create_migration("crm", |_| {}).await;
            world.create_cohort("all", "crm").await;
            is_running(world, step).await;
            let api = world.api::<Migration>();
            api.delete("crm", &DeleteParams::background()).await.unwrap();
            // A deletion lets a cohort's Job that is under way end; it starts no other.
            world.kubelet.release(step);
            until("the end of the first", || async { api.get_opt("crm").await.unwrap().is_none() }).await;
            let second = world.create_migration("crm", |_| {}).await;
            assert_ne!(first.uid(), second.uid());
            if ["select", "copy", "validate", "cutover", "finalize"].contains(step) {
                world.until_cohort("all", "disowned", replaced).await;
                is_gone::<Cohort>(world, "all").await;
                world.create_cohort("all", "crm").await;
            }
            world.until_migration("crm", "completed", is_completed).await;
            let jobs = world.api::<Job>().list(&ListParams::default()).await.unwrap();
            let mut of_second: Vec<String> = jobs
                .iter()
                .filter(|job| job.owner_references().iter().any(|owner| Some(&owner.uid) == second.uid().as_ref()))
                .map(|job| job.labels()["godwit.dev/step"].clone())
                .collect();
            of_second.sort();
            assert_eq!(of_second, ["assess", "backup", "finalize", "prepare", "verify-backup"], "in {step}");
            is_gone::<Cohort>(world, "all").await;
            is_gone::<Migration>(world, "crm").await;
        }
    });
}

#[test]
fn a_migration_created_again_in_one_of_its_own_steps_begins_at_the_beginning() {
    in_steps(&["assess", "backup", "verify-backup", "prepare", "finalize"]);
}

#[test]
fn a_migration_created_again_in_a_step_of_its_cohort_does_not_take_the_cohort_over() {
    in_steps(&["select", "copy", "validate", "cutover"]);
}
