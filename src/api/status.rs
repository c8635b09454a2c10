//! What both kinds report in the same shape: the running step, progress, evidence, checks, commands, history.
//! Written by `plan/` alone. Every list and string is bounded; no customer data ever enters.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Most entries kept in `history`.
pub const MAX_HISTORY: usize = 20;
/// Most measurements kept for one check.
pub const MAX_MEASUREMENTS: usize = 10;
/// Most findings shown; all of them are in the evidence file.
pub const MAX_FINDINGS: usize = 20;
/// Most cohorts that a migration-wide way back releases at a time; the next ones follow when these are back.
pub const MAX_RELEASED: usize = 1000;
/// Cohorts that a migration lists as those that may be under way.
pub const MAX_ADMITTED: usize = 100;
/// Longest message, in characters.
pub const MAX_MESSAGE: usize = 1024;

/// The step that is under way and the attempt that carries it out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct StepStatus {
    /// Name of the step, such as `Copy`.
    #[schemars(length(max = 40))]
    pub name: String,
    /// When the step began: its first attempt, or while there was none, its turn.
    pub start_time: Time,
    /// When the operator gives the step up; absent until the first attempt, and for steps without a Job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Time>,
    /// Attempts of this step that failed so far.
    #[serde(default)]
    pub failures: u32,
    /// What the latest failed attempt said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub failure: Option<String>,
    /// The Job that carries the step out; absent while the step holds or waits for its next attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobStatus>,
    /// When the next attempt starts, after a failed one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_time: Option<Time>,
    /// Why the step cannot go on without a person; `retry` or a new generation clears it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stalled: Option<StalledStatus>,
}

/// Why a step cannot go on without a person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct StalledStatus {
    /// Reason of the condition `Stalled`.
    #[schemars(length(max = 64))]
    pub reason: String,
    /// What is wrong, where, and what to do next.
    #[schemars(length(max = 1024))]
    pub message: String,
}

/// One attempt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct JobStatus {
    /// Name of the Job in the same namespace.
    #[schemars(length(max = 63))]
    pub name: String,
    /// Number of the attempt; rises over the whole life of the object and is the worker's fencing token.
    pub attempt: i64,
    /// Digest of the part of the spec that the Job was made from; what it reports counts for that part alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 80))]
    pub plan: Option<String>,
    /// True once the operator has seen the Job; a Job that vanishes afterwards counts as a failed attempt.
    #[serde(default)]
    pub seen: bool,
}

/// How far the running step is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProgressStatus {
    /// Unit of the numbers: `rows`, `bytes`, `tables` or `customers`.
    #[schemars(length(max = 20))]
    pub unit: String,
    /// Expected in all; may change while the step learns more.
    pub total: i64,
    /// Done so far.
    pub completed: i64,
    /// Units a second over the step so far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_per_second: Option<i64>,
    /// When the step is expected to end at this rate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub estimated_completion_time: Option<Time>,
    /// When these numbers were read.
    pub update_time: Time,
}

/// A stored result that later steps and people rely on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Evidence {
    /// What it proves: Assessment, Backup, RestoreTest, Preparation, Selection, Copy, Validation, Cutover, Return, Verification, Removal or Final.
    #[schemars(length(max = 40))]
    pub name: String,
    /// `sha256:…` of the file, or of the result where there is no file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 80))]
    pub digest: Option<String>,
    /// Path of the file in the backup storage.
    #[serde(default, rename = "uri", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub uri: Option<String>,
    /// When the operator saw the result.
    pub time: Time,
    /// Digest of the part of the spec that the result depends on; another digest makes it worthless.
    #[schemars(length(max = 80))]
    pub plan: String,
    /// Plain numbers such as `rows`, `customers`, `differences`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub counts: Vec<Count>,
    /// Durations in milliseconds, such as `pause`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub millis: Vec<Count>,
}

/// A number with a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct Count {
    /// What is counted.
    #[schemars(length(max = 40))]
    pub name: String,
    /// How many.
    pub value: i64,
}

/// Something a person should know about, from the latest report that had findings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct FindingStatus {
    /// Blocker, Warning or Info.
    #[schemars(length(max = 16))]
    pub severity: String,
    /// Stable code such as `PrimaryKeyMissing`.
    #[schemars(length(max = 64))]
    pub code: String,
    /// The schema object concerned.
    #[schemars(length(max = 256))]
    pub object: String,
    /// What is wrong and what to do.
    #[schemars(length(max = 512))]
    pub message: String,
}

/// A check's latest measurements and the verdict over them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct CheckStatus {
    /// Name of the check.
    #[schemars(length(max = 40))]
    pub name: String,
    /// Digest of the check as it is measured: one that was changed begins anew, at once and without its earlier measurements.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 80))]
    pub digest: Option<String>,
    /// Verdict over the latest measurements: Pass, Fail, Inconclusive or Error.
    pub verdict: Verdict,
    /// The latest measurements, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10))]
    pub measurements: Vec<Measurement>,
    /// The Job that is measuring now, for checks that need one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobStatus>,
}

/// One measurement.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Measurement {
    /// When it was taken.
    pub time: Time,
    /// Its own verdict: Pass, Fail, Inconclusive or Error.
    pub verdict: Verdict,
    /// The first number measured, as text; absent where there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub value: Option<String>,
    /// Why there is no number, or what failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub message: Option<String>,
}

/// Pass, Fail, Inconclusive or Error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum Verdict {
    // From best to worst: over several checks the worst wins.
    Pass,
    Inconclusive,
    Error,
    Fail,
}

/// A command annotation that was carried out; the same text is never handled twice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct HandledCommand {
    /// The verb: retry, rollback, promote or abort.
    #[schemars(length(max = 16))]
    pub verb: String,
    /// The annotation's text when it was handled.
    #[schemars(length(max = 64))]
    pub value: String,
}

/// A change of step, newest last.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
pub struct HistoryEntry {
    /// When.
    pub time: Time,
    /// The step that began.
    #[schemars(length(max = 40))]
    pub step: String,
    /// What led to it.
    #[schemars(length(max = 256))]
    pub message: String,
}

/// A rollback that was asked for or triggered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct RollbackStatus {
    /// Identifies this rollback; a repeated wish for the same one changes nothing.
    #[schemars(length(max = 128))]
    pub id: String,
    /// Rollback or Abort.
    #[schemars(length(max = 16))]
    pub kind: String,
    /// What caused it: a command, a trigger with its evidence, a failed validation.
    #[schemars(length(max = 1024))]
    pub cause: String,
    /// When it was decided.
    pub time: Time,
    /// For a migration: the cohorts that may go back now, newest cutover first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1000), inner(length(max = 50)))]
    pub released: Vec<String>,
}

/// What going back would cost now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReversibilityStatus {
    /// Lossless (nothing is lost), Lossy (target writes are set aside, exported) or Closed.
    pub class: ReversibilityClass,
    /// Why going back is not possible, where it is not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10), inner(length(max = 256)))]
    pub blockers: Vec<String>,
}

/// Lossless, Lossy or Closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ReversibilityClass {
    Lossless,
    Lossy,
    Closed,
}

/// The plan that runs: what an approval approves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlanStatus {
    /// `sha256:…` over the parts of the spec (and for a cohort its frozen members) that decide what happens to data.
    #[schemars(length(max = 80))]
    pub digest: String,
    /// Generation of the spec that the digest was computed from.
    pub observed_generation: i64,
}
