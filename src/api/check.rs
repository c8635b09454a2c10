//! Checks and what is done with their verdicts: gates and triggers.
//! Part of `MigrationSpec`. Must hold no evaluation: that is `plan/verdict.rs`.

use k8s_openapi::api::core::v1::SecretKeySelector;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::duration::DurationString;
use super::pattern;

/// A measurement that gates and triggers refer to by name; exactly one source.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("[has(self.prometheus), has(self.http), has(self.sql), has(self.job), has(self.condition), has(self.validation)].filter(x, x).size() == 1")
    .message(Message::Expression("'check ' + self.name + ' needs exactly one of prometheus, http, sql, job, condition, validation'".into())))]
#[x_kube(validation = Rule::new("has(self.condition) || has(self.passWhen)")
    .message(Message::Expression("'check ' + self.name + ' needs passWhen: a CEL expression over value, values and samples, such as value < 5.0'".into()))
    .reason(Reason::FieldValueRequired).field_path(".passWhen"))]
#[x_kube(validation = Rule::new("!(has(self.condition) && has(self.passWhen))")
    .message(Message::Expression("'check ' + self.name + ' of source condition compares a status and takes no passWhen'".into()))
    .reason(Reason::FieldValueForbidden).field_path(".passWhen"))]
#[x_kube(validation = Rule::new("duration(self.interval) >= duration('1s') && duration(self.interval) <= duration('24h')")
    .message(Message::Expression("'interval must lie between 1s and 24h, not ' + self.interval".into())).field_path(".interval"))]
#[x_kube(validation = Rule::new("!has(self.timeout) || (duration(self.timeout) >= duration('1s') && duration(self.timeout) <= duration('30s'))")
    .message(Message::Expression("'timeout must lie between 1s and 30s, not ' + self.timeout".into())).field_path(".timeout"))]
#[x_kube(validation = Rule::new("!(has(self.timeout) && (has(self.job) || has(self.validation) || has(self.condition)))")
    .message(Message::Expression("'check ' + self.name + ': timeout is for prometheus, http and sql; a Job of source job or validation has 15 minutes'".into()))
    .reason(Reason::FieldValueForbidden).field_path(".timeout"))]
pub struct Check {
    /// Name that gates and triggers use; unique in the migration. Changeable at any time.
    #[schemars(length(min = 1, max = 40), regex(pattern = pattern::LABEL))]
    pub name: String,
    /// An instant query to a Prometheus server; each sample of the answer is one of `values`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prometheus: Option<PrometheusSource>,
    /// A GET request; the value is a number in the JSON answer, or the status code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpSource>,
    /// A read-only query on one of the two databases; the first column of each row is one of `values`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sql: Option<SqlSource>,
    /// A container of your own that leaves its numbers at the termination path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobSource>,
    /// A status condition of an object in the same namespace; passes while it has the stated status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub condition: Option<ConditionSource>,
    /// Integrity of the cohort's rows on the side that owns them; `value` is the number of violations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation: Option<ValidationSource>,
    /// CEL expression that is true when the measurement is good. Sees `value` (the first number), `values` (all of this measurement) and `samples` (the first numbers of the latest measurements, newest last). Numbers are doubles: write `value < 5.0`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048))]
    pub pass_when: Option<String>,
    /// Time between two measurements, from 1s to 24h. Default 60s.
    #[serde(default = "default_interval")]
    pub interval: DurationString,
    /// Measurements needed before there is a verdict other than Inconclusive, 1 to 10. Default 1.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 10))]
    pub min_samples: u32,
    /// How many of the latest measurements must agree for Pass or Fail, 1 to 10. Default 1.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 10))]
    pub consecutive: u32,
    /// Time limit of one answer, from 1s to 30s, for the sources prometheus, http and sql. Default 10s. A Job of source job or validation has 15 minutes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<DurationString>,
    /// Verdict of a measurement that brought no number: Inconclusive (default), Fail or Pass.
    #[serde(default)]
    pub on_no_data: OnNoData,
}

fn default_interval() -> DurationString {
    "60s".into()
}
fn one() -> u32 {
    1
}

/// Verdict of a measurement that brought no number: Inconclusive, Fail or Pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnNoData {
    #[default]
    Inconclusive,
    Fail,
    Pass,
}

/// An instant query to a Prometheus server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PrometheusSource {
    /// Base URL of the server, such as `http://prometheus.monitoring:9090`. Redirects to another host are not followed.
    #[schemars(length(min = 8, max = 512), regex(pattern = pattern::URL))]
    pub address: String,
    /// PromQL query, evaluated at the time of the measurement.
    #[schemars(length(min = 1, max = 2048))]
    pub query: String,
}

/// A GET request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct HttpSource {
    /// URL to get. Redirects to another host are not followed; link-local and metadata addresses are refused.
    #[schemars(length(min = 8, max = 1024), regex(pattern = pattern::URL))]
    pub url: String,
    /// JSON pointer (RFC 6901) to the number in the answer, such as `/errors/rate`; absent: the value is the status code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256), regex(pattern = r"^(/.*)?$"))]
    pub pointer: Option<String>,
}

/// A read-only query.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct SqlSource {
    /// The database that is asked: Source or Target.
    pub side: Side,
    /// One SELECT; names are qualified (`public.deal`), the cohort's name is `current_setting('godwit.cohort')`, its customers are in `godwit.member`.
    #[schemars(length(min = 1, max = 4096))]
    pub query: String,
}

