//! The kind `Cohort`: customers that move together, and how far they are.
//! Spec written by users beside the Migration, status by the Cohort controller alone.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use super::duration::DurationString;
use super::pattern;
use super::status::{
    CheckStatus, Evidence, FindingStatus, HandledCommand, HistoryEntry, PlanStatus, ProgressStatus,
    ReversibilityStatus, RollbackStatus, StepStatus,
};

/// Customers that move together.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "godwit.dev",
    version = "v1alpha1",
    kind = "Cohort",
    namespaced,
    status = "CohortStatus",
    shortname = "gco",
    category = "godwit",
    derive = "PartialEq",
    cel,
    doc = "Customers of a Migration that move together: selected once, copied, validated, cut over, watched, and brought back if a trigger fails.",
    validation = Rule::new("self.metadata.name.size() <= 50")
        .message(Message::Expression("'metadata.name may have 50 characters at most, because the names of Jobs are made from it'".into())),
    validation = Rule::new("!has(oldSelf.status) || !has(oldSelf.status.startTime) || self.spec.select == oldSelf.spec.select")
        .message(Message::Expression("'spec.select is frozen once the cohort has started; create another Cohort for other customers'".into()))
        .reason(Reason::FieldValueForbidden).field_path(".spec.select"),
    selectable = ".spec.migrationRef.name",
    selectable = ".status.phase",
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Wave", type_ = "integer", json_path = ".spec.wave"),
    printcolumn(name = "Progress", type_ = "string", json_path = ".status.progressSummary"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Migration", type_ = "string", json_path = ".spec.migrationRef.name", priority = 1),
    printcolumn(name = "Owner", type_ = "string", json_path = ".status.owner", priority = 1),
    printcolumn(name = "Step", type_ = "string", json_path = ".status.step.name", priority = 1),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Progressing\")].reason", priority = 1),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.conditions[?(@.type==\"Progressing\")].message", priority = 1),
    printcolumn(name = "ETA", type_ = "string", json_path = ".status.progress.estimatedCompletionTime", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.migrationRef == oldSelf.migrationRef")
    .message(Message::Expression("'migrationRef is immutable; create another Cohort for ' + self.migrationRef.name".into()))
    .reason(Reason::FieldValueForbidden).field_path(".migrationRef"))]
#[x_kube(validation = Rule::new("!has(self.soak) || duration(self.soak) <= duration('8760h')")
    .message(Message::Expression("'soak may be 8760h (a year) at most, not ' + self.soak".into())).field_path(".soak"))]
pub struct CohortSpec {
    /// The Migration that this cohort belongs to. Immutable.
    pub migration_ref: MigrationRef,
    /// Lower waves move first; the cohorts of one wave may move together. 0 to 1000, default 0. Changeable until the cohort starts.
    #[serde(default)]
    #[schemars(range(min = 0, max = 1000))]
    pub wave: i32,
    /// Which customers; exactly one way. Frozen once the cohort has started.
    pub select: Select,
    /// How long the cohort is watched on the target before it is done, such as `24h`. Default: the migration's `rollout.soak`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub soak: Option<DurationString>,
    /// Stop cord: while true no new step of this cohort starts and running Jobs finish; going back still works. Default false.
    #[serde(default)]
    pub suspend: bool,
}

/// The Migration, in the same namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct MigrationRef {
    /// Name of the Migration.
    #[schemars(length(min = 1, max = 50), regex(pattern = pattern::OBJECT_NAME))]
    pub name: String,
}

/// Which customers; exactly one way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("[has(self.percent), has(self.where), has(self.keysFrom), has(self.remainder)].filter(x, x).size() == 1")
    .message(Message::Expression("'select needs exactly one of percent, where, keysFrom, remainder'".into())))]
#[x_kube(validation = Rule::new("!has(self.riskBy) || has(self.percent)")
    .message(Message::Expression("'riskBy orders the customers that percent chooses from; it has no meaning without percent'".into()))
    .reason(Reason::FieldValueForbidden).field_path(".riskBy"))]
