//! The API server refuses what the operator asks, or people write what is the operator's to write: a condition says so, nothing
//! runs hot, and everything goes on when it is mended.

use std::time::Duration;

use godwit::api::{Cohort, Migration};
use k8s_openapi::api::admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::json;

use crate::world::{World, condition, is_completed, message, of, run, stalled_for, until};

/// A policy that lets no Job into the test's namespace.
async fn refuse_jobs(world: &World, reason: &str) -> String {
    let name = format!("no-jobs-in-{}-{}", world.namespace, reason.to_lowercase());
    let policy: ValidatingAdmissionPolicy = of(json!({
        "metadata": {"name": name},
        "spec": {
            "matchConstraints": {
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": world.namespace}},
                "resourceRules": [{"apiGroups": ["batch"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["jobs"]}],
            },
            "validations": [{"expression": "false", "message": "no Jobs on Saturdays", "reason": reason}],
        },
    }));
    let binding: ValidatingAdmissionPolicyBinding = of(json!({
        "metadata": {"name": name}, "spec": {"policyName": name, "validationActions": ["Deny"]},
    }));
    Api::all(world.client.clone()).create(&PostParams::default(), &policy).await.unwrap();
    Api::all(world.client.clone()).create(&PostParams::default(), &binding).await.unwrap();
    let probe: k8s_openapi::api::batch::v1::Job = of(json!({
        "metadata": {"name": "probe"}, "spec": {"suspend": true, "template": {"spec": {
            "restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}},
    }));
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    until("the policy in force", || async { world.api().create(&dry, &probe).await.is_err() }).await;
    name
}

async fn let_jobs_in(world: &World, name: &str) {
    let bindings: Api<ValidatingAdmissionPolicyBinding> = Api::all(world.client.clone());
    bindings.delete(name, &DeleteParams::default()).await.unwrap();
    let policies: Api<ValidatingAdmissionPolicy> = Api::all(world.client.clone());
    policies.delete(name, &DeleteParams::default()).await.unwrap();
}

fn refused_requests_are_conditions(answer: &'static str, reason: &'static str) {
    run(async |world| {
        let policy = refuse_jobs(world, answer).await;
        let operator = world.operator();
        world.create_migration("crm", |_| {}).await;
        world.create_cohort("all", "crm").await;
        let named = stalled_for(reason, &["create jobs", "no Jobs on Saturdays", "tries again"]);
        let stalled = world.until_migration("crm", "stalled", named).await;
        assert_eq!(stalled.status.as_ref().unwrap().phase.as_deref(), Some("Stalled"));
        assert_eq!(condition(&stalled, "Ready"), Some(("False", reason)));
        // Woken again and again it says the same, and writes nothing.
        let written = || operator.gate.writes().iter().filter(|write| write.ends_with("crm/status")).count();
        let before = written();
        for times in 0..4 {
            world.annotate("crm", "example.org/woken", &times.to_string()).await;
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        assert_eq!(written(), before, "{:?}", operator.gate.writes());
        let_jobs_in(world, &policy).await;
        world.annotate("crm", "example.org/woken", "at last").await;
        let woken = || async {
            world.annotate("crm", "example.org/woken", &format!("{:?}", std::time::Instant::now())).await;
            is_completed(&world.migration("crm").await)
        };
        until("the end of the migration", woken).await;
        let completed = world.migration("crm").await;
        assert_eq!(condition(&completed, "Stalled"), Some(("False", "NotStalled")));
        assert_eq!(world.jobs().await.len(), 9);
    });
}

#[test]
fn a_right_that_is_missing_stalls_the_object_by_name_and_is_noticed_when_it_is_given() {
    refused_requests_are_conditions("Forbidden", "PermissionDenied");
}

#[test]
fn a_policy_that_finds_a_request_unusable_stalls_the_object_by_its_words() {
    refused_requests_are_conditions("Invalid", "RequestRefused");
}

#[test]
fn conditions_and_phase_that_people_write_are_written_over() {
    run(async |world| {
        world.kubelet.hold("assess");
        let _operator = world.operator();
        world.create_migration("crm", |_| {}).await;
        let running = |migration: &Migration| condition(migration, "Progressing") == Some(("True", "Assessing"));
        world.until_migration("crm", "assessing", running).await;
        let forged = json!({"status": {"phase": "Completed", "cohortSummary": "9/9", "conditions": [
            {"type": "Succeeded", "status": "True", "reason": "Forged", "message": "", "lastTransitionTime": "2026-03-01T10:00:00Z"},
        ]}});
        let api = world.api::<Migration>();
        api.patch_status("crm", &PatchParams::default(), &Patch::Merge(&forged)).await.unwrap();
        let restored = |migration: &Migration| {
            running(migration) && migration.status.as_ref().unwrap().phase.as_deref() == Some("Assessing")
        };
        let restored = world.until_migration("crm", "itself again", restored).await;
        assert_eq!(condition(&restored, "Succeeded"), Some(("Unknown", "Running")));
        assert_eq!(restored.status.unwrap().attempts, 1);
    });
}

#[test]
fn a_status_that_was_wiped_while_the_cohort_soaks_is_found_again_from_its_jobs_and_the_ledger() {
    run(async |world| {
        let _operator = world.operator();
        world.create_migration("crm", |spec| spec["rollout"]["soak"] = "1h".into()).await;
        world.create_cohort("all", "crm").await;
        let soaks = |cohort: &Cohort| cohort.status.as_ref().is_some_and(|s| s.phase.as_deref() == Some("Soaking"));
        let before = world.until_cohort("all", "soaking", soaks).await.status.unwrap();
        let jobs = world.jobs().await;

        // The ledger knows what the status has lost.
        let mut known = json!({"v": 1, "result": "pass", "counts": {"customers": 100}, "owner": "Target", "epoch": 2});
        known["digest"] = json!(format!("sha256:{}", "0".repeat(64)));
        world.kubelet.end_next("select", 0, known.clone());
        world.kubelet.end_next("cutover", 0, known);
        let api = world.api::<Cohort>();
        let wiped = json!([{"op": "replace", "path": "/status", "value": {"observedGeneration": -1}}]);
        let patch = Patch::<()>::Json(serde_json::from_value(wiped).unwrap());
        api.patch_status("all", &PatchParams::default(), &patch).await.unwrap();
        let again =
            |cohort: &Cohort| soaks(cohort) && cohort.status.as_ref().is_some_and(|s| s.attempts > before.attempts);
        let after = world.until_cohort("all", "soaking again", again).await.status.unwrap();
        assert_eq!((after.owner, after.epoch), (before.owner, before.epoch));
        let new: Vec<String> = world.jobs().await.difference(&jobs).cloned().collect();
        assert_eq!(new.len(), 2, "selected and told again, not copied again: {new:?}");
        assert!(new.iter().any(|name| name.contains("-select-")) && new.iter().any(|name| name.contains("-cutover-")));
        let migration = world.migration("crm").await;
        assert!(message(&migration, "Progressing").contains("all"));
    });
}
