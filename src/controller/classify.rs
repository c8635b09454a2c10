//! What a Job's state means: running, done, failed, somebody else's, going away; and why its pod does not start.
//! Called by `observe/jobs.rs` with what was read live. Pure: no client, no clock.

use std::collections::BTreeMap;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ContainerStateTerminated, ContainerStatus, Pod};
use kube::ResourceExt;

use crate::api::names::LABEL_ATTEMPT;
use crate::build::labels::LABEL_PLACEHOLDER;
use crate::build::pod::CONTAINER;
use crate::contract::{Finding, MAX_REPORT_BYTES, Progress, ProgressLine, Report};
use crate::plan::observed::{Failure, JobState, Trouble, TroubleKind};

const MAX_TROUBLE: usize = 512;
/// Reason of an attempt that was given up before its Job was seen.
const ABANDONED: &str = "Abandoned";

/// A Job with what was read about it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Evidence<'a> {
    pub pods: &'a [Pod],
    /// Last lines of the running pod's output.
    pub output: Option<&'a str>,
    /// What events say about pods that cannot be made or volumes that cannot be mounted.
    pub complaint: Option<&'a str>,
}

/// The state of a Job for the owner with this uid.
pub fn classify(job: &Job, owner_uid: &str, evidence: Evidence) -> JobState {
    if controller_uid(job) != Some(owner_uid) {
        return JobState::Foreign;
    }
    if is_placeholder(job) {
        return JobState::Failed(Failure { reason: ABANDONED.to_owned(), ..Failure::default() });
    }
    // FailureTarget and SuccessCriteriaMet only announce an end: pods may still write. They count as running.
    if has_condition(job, "Complete").is_some() {
        let ended = latest_end(evidence.pods, |end| end.exit_code == 0);
        return JobState::Succeeded { report: ended.and_then(report_of) };
    }
    if let Some(reason) = has_condition(job, "Failed") {
        let ended = latest_end(evidence.pods, |_| true);
        return JobState::Failed(Failure {
            exit_code: ended.and_then(own_exit_code),
            reason: match told_by(evidence.pods, ended) {
                Some(told) => format!("{reason}; {told}"),
                None => reason,
            },
            report: ended.and_then(report_of),
        });
    }
    if job.metadata.deletion_timestamp.is_some() {
        return JobState::Terminating;
    }
    JobState::Running {
        progress: evidence.output.and_then(last_progress),
        trouble: suspended(job).or_else(|| trouble(evidence)),
    }
}

/// The attempt that a Job of this owner bears; 0 for anybody else's.
pub fn attempt_of(job: &Job, owner_uid: &str) -> i64 {
    if controller_uid(job) != Some(owner_uid) {
        return 0;
    }
    job.labels().get(LABEL_ATTEMPT).and_then(|text| text.parse().ok()).unwrap_or_default()
}

/// Suspended by hand or by a queue: the Job controller has ended its pod and starts another when it is resumed.
fn suspended(job: &Job) -> Option<Trouble> {
    let suspended = job.spec.as_ref().and_then(|spec| spec.suspend).unwrap_or_default();
    suspended.then(|| Trouble { kind: TroubleKind::Suspended, message: format!("Job {} is suspended", job.name_any()) })
}

/// What the kubelet says beside an exit code: eviction, lack of memory, a program that cannot be started.
fn told_by(pods: &[Pod], ended: Option<&ContainerStateTerminated>) -> Option<String> {
    let of_pod = pods.iter().find_map(|pod| {
        let status = pod.status.as_ref()?;
        let reason = status.reason.as_deref()?;
        Some(status.message.as_ref().map_or_else(|| reason.to_owned(), |message| format!("{reason}: {message}")))
    });
    let of_container =
        ended.and_then(|end| end.reason.clone()).filter(|reason| reason != "Error" && reason != "Completed");
    of_pod.or(of_container).map(|text| clipped(&text, MAX_TROUBLE))
}

/// True for a Job that only occupies the name of an attempt that was given up: no pod ever runs for it.
fn is_placeholder(job: &Job) -> bool {
    job.labels().contains_key(LABEL_PLACEHOLDER)
}

