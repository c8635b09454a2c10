//! What a built Job promises: names, restriction, the exact environment per task.
//! Beside `job.rs`, whose budget of lines it would exceed.

use k8s_openapi::api::core::v1::{Container, PodSpec};

use super::super::fixtures;
use super::*;
use crate::contract::{EvidenceRef, INCLUDE_MOUNT, STORAGE_MOUNT, Selection, Side};

fn built(request: &JobRequest, spec: &MigrationSpec) -> Job {
    build_job(&JobOrder { request, spec, plan_digest: Some("sha256:abc"), settings: &fixtures::settings() }).unwrap()
}

fn pod_of(job: &Job) -> PodSpec {
    job.spec.clone().unwrap().template.spec.unwrap()
}

fn container_of(job: &Job) -> Container {
    pod_of(job).containers.remove(0)
}

/// Names of variables with what they come from.
fn env_of(job: &Job) -> Vec<(String, String)> {
    let env = container_of(job).env.unwrap();
    env.into_iter()
        .filter(|variable| variable.name != "GODWIT_STEP")
        .map(|variable| {
            let from = variable.value_from.and_then(|from| from.secret_key_ref);
            let text =
                from.map_or_else(|| variable.value.unwrap_or_default(), |key| format!("{}/{}", key.name, key.key));
            (variable.name, text)
        })
        .collect()
}

fn mounts_of(job: &Job) -> Vec<String> {
    let mounts = container_of(job).volume_mounts.unwrap();
    mounts.into_iter().map(|mount| mount.mount_path).collect()
}

fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
}

const SOURCE: (&str, &str) = ("GODWIT_SOURCE_URI", "old/old-uri");
const TARGET: (&str, &str) = ("GODWIT_TARGET_URI", "new/new-uri");

fn evidence() -> EvidenceRef {
    EvidenceRef { uri: "backup/manifest.json".into(), digest: "sha256:1".into() }
}

/// One task of every kind.
fn every_task() -> Vec<Task> {
    vec![
        Task::Assess {},
        Task::Backup { includes: vec!["workflows".into()] },
        Task::VerifyBackup { backup: evidence() },
        Task::Prepare {},
        Task::Finalize {},
        Task::Reset {},
        Task::Cleanup {},
        Task::Select { selection: Selection::Remainder {} },
        Task::Copy {},
        Task::Validate { checks: vec![] },
        Task::Cutover { checks: vec![] },
        Task::Discard {},
        Task::Freeze {},
        Task::Return {},
        Task::Verify {},
        Task::Reopen {},
        sql_check(Side::Source),
        Task::IntegrityCheck {},
    ]
}

fn sql_check(side: Side) -> Task {
    Task::SqlCheck { side, query: "select 1".into(), timeout_seconds: 9 }
}

#[test]
fn every_task_gets_exactly_the_databases_it_works_on() {
    let spec = fixtures::spec();
    for task in every_task() {
        let wanted = match &task {
            Task::Backup { .. } | Task::SqlCheck { .. } => pairs(&[SOURCE]),
            Task::VerifyBackup { .. } => pairs(&[]),
            _ => pairs(&[SOURCE, TARGET]),
        };
        let job = built(&fixtures::request(task.clone()), &spec);
        assert_eq!(env_of(&job), wanted, "{}", task.name());
    }
    let on_target = built(&fixtures::cohort_request(sql_check(Side::Target)), &spec);
    assert_eq!(env_of(&on_target), pairs(&[TARGET]));
}

#[test]
fn a_bucket_is_reached_with_the_named_secret_and_without_a_volume() {
    let job = built(&fixtures::request(Task::VerifyBackup { backup: evidence() }), &fixtures::spec_on_s3());
    assert_eq!(
        env_of(&job),
        pairs(&[
            ("AWS_ACCESS_KEY_ID", "s3-keys/AWS_ACCESS_KEY_ID"),
            ("AWS_SECRET_ACCESS_KEY", "s3-keys/AWS_SECRET_ACCESS_KEY"),
        ])
    );
    assert!(!mounts_of(&job).contains(&STORAGE_MOUNT.to_owned()));
}

