//! What happens to Jobs and pods: they wait for something that is not there, are suspended, deleted, evicted, lost with their node.
//! Each time the object says which, the attempt goes on or is repeated, and nothing is done twice.

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::world::{Operator, World, holds_for, is_completed, message, run, stalled_for, until};

/// A migration of one cohort whose pods of that step run until they are released.
async fn held_at(world: &World, step: &str) -> Operator {
    world.kubelet.hold(step);
    let operator = world.operator();
    world.create_migration("crm", |_| {}).await;
    world.create_cohort("all", "crm").await;
    operator
}

/// The only pod of a step that has not ended.
async fn pod_of(world: &World, step: &str, but: &str) -> Pod {
    let labelled = ListParams::default().labels(&format!("godwit.dev/step={step}"));
    let api = world.api::<Pod>();
    let fresh = || async {
        let pods = api.list(&labelled).await.unwrap().items;
        pods.into_iter().find(|pod| pod.name_any() != but && pod.metadata.deletion_timestamp.is_none())
    };
    until("the step's pod", || async { fresh().await.is_some() }).await;
    fresh().await.unwrap()
}

async fn job_of(world: &World, step: &str) -> Job {
    let labelled = ListParams::default().labels(&format!("godwit.dev/step={step}"));
    let api = world.api::<Job>();
    until("the step's Job", || async { !api.list(&labelled).await.unwrap().items.is_empty() }).await;
    api.list(&labelled).await.unwrap().items.remove(0)
}

/// What the kubelet would write; then the operator is woken, which otherwise looks at a running Job every ten seconds.
async fn report(world: &World, pod: &str, status: Value, times: u32) {
    let patch = Patch::Merge(json!({"status": status}));
    world.api::<Pod>().patch_status(pod, &PatchParams::default(), &patch).await.unwrap();
    world.annotate("crm", "example.org/woken", &times.to_string()).await;
}

fn waiting(reason: &str, message: &str) -> Value {
    json!({"phase": "Pending", "containerStatuses": [{"name": "step", "image": "i", "imageID": "", "ready": false,
        "restartCount": 0, "state": {"waiting": {"reason": reason, "message": message}}}]})
}

async fn attempts(world: &World) -> i64 {
    world.migration("crm").await.status.unwrap().attempts
}

#[test]
fn a_pod_that_waits_for_a_secret_a_key_or_an_image_is_a_condition_that_names_it() {
    run(async |world| {
        let _operator = held_at(world, "assess").await;
        let pod = pod_of(world, "assess", "").await.name_any();

        report(world, &pod, waiting("CreateContainerConfigError", "secret \"old\" not found"), 1).await;
        let named = stalled_for("SecretNotFound", &["secret \"old\"", "key uri", "Create that Secret"]);
        world.until_migration("crm", "waiting for a Secret", named).await;

        let missing = "couldn't find key uri in Secret shop/new";
        report(world, &pod, waiting("CreateContainerConfigError", missing), 2).await;
        world
            .until_migration("crm", "waiting for a key", stalled_for("SecretNotFound", &["key uri in Secret shop/new"]))
            .await;

        report(world, &pod, waiting("ImagePullBackOff", "Back-off pulling: ErrImagePull: not found"), 3).await;
        let named =
            stalled_for("ImageNotPulled", &["image godwit:test cannot be pulled: not found", "starts by itself"]);
        world.until_migration("crm", "waiting for an image", named).await;

        world.kubelet.release("assess");
        world.until_migration("crm", "completed", is_completed).await;
        assert_eq!(attempts(world).await, 5, "the pod that waited is the one that went on");
    });
}

#[test]
fn a_job_suspended_by_hand_is_named_and_goes_on_when_it_is_resumed() {
    run(async |world| {
        let _operator = held_at(world, "backup").await;
        let job = job_of(world, "backup").await.name_any();
        let suspend = |how: bool| Patch::Merge(json!({"spec": {"suspend": how}}));
        world.api::<Job>().patch(&job, &PatchParams::default(), &suspend(true)).await.unwrap();
        let named = holds_for("JobSuspended", &["is suspended", "kubectl patch job"]);
        let told = world.until_migration("crm", "suspended", named).await;
        assert!(message(&told, "Progressing").contains(&job));
        world.kubelet.release("backup");
        world.api::<Job>().patch(&job, &PatchParams::default(), &suspend(false)).await.unwrap();
        world.until_migration("crm", "completed", is_completed).await;
        assert_eq!(attempts(world).await, 5);
    });
}