/// True once a Job's pods have all ended.
pub fn has_ended(job: &Job) -> bool {
    is_placeholder(job) || has_condition(job, "Complete").is_some() || has_condition(job, "Failed").is_some()
}

/// Uid of the controller that a Job belongs to.
pub fn controller_uid(job: &Job) -> Option<&str> {
    let mut owners = job.owner_references().iter();
    owners.find(|owner| owner.controller == Some(true)).map(|owner| owner.uid.as_str())
}

/// The reason of a condition that is True.
fn has_condition(job: &Job, type_: &str) -> Option<String> {
    let conditions = job.status.as_ref()?.conditions.as_ref()?;
    let condition = conditions.iter().find(|condition| condition.type_ == type_ && condition.status == "True")?;
    Some(condition.reason.clone().unwrap_or_default())
}

fn container_status(pod: &Pod) -> Option<&ContainerStatus> {
    let statuses = pod.status.as_ref()?.container_statuses.as_ref()?;
    statuses.iter().find(|status| status.name == CONTAINER)
}

/// How the container ended that ended last, among those that `wanted` takes.
fn latest_end(pods: &[Pod], wanted: impl Fn(&ContainerStateTerminated) -> bool) -> Option<&ContainerStateTerminated> {
    pods.iter()
        .filter_map(|pod| container_status(pod)?.state.as_ref()?.terminated.as_ref())
        .filter(|end| wanted(end))
        .max_by_key(|end| end.finished_at.as_ref().map(|time| time.0))
}

/// The process's own code; a process that was killed has none.
fn own_exit_code(end: &ContainerStateTerminated) -> Option<i32> {
    let killed = end.signal.is_some_and(|signal| signal != 0)
        || end.exit_code > 128
        || end.reason.as_deref() == Some("OOMKilled");
    (!killed).then_some(end.exit_code)
}

fn report_of(end: &ContainerStateTerminated) -> Option<Report> {
    let text = end.message.as_deref()?;
    if text.len() > MAX_REPORT_BYTES {
        return None;
    }
    Report::from_termination_message(text.trim()).map(bounded)
}

/// A custom image may write what it likes: what enters status fits its schema.
fn bounded(mut report: Report) -> Report {
    report.counts = few(report.counts, 32);
    report.timings = few(report.timings, 16);
    report.digest = report.digest.map(|text| clipped(&text, 80));
    report.evidence_uri = report.evidence_uri.map(|text| clipped(&text, 512));
    report.values.retain(|value| value.is_finite());
    report.values.truncate(100);
    report.findings = report.findings.iter().map(bounded_finding).collect();
    report
}

fn bounded_finding(finding: &Finding) -> Finding {
    Finding {
        severity: finding.severity,
        code: clipped(&finding.code, 64),
        object: clipped(&finding.object, 256),
        message: clipped(&finding.message, 512),
    }
}

fn few(numbers: BTreeMap<String, i64>, most: usize) -> BTreeMap<String, i64> {
    let named = numbers.into_iter().filter(|(name, _)| name.len() <= 40);
    named.take(most).collect()
}

/// At most so many characters.
pub fn clipped(text: &str, most: usize) -> String {
    text.chars().take(most).collect()
}

fn last_progress(output: &str) -> Option<Progress> {
    let mut lines = output.lines().rev();
    lines.find_map(|line| {
        let line: ProgressLine = serde_json::from_str(line.trim()).ok()?;
        Some(Progress { unit: clipped(&line.progress.unit, 20), ..line.progress })
    })
}

fn trouble(evidence: Evidence) -> Option<Trouble> {
    let of_pod = evidence.pods.iter().find_map(trouble_of_pod);
    of_pod.or_else(|| {
        evidence.complaint.map(|text| Trouble { kind: complaint_kind(text), message: clipped(text, MAX_TROUBLE) })
    })
}