#[test]
fn steps_mount_the_backup_claim_and_measurements_do_not() {
    let spec = fixtures::spec();
    for task in every_task() {
        let measurement = matches!(task, Task::SqlCheck { .. } | Task::IntegrityCheck {});
        let job = built(&fixtures::request(task.clone()), &spec);
        let mounted = mounts_of(&job).contains(&STORAGE_MOUNT.to_owned());
        assert_eq!(mounted, !measurement, "{}", task.name());
        let claims: Vec<_> = pod_of(&job)
            .volumes
            .unwrap()
            .into_iter()
            .filter_map(|volume| volume.persistent_volume_claim)
            .map(|claim| claim.claim_name)
            .collect();
        assert_eq!(claims.contains(&"vault".to_owned()), mounted);
    }
}

#[test]
fn includes_are_mounted_read_only_and_only_for_the_backup() {
    let path = format!("{INCLUDE_MOUNT}/workflows");
    for task in every_task() {
        let job = built(&fixtures::request(task.clone()), &fixtures::spec());
        let is_backup = matches!(task, Task::Backup { .. });
        assert_eq!(mounts_of(&job).contains(&path), is_backup, "{}", task.name());
        if is_backup {
            let mounts = container_of(&job).volume_mounts.unwrap();
            let mount = mounts.iter().find(|mount| mount.mount_path == path).unwrap();
            assert_eq!(mount.read_only, Some(true));
        }
    }
}

#[test]
fn every_pod_is_restricted_and_holds_no_service_account_token() {
    let mut requests: Vec<_> = every_task().into_iter().map(fixtures::request).collect();
    requests.push(fixtures::container_request("probe"));
    for request in requests {
        let job = built(&request, &fixtures::spec());
        let pod = pod_of(&job);
        assert_eq!(pod.automount_service_account_token, Some(false));
        assert_eq!(pod.restart_policy.as_deref(), Some("Never"));
        assert_eq!(pod.host_network, None);
        let security = pod.security_context.unwrap();
        assert_eq!(security.run_as_non_root, Some(true));
        assert_eq!(security.seccomp_profile.unwrap().type_, "RuntimeDefault");
        let container = container_of(&job);
        assert_eq!(container.termination_message_policy.as_deref(), Some("File"));
        let security = container.security_context.unwrap();
        assert_eq!(security.allow_privilege_escalation, Some(false));
        assert_eq!(security.read_only_root_filesystem, Some(true));
        assert_eq!(security.privileged, None);
        assert_eq!(security.capabilities.unwrap().drop.unwrap(), ["ALL"]);
    }
}

#[test]
fn a_job_is_tried_once_and_ends_for_good_on_the_permanent_codes() {
    let spec = built(&fixtures::request(Task::Prepare {}), &fixtures::spec()).spec.unwrap();
    assert_eq!(spec.backoff_limit, Some(0));
    assert_eq!(spec.pod_replacement_policy.as_deref(), Some("Failed"));
    assert_eq!(spec.ttl_seconds_after_finished, Some(604_800));
    let rules = spec.pod_failure_policy.unwrap().rules;
    assert_eq!(rules[0].action, "Ignore");
    assert_eq!(rules[1].action, "FailJob");
    assert_eq!(rules[1].on_exit_codes.as_ref().unwrap().values, [65, 66, 77, 78]);
}

#[test]
fn a_check_is_kept_for_minutes_only() {
    let job = built(&fixtures::container_request("probe"), &fixtures::spec());
    let spec = job.spec.unwrap();
    assert_eq!(spec.ttl_seconds_after_finished, Some(600));
    assert!(spec.active_deadline_seconds.unwrap() < 3600);
}

