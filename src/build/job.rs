//! The Job of one attempt: created once, never updated, never restarted by Kubernetes.
//! Called by `controller/perform.rs`. Must not choose a name or an attempt: those stand in the recorded status.

use std::collections::BTreeMap;

use k8s_openapi::api::batch::v1::{
    Job, JobSpec, PodFailurePolicy, PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyOnPodConditionsPattern,
    PodFailurePolicyRule,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{Error, Owner, PodSettings, labels, pod};
use crate::api::MigrationSpec;
use crate::api::names::{LABEL_MANAGED_BY, LABEL_OWNER_UID, MANAGED_BY};
use crate::contract::{Identity, Task, exit};
use crate::plan::decision::{JobRequest, Work};

/// How long a finished step's Job is kept for people to look at, in seconds: a week.
const STEP_TTL: i32 = 7 * 24 * 3600;
/// The same for a check, of which there may be one a second.
const CHECK_TTL: i32 = 600;
/// Above every deadline of the operator, which survives suspension and this does not: ten days.
const STEP_DEADLINE: i64 = 10 * 24 * 3600;
/// A measurement takes seconds; most of this is for scheduling and pulling.
const CHECK_DEADLINE: i64 = 900;

/// Everything that a Job follows from.
#[derive(Clone, Copy, Debug)]
pub struct JobOrder<'a> {
    pub request: &'a JobRequest,
    pub spec: &'a MigrationSpec,
    /// Digest of the plan that the attempt carries out.
    pub plan_digest: Option<&'a str>,
    pub settings: &'a PodSettings,
}

/// The Job to create.
pub fn build_job(order: &JobOrder) -> Result<Job, Error> {
    let request = order.request;
    let (ttl, deadline) = if is_check(&request.work) { (CHECK_TTL, CHECK_DEADLINE) } else { (STEP_TTL, STEP_DEADLINE) };
    Ok(Job {
        metadata: ObjectMeta {
            name: Some(request.name.clone()),
            namespace: Some(request.migration.namespace.clone()),
            labels: Some(labels::of_job(request)),
            annotations: labels::plan_annotation(order.plan_digest),
            owner_references: Some(vec![owner_of(request).reference()]),
            ..ObjectMeta::default()
        },
        spec: Some(JobSpec {
            backoff_limit: Some(0),
            completions: Some(1),
            parallelism: Some(1),
            pod_failure_policy: Some(by_exit_code()),
            // A pod is replaced only after it has ended: two writers must not overlap by replacement.
            pod_replacement_policy: Some("Failed".into()),
            active_deadline_seconds: Some(deadline),
            ttl_seconds_after_finished: Some(ttl),
            template: pod::build_pod(order)?,
            ..JobSpec::default()
        }),
        status: None,
    })
}

/// A suspended Job that occupies the name of an attempt given up before its Job was seen: a create that is still on its way
/// to the API server then lands nowhere.
pub fn build_placeholder(owner: &Owner, name: &str, settings: &PodSettings) -> Job {
    let labels: BTreeMap<_, _> = [
        (LABEL_MANAGED_BY, MANAGED_BY),
        (LABEL_OWNER_UID, owner.identity.uid.as_str()),
        (labels::LABEL_PLACEHOLDER, "true"),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into();
    Job {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(owner.identity.namespace.clone()),
            labels: Some(labels.clone()),
            owner_references: Some(vec![owner.reference()]),
            ..ObjectMeta::default()
        },
        spec: Some(JobSpec {
            suspend: Some(true),
            backoff_limit: Some(0),
            template: pod::build_idle_pod(settings, labels),
            ..JobSpec::default()
        }),
        status: None,
    }
}

/// The Cohort in a cohort's steps and checks, else the Migration.
pub fn owner_of(request: &JobRequest) -> Owner<'_> {
    let (kind, identity): (_, &Identity) = match &request.cohort {
        Some(cohort) => ("Cohort", cohort),
        None => ("Migration", &request.migration),
    };
    Owner { kind, identity }
}

fn is_check(work: &Work) -> bool {
    matches!(work, Work::Container { .. } | Work::Worker(Task::SqlCheck { .. } | Task::IntegrityCheck {}))
}

fn by_exit_code() -> PodFailurePolicy {
    PodFailurePolicy {
        rules: vec![
            PodFailurePolicyRule {
                action: "Ignore".into(),
                on_pod_conditions: Some(vec![PodFailurePolicyOnPodConditionsPattern {
                    type_: "DisruptionTarget".into(),
                    status: "True".into(),
                }]),
                on_exit_codes: None,
            },
            PodFailurePolicyRule {
                action: "FailJob".into(),
                on_exit_codes: Some(PodFailurePolicyOnExitCodesRequirement {
                    container_name: Some(pod::CONTAINER.to_owned()),
                    operator: "In".into(),
                    values: exit::PERMANENT.to_vec(),
                }),
                on_pod_conditions: None,
            },
        ],
    }
}

#[cfg(test)]
#[path = "job_tests.rs"]
mod tests;