#[x_kube(validation = Rule::new("!has(self.percent) || string(self.percent).matches('^(100%?|[1-9][0-9]?%?|[1-9][0-9]?[.][0-9]{1,3}%|0[.](00[1-9]|0[1-9][0-9]?|[1-9][0-9]{0,2})%)$')")
    .message(Message::Expression("'percent must be above 0 and at most 100, a whole number such as 1 or a string such as \"0.1%\", not ' + string(self.percent)".into())).field_path(".percent"))]
pub struct Select {
    /// Share of all customers: a whole number such as `1`, or a string such as `"0.1%"`; above 0, at most 100. Linked customers are taken as whole groups.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub percent: Option<IntOrString>,
    /// For `percent`: an SQL expression over the root table (alias `customer`); the lowest values are taken first. Default: smallest groups first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub risk_by: Option<String>,
    /// An SQL condition over the root table (alias `customer`), such as `customer.country = 'PT'`. Customers linked to those are taken along.
    #[serde(default, rename = "where", skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048))]
    pub where_: Option<String>,
    /// A query on the source that returns keys in one column. Customers linked to those are taken along.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub keys_from: Option<String>,
    /// Every customer that is in no cohort yet, also those that are born while it moves: the last cohort of a migration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remainder: Option<Remainder>,
}

/// Takes no settings: `remainder: {}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct Remainder {}

/// How far the cohort is. Written by the operator alone.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct CohortStatus {
    /// Generation of the spec that this status is about; -1 before the operator has seen the object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Summary for people (may gain values): Pending, Selecting, Copying, Validating, Holding, CuttingOver, Soaking, Done, Reverting, RolledBack, Stalled, Paused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 40))]
    pub phase: Option<String>,
    /// Standard conditions; waits and alerts use these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// When the selection began; `spec.select` is frozen from then on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,
    /// Uid of the Migration that the cohort was started under; another Migration of the same name does not take it over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub migration_uid: Option<String>,
    /// When the cohort was done or rolled back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<Time>,
    /// The step under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<StepStatus>,
    /// Job attempts started in the life of this object; never falls.
    #[serde(default)]
    pub attempts: i64,
    /// Side that may write these customers: Source, Target, or None while it switches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 10))]
    pub owner: Option<String>,
    /// Number that rises with each change of the owner.
    #[serde(default)]
    pub epoch: i64,
    /// Customers in the frozen selection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub customers: Option<i64>,
    /// What an approval of this cohort's cutover approves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<PlanStatus>,
    /// Stored results.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub evidence: Vec<Evidence>,
    /// Findings of the latest report that had any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    pub findings: Vec<FindingStatus>,
    /// Progress of the running step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<ProgressStatus>,
    /// Progress as a short text for the printer column, such as `63%`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 20))]
    pub progress_summary: Option<String>,
    /// When this cohort's writes opened on the target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cutover_time: Option<Time>,
    /// When the soak ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub soak_end_time: Option<Time>,
    /// Checks measured for this cohort.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub checks: Vec<CheckStatus>,
    /// The way back that is under way or was taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollback: Option<RollbackStatus>,
    /// The trigger with action Pause or RollbackMigration that fired and was not yet answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alarm: Option<Alarm>,
    /// What going back would cost now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reversibility: Option<ReversibilityStatus>,
    /// Commands that were handled.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["verb".into()]))]
    pub last_handled: Vec<HandledCommand>,
    /// Changes of step, newest last, at most 20.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    pub history: Vec<HistoryEntry>,
}

/// A trigger that fired, with the evidence that was stored before anything was done about it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Alarm {
    /// Name of the check.
    #[schemars(length(max = 40))]
    pub check: String,
    /// Category of the trigger.
    pub category: super::check::TriggerCategory,
    /// Action of the trigger.
    pub action: super::check::TriggerAction,
    /// What was measured, against what, how often.
    #[schemars(length(max = 1024))]
    pub evidence: String,
    /// When it fired.
    pub time: Time,
}
