//! The Jobs of one owner, with what their pods say: exit codes, reports, progress, and why a pod does not start.
//! Used by both observations. Reads pods only for Jobs that the recorded status names.

use std::collections::BTreeMap;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::api::{ListParams, LogParams};
use kube::{Api, ResourceExt};

use super::Key;
use crate::api::names::LABEL_OWNER_UID;
use crate::api::status::{CheckStatus, StepStatus};
use crate::build::labels::LABEL_PLACEHOLDER;
use crate::build::pod::CONTAINER;
use crate::controller::call::{call, list};
use crate::controller::classify::{self, Evidence, classify};
use crate::controller::context::Context;
use crate::controller::error::{Attempt, Error};
use crate::plan::observed::Jobs;

/// Kubernetes' own label on the pods of a Job.
const JOB_NAME: &str = "batch.kubernetes.io/job-name";
/// Lines of output among which the last progress line is looked for, and their size.
const LINES: i64 = 20;
const LINES_BYTES: i64 = 16 * 1024;

/// Whose Jobs, and which of them the recorded status names.
#[derive(Debug)]
pub struct Wanted<'a> {
    key: &'a Key,
    owner_uid: String,
    named: Vec<String>,
}

impl<'a> Wanted<'a> {
    pub fn new(key: &'a Key, owner_uid: &str, step: Option<&StepStatus>, checks: &[CheckStatus]) -> Self {
        let of_step = step.and_then(|step| step.job.as_ref());
        let of_checks = checks.iter().filter_map(|check| check.job.as_ref());
        Self {
            key,
            owner_uid: owner_uid.to_owned(),
            named: of_step.into_iter().chain(of_checks).map(|job| job.name.clone()).collect(),
        }
    }
}

/// States for the decision, uids for deletions.
#[derive(Debug, Default)]
pub struct SeenJobs {
    pub states: Jobs,
    pub uids: BTreeMap<String, String>,
    /// The highest attempt that one of these Jobs bears.
    pub last_attempt: i64,
}

pub async fn observe_jobs(ctx: &Context, wanted: &Wanted<'_>) -> Result<SeenJobs, Error> {
    let jobs = read_jobs(ctx, wanted).await?;
    let pods = read_pods(ctx, wanted, &jobs).await?;
    let mut seen = SeenJobs::default();
    for job in jobs {
        let name = job.name_any();
        let uid = job.uid().unwrap_or_default();
        let of_job: Vec<Pod> = pods.iter().filter(|pod| belongs(pod, &uid)).cloned().collect();
        let named = wanted.named.contains(&name);
        let needs_look = named && !classify::has_ended(&job);
        let (output, complaint) =
            if needs_look { look_closer(ctx, wanted.key, &job, &of_job).await? } else { (None, None) };
        let evidence = Evidence { pods: &of_job, output: output.as_deref(), complaint: complaint.as_deref() };
        let state = classify(&job, &wanted.owner_uid, evidence);
        seen.states.insert(name.clone(), state);
        seen.last_attempt = seen.last_attempt.max(classify::attempt_of(&job, &wanted.owner_uid));
        seen.uids.insert(name, uid);
    }
    Ok(seen)
}

/// The owner's Jobs by label, and by name those that the status names and the label did not bring: a foreign one, or one
/// whose labels somebody changed.
async fn read_jobs(ctx: &Context, wanted: &Wanted<'_>) -> Result<Vec<Job>, Error> {
    let api: Api<Job> = Api::namespaced(ctx.client.clone(), &wanted.key.namespace);
    let selector = format!("{LABEL_OWNER_UID}={},!{LABEL_PLACEHOLDER}", wanted.owner_uid);
    let mut jobs = list("jobs", &api, ListParams::default().labels(&selector)).await?;
    for name in &wanted.named {
        if jobs.iter().any(|job| job.name_any() == *name) {
            continue;
        }
        let attempt = Attempt::new("get", "jobs", format!("{}/{name}", wanted.key.namespace));
        let found = call(attempt, api.get_opt(name)).await?;
        jobs.extend(found);
    }
    Ok(jobs)
}