#[test]
fn a_cohorts_job_belongs_to_the_cohort_and_carries_both_names() {
    let job = built(&fixtures::cohort_request(Task::Copy {}), &fixtures::spec());
    let owner = &job.metadata.owner_references.as_ref().unwrap()[0];
    assert_eq!((owner.kind.as_str(), owner.uid.as_str()), ("Cohort", "uid-cohort"));
    assert_eq!(owner.controller, Some(true));
    let labels = job.metadata.labels.unwrap();
    let pod_labels = job.spec.unwrap().template.metadata.unwrap().labels.unwrap();
    assert_eq!(labels, pod_labels);
    for (key, value) in [
        ("godwit.dev/migration", "crm"),
        ("godwit.dev/cohort", "canary"),
        ("godwit.dev/step", "copy"),
        ("godwit.dev/attempt", "3"),
        ("godwit.dev/owner-uid", "uid-cohort"),
        ("app.kubernetes.io/managed-by", "godwit"),
    ] {
        assert_eq!(labels[key], value, "{key}");
    }
    let annotations = job.metadata.annotations.unwrap();
    assert_eq!(annotations["godwit.dev/plan-digest"], "sha256:abc");
}

#[test]
fn a_migrations_job_belongs_to_the_migration() {
    let job = built(&fixtures::request(Task::Assess {}), &fixtures::spec());
    let owner = &job.metadata.owner_references.unwrap()[0];
    assert_eq!((owner.kind.as_str(), owner.name.as_str()), ("Migration", "crm"));
    assert!(!job.metadata.labels.unwrap().contains_key("godwit.dev/cohort"));
}

#[test]
fn a_users_container_runs_its_own_image_and_sees_no_database() {
    let job = built(&fixtures::container_request("probe"), &fixtures::spec());
    let container = container_of(&job);
    assert_eq!(container.image.as_deref(), Some("example/probe:9"));
    assert_eq!(container.command.unwrap(), ["/probe"]);
    assert_eq!(container.args.unwrap(), ["--fast"]);
    assert_eq!(env_of(&job), pairs(&[("LIMIT", "7"), ("TOKEN", "probe-secret/token")]));
    assert_eq!(pod_of(&job).security_context.unwrap().run_as_user, None);
}

#[test]
fn no_name_within_a_job_is_longer_than_a_label() {
    let mut spec = fixtures::spec();
    spec.backup.include[0].name = "i".repeat(40);
    for task in every_task() {
        let mut request = fixtures::cohort_request(task);
        request.name = "n".repeat(63);
        request.cohort.as_mut().unwrap().name = "c".repeat(50);
        request.migration.name = "m".repeat(50);
        let job = built(&request, &spec);
        let volumes = pod_of(&job).volumes.unwrap().into_iter();
        let values = job.metadata.labels.unwrap().into_values();
        for name in volumes.map(|volume| volume.name).chain(values) {
            assert!(name.len() <= 63, "{name}");
        }
        assert_eq!(job.metadata.name.unwrap().len(), 63);
    }
}

#[test]
fn an_occupied_name_belongs_to_a_suspended_job_that_no_pod_runs_for() {
    let cohort = fixtures::identity("canary", "uid-cohort");
    let owner = Owner { kind: "Cohort", identity: &cohort };
    let job = build_placeholder(&owner, "canary-copy-4", &fixtures::settings());
    assert_eq!(job.metadata.name.as_deref(), Some("canary-copy-4"));
    let spec = job.spec.unwrap();
    assert_eq!(spec.suspend, Some(true));
    assert_eq!(spec.ttl_seconds_after_finished, None);
    assert_eq!(job.metadata.owner_references.unwrap()[0].uid, "uid-cohort");
}

#[test]
fn a_check_that_the_spec_lost_is_an_error_that_names_it() {
    let request = fixtures::container_request("gone");
    let error = build_job(&JobOrder {
        request: &request,
        spec: &fixtures::spec(),
        plan_digest: None,
        settings: &fixtures::settings(),
    })
    .unwrap_err();
    assert_eq!(error.to_string(), "failed to build job crm-step-3: spec.checks has no check gone with a job source");
}