/// The kubelet names a missing Secret or ConfigMap in the event of a volume that cannot be mounted, too.
fn complaint_kind(text: &str) -> TroubleKind {
    if text.contains("secret \"") {
        TroubleKind::Secret
    } else if text.contains("configmap \"") {
        TroubleKind::ConfigMap
    } else {
        TroubleKind::Scheduling
    }
}

/// A pod that is being ended: as long as nobody knows that it has, no other one starts.
fn leaving(pod: &Pod) -> Option<Trouble> {
    pod.metadata.deletion_timestamp.as_ref()?;
    let status = pod.status.as_ref()?;
    let over = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
    let node = pod.spec.as_ref()?.node_name.as_deref().filter(|_| !over)?;
    let conditions = status.conditions.iter().flatten();
    let mut told = conditions.filter(|one| one.type_ == "DisruptionTarget" && one.status == "True");
    let why = told.find_map(|one| one.message.as_deref()).map_or_else(String::new, |text| format!(" ({text})"));
    let message = format!("pod {} is being taken from node {node}{why} and has not ended", pod.name_any());
    Some(Trouble { kind: TroubleKind::Leaving, message: clipped(&message, MAX_TROUBLE) })
}

/// Keys of a Secret that the pod's container asks for.
fn keys_wanted(pod: &Pod, message: &str) -> Option<String> {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let env = containers.flat_map(|container| container.env.iter().flatten());
    let references = env.filter_map(|variable| variable.value_from.as_ref()?.secret_key_ref.as_ref());
    let keys: Vec<&str> = references
        .filter(|wanted| message.contains(&format!("\"{}\"", wanted.name)))
        .map(|wanted| wanted.key.as_str())
        .collect();
    (!keys.is_empty()).then(|| format!("{message} (wanted for its key {})", keys.join(", ")))
}

fn image_of(pod: &Pod) -> Option<&str> {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    containers.filter(|container| container.name == CONTAINER).find_map(|container| container.image.as_deref())
}

fn trouble_of_pod(pod: &Pod) -> Option<Trouble> {
    if let Some(leaving) = leaving(pod) {
        return Some(leaving);
    }
    let told = |kind, reason: &str, message: Option<&str>| {
        let text = match message {
            Some(message) => format!("{reason}: {message}"),
            None => reason.to_owned(),
        };
        Some(Trouble { kind, message: clipped(&text, MAX_TROUBLE) })
    };
    if let Some(waiting) =
        container_status(pod).and_then(|status| status.state.as_ref()).and_then(|state| state.waiting.as_ref())
    {
        let reason = waiting.reason.as_deref().unwrap_or_default();
        let message = waiting.message.as_deref();
        let lower = message.unwrap_or_default().to_lowercase();
        return match reason {
            "CreateContainerConfigError" if lower.contains("secret") => {
                let keys = message.and_then(|message| keys_wanted(pod, message));
                told(TroubleKind::Secret, reason, keys.as_deref().or(message))
            }
            "CreateContainerConfigError" if lower.contains("configmap") => {
                told(TroubleKind::ConfigMap, reason, message)
            }
            "ErrImagePull"
            | "ImagePullBackOff"
            | "InvalidImageName"
            | "ErrImageNeverPull"
            | "ImageInspectError"
            | "RegistryUnavailable" => {
                // Not every one of these messages names the image.
                let image = image_of(pod).filter(|image| !message.is_some_and(|text| text.contains(*image)));
                let named = image.map(|image| format!("{image}: {}", message.unwrap_or("cannot be pulled")));
                told(TroubleKind::Image, reason, named.as_deref().or(message))
            }
            "CreateContainerConfigError" | "CreateContainerError" | "RunContainerError" => {
                told(TroubleKind::Container, reason, message)
            }
            _ => None,
        };
    }
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let unscheduled =
        conditions.iter().find(|condition| condition.type_ == "PodScheduled" && condition.status == "False")?;
    let reason = unscheduled.reason.as_deref().unwrap_or("Unschedulable");
    told(TroubleKind::Scheduling, reason, unscheduled.message.as_deref())
}

#[cfg(test)]
#[path = "classify_tests.rs"]
mod tests;