async fn read_pods(ctx: &Context, wanted: &Wanted<'_>, jobs: &[Job]) -> Result<Vec<Pod>, Error> {
    let present = wanted.named.iter().filter(|name| {
        let mut ours = jobs.iter().filter(|job| job.name_any() == **name);
        ours.any(|job| classify::controller_uid(job) == Some(&wanted.owner_uid))
    });
    let names: Vec<&str> = present.map(String::as_str).collect();
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let api: Api<Pod> = Api::namespaced(ctx.client.clone(), &wanted.key.namespace);
    let selector = format!("{JOB_NAME} in ({})", names.join(","));
    list("pods", &api, ListParams::default().labels(&selector)).await
}

fn belongs(pod: &Pod, job_uid: &str) -> bool {
    pod.owner_references().iter().any(|owner| owner.uid == job_uid && owner.controller == Some(true))
}

/// The end of the output of a running pod; what events say about one that does not start.
async fn look_closer(
    ctx: &Context,
    key: &Key,
    job: &Job,
    pods: &[Pod],
) -> Result<(Option<String>, Option<String>), Error> {
    if let Some(running) = pods.iter().find(|pod| is_in_phase(pod, "Running")) {
        return Ok((output(ctx, key, running).await, None));
    }
    let regarding = match pods.iter().find(|pod| is_in_phase(pod, "Pending")) {
        // Until it is scheduled a pod's own conditions say why; after that only events speak of its volumes.
        Some(pod) if is_scheduled(pod) => pod.uid(),
        Some(_) => None,
        None => job.uid(),
    };
    let Some(uid) = regarding else {
        return Ok((None, None));
    };
    Ok((None, complaint(ctx, key, &uid).await?))
}

fn is_in_phase(pod: &Pod, phase: &str) -> bool {
    pod.status.as_ref().is_some_and(|status| status.phase.as_deref() == Some(phase))
}

fn is_scheduled(pod: &Pod) -> bool {
    pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some())
}

/// Progress is for people: when its source cannot be read, the pass goes on without.
async fn output(ctx: &Context, key: &Key, pod: &Pod) -> Option<String> {
    let api: Api<Pod> = Api::namespaced(ctx.client.clone(), &key.namespace);
    let name = pod.name_any();
    let params = LogParams {
        container: Some(CONTAINER.to_owned()),
        tail_lines: Some(LINES),
        limit_bytes: Some(LINES_BYTES),
        ..LogParams::default()
    };
    let attempt = Attempt::new("get", "pods/log", format!("{}/{name}", key.namespace));
    call(attempt, api.logs(&name, &params))
        .await
        .inspect_err(|error| tracing::debug!(error = error.text(), "Output of pod could not be read"))
        .ok()
}

/// The latest warning about an object that keeps a pod from being made or started.
async fn complaint(ctx: &Context, key: &Key, uid: &str) -> Result<Option<String>, Error> {
    let api: Api<Event> = Api::namespaced(ctx.client.clone(), &key.namespace);
    let about = ListParams::default().fields(&format!("involvedObject.uid={uid},type=Warning"));
    let events = list("events", &api, about).await?;
    let reasons = ["FailedCreate", "FailedMount", "FailedAttachVolume"];
    Ok(events
        .into_iter()
        .filter(|event| event.reason.as_deref().is_some_and(|text| reasons.contains(&text)))
        .max_by_key(|event| {
            let last = event.last_timestamp.as_ref().map(|time| time.0);
            last.or(event.event_time.as_ref().map(|time| time.0))
        })
        .map(|event| {
            let reason = event.reason.unwrap_or_default();
            format!("{reason}: {}", event.message.unwrap_or_default())
        }))
}