#[test]
fn a_job_deleted_by_hand_is_a_failed_attempt_that_is_named_and_the_next_one_completes() {
    run(async |world| {
        let _operator = held_at(world, "backup").await;
        let job = job_of(world, "backup").await.name_any();
        world
            .until_migration("crm", "seen running", |migration| {
                let step = migration.status.as_ref().and_then(|status| status.step.as_ref());
                step.is_some_and(|step| step.name == "Backup" && step.job.as_ref().is_some_and(|job| job.seen))
            })
            .await;
        world.api::<Job>().delete(&job, &DeleteParams::background()).await.unwrap();
        let told = world
            .until_migration("crm", "retrying", |migration| message(migration, "Progressing").contains("vanished"))
            .await;
        assert!(message(&told, "Progressing").contains(&job), "{}", message(&told, "Progressing"));
        world.kubelet.release("backup");
        world.until_migration("crm", "completed", is_completed).await;
        assert_eq!(attempts(world).await, 6);
        assert!(!world.jobs().await.contains(&job), "a name is used once");
    });
}

#[test]
fn an_evicted_pod_is_replaced_within_its_attempt() {
    run(async |world| {
        let _operator = held_at(world, "assess").await;
        let evicted = pod_of(world, "assess", "").await;
        let (evicted, created) = (evicted.name_any(), evicted.metadata.creation_timestamp);
        let status = json!({"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory.",
            "conditions": [{"type": "DisruptionTarget", "status": "True", "reason": "TerminationByKubelet",
                "lastTransitionTime": created}]});
        report(world, &evicted, status, 1).await;
        let fresh = pod_of(world, "assess", &evicted).await.name_any();
        assert_ne!(fresh, evicted);
        world.kubelet.release("assess");
        world.until_migration("crm", "completed", is_completed).await;
        assert_eq!(attempts(world).await, 5);
    });
}

#[test]
fn a_pod_on_a_node_that_does_not_answer_is_named_and_replaced_only_when_it_is_known_to_have_ended() {
    run(async |world| {
        let _operator = held_at(world, "assess").await;
        let lost = pod_of(world, "assess", "").await;
        // A mark that is older than two minutes would be taken away as stale.
        let (lost, created) = (lost.name_any(), lost.metadata.creation_timestamp);
        let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": lost},
            "target": {"apiVersion": "v1", "kind": "Node", "name": "node-that-is-gone"}});
        let bound: Result<Value, kube::Error> =
            world.api::<Pod>().create_subresource("binding", &lost, &PostParams::default(), &binding).await;
        bound.unwrap();
        let running = json!({"phase": "Running", "conditions": [{"type": "DisruptionTarget", "status": "True",
            "reason": "DeletionByTaintManager", "message": "Taint manager: deleting due to NoExecute taint",
            "lastTransitionTime": created}]});
        report(world, &lost, running, 1).await;
        world.api::<Pod>().delete(&lost, &DeleteParams::default()).await.unwrap();
        world.annotate("crm", "example.org/woken", "2").await;
        let named = holds_for("PodEnding", &["node-that-is-gone", "NoExecute", "delete the Node"]);
        world.until_migration("crm", "waiting for the pod's end", named).await;
        let pods = world.api::<Pod>().list(&ListParams::default()).await.unwrap().items;
        assert_eq!(pods.len(), 1, "no second writer beside one that may still run");

        // As the garbage collector of pods does once the Node is deleted.
        report(world, &lost, json!({"phase": "Failed"}), 3).await;
        let now = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
        world.api::<Pod>().delete(&lost, &now).await.unwrap();
        pod_of(world, "assess", &lost).await;
        world.kubelet.release("assess");
        world.until_migration("crm", "completed", is_completed).await;
        assert_eq!(attempts(world).await, 5);
    });
}