/// The database that is asked: Source or Target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Side {
    Source,
    Target,
}

/// A container that measures. It runs restricted and without a service-account token.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct JobSource {
    /// Container image.
    #[schemars(length(min = 1, max = 512))]
    pub image: String,
    /// Entry point; default: the image's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(max = 256)))]
    pub command: Vec<String>,
    /// Arguments; default: the image's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(max = 512)))]
    pub args: Vec<String>,
    /// Environment variables beside `GODWIT_STEP`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub env: Vec<EnvVar>,
}

/// One environment variable: a plain value, or a key of a Secret in the same namespace.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.value) != has(self.secretKeyRef)")
    .message(Message::Expression("'variable ' + self.name + ' needs exactly one of value, secretKeyRef'".into())))]
#[x_kube(validation = Rule::new("!self.name.startsWith('GODWIT_')")
    .message(Message::Expression("'variable ' + self.name + ' cannot be set: names that begin with GODWIT_ are reserved'".into())).reason(Reason::FieldValueForbidden).field_path(".name"))]
pub struct EnvVar {
    /// Name of the variable; `GODWIT_…` is reserved.
    #[schemars(length(min = 1, max = 128), regex(pattern = r"^[A-Za-z_][A-Za-z0-9_]*$"))]
    pub name: String,
    /// The value itself. Not for secrets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub value: Option<String>,
    /// Key of a Secret in the same namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_key_ref: Option<SecretKeyRef>,
}

/// Key of a Secret in the same namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretKeyRef {
    /// Name of the Secret. The operator never reads it; only Jobs do.
    #[schemars(length(min = 1, max = 253), regex(pattern = pattern::OBJECT_NAME))]
    pub name: String,
    /// Key within the Secret.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[-._a-zA-Z0-9]+$"))]
    pub key: String,
}

impl From<&SecretKeyRef> for SecretKeySelector {
    fn from(key: &SecretKeyRef) -> Self {
        Self { name: key.name.clone(), key: key.key.clone(), optional: Some(false) }
    }
}

/// A status condition of a named object.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConditionSource {
    /// API group and version, such as `apps/v1`. The operator's role must allow to get the kind.
    #[schemars(length(min = 1, max = 128))]
    pub api_version: String,
    /// Kind, such as `Deployment`.
    #[schemars(length(min = 1, max = 63))]
    pub kind: String,
    /// Name of the object, in the migration's namespace.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Condition type, such as `Available`.
    #[serde(rename = "type")]
    #[schemars(length(min = 1, max = 128))]
    pub type_: String,
    /// Status that passes: True (default), False or Unknown.
    #[serde(default)]
    pub status: ConditionStatus,
}

/// Status that passes: True, False or Unknown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ConditionStatus {
    #[default]
    True,
    False,
    Unknown,
}

impl ConditionStatus {
    pub fn as_str(self) -> &'static str {
        match self {
            ConditionStatus::True => "True",
            ConditionStatus::False => "False",
            ConditionStatus::Unknown => "Unknown",
        }
    }
}

/// Integrity of the cohort's rows: foreign keys closed, unique keys unique, sequences ahead of their keys.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
pub struct ValidationSource {}

/// A check that must pass before a step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Gate {
    /// Name of the check.
    #[schemars(length(min = 1, max = 40))]
    pub check: String,
    /// Steps that wait until the check passes: Copy, Cutover, Finalize.
    #[schemars(length(min = 1, max = 3))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub before: Vec<GatedStep>,
}

/// A step that waits for a gate: Copy, Cutover or Finalize.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum GatedStep {
    Copy,
    Cutover,
    Finalize,
}

/// A check that acts when it fails after a cohort's cutover; signed in advance by being in the spec.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.during) || duration(self.during) >= duration('1s') && duration(self.during) <= duration('8760h')")
    .message(Message::Expression("'during must lie between 1s and 8760h (a year), not ' + self.during".into())).field_path(".during"))]
pub struct Trigger {
    /// Name of the check.
    #[schemars(length(min = 1, max = 40))]
    pub check: String,
    /// What the failure would mean: DataLoss, CoreWorkflow, Integration, Adoption or Security.
    pub category: TriggerCategory,
    /// What is done: Alert (an event and status), Pause (the migration holds), RollbackCohort or RollbackMigration.
    pub action: TriggerAction,
    /// Enforce (default) acts; Observe only records what would have been done.
    #[serde(default)]
    pub mode: TriggerMode,
    /// For how long after a cohort's cutover the trigger is armed, at most until Finalize. Default: as long as the cohort soaks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub during: Option<DurationString>,
}

/// What the failure would mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TriggerCategory {
    DataLoss,
    CoreWorkflow,
    Integration,
    Adoption,
    Security,
}

/// What is done: Alert, Pause, RollbackCohort or RollbackMigration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum TriggerAction {
    // Ordered from mild to grave: when several fire at once, the gravest wins.
    Alert,
    Pause,
    RollbackCohort,
    RollbackMigration,
}

/// Whether the trigger acts: Enforce or Observe.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TriggerMode {
    #[default]
    Enforce,
    Observe,
}
