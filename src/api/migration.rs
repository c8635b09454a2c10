//! The kind `Migration`: what moves, from where to where, under which rules, and how far it is.
//! Spec written by users, status by the Migration controller alone. A field stands here only if it works.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::approval::ApprovedStep;
pub use super::backup::{Backup, BackupInclude, ClaimStorage, ConfigMapRef, S3Storage, Storage};
use super::check::{Check, Gate, SecretKeyRef, Trigger};
pub use super::dataset::{Dataset, KeyStrategy, Keys, OwnerPath, RootTable};
use super::duration::DurationString;
use super::pattern;
use super::status::{
    CheckStatus, Evidence, FindingStatus, HandledCommand, HistoryEntry, PlanStatus, ProgressStatus,
    ReversibilityStatus, RollbackStatus, StepStatus,
};

/// Moves customer data from one system to another, cohort by cohort, and can go back.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "godwit.dev",
    version = "v1alpha1",
    kind = "Migration",
    namespaced,
    status = "MigrationStatus",
    shortname = "gmig",
    category = "godwit",
    derive = "PartialEq",
    cel,
    doc = "Moves customer data from a source system to a target system, cohort by cohort, while both keep running, and can go back until it is finalised. Its Cohorts are separate objects beside it.",
    validation = Rule::new("self.metadata.name.size() <= 50")
        .message(Message::Expression("'metadata.name may have 50 characters at most, because the names of Jobs are made from it'".into())),
    validation = Rule::new("!has(oldSelf.status) || !has(oldSelf.status.startTime) || self.spec.engine == oldSelf.spec.engine")
        .message(Message::Expression("'spec.engine is fixed once the migration has started; create another Migration for other systems'".into()))
        .reason(Reason::FieldValueForbidden).field_path(".spec.engine"),
    validation = Rule::new("!has(oldSelf.status) || !has(oldSelf.status.startTime) || self.spec.dataset.root == oldSelf.spec.dataset.root")
        .message(Message::Expression("'spec.dataset.root is fixed once the migration has started; create another Migration for another root table'".into()))
        .reason(Reason::FieldValueForbidden).field_path(".spec.dataset.root"),
    validation = Rule::new("!has(oldSelf.status) || !has(oldSelf.status.startTime) || self.spec.rollback.mode == oldSelf.spec.rollback.mode")
        .message(Message::Expression("'spec.rollback.mode is fixed once the migration has started: cohorts have moved on its promise'".into()))
        .reason(Reason::FieldValueForbidden).field_path(".spec.rollback.mode"),
    selectable = ".status.phase",
    selectable = ".spec.suspend",
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Cohorts", type_ = "string", json_path = ".status.cohortSummary"),
    printcolumn(name = "Progress", type_ = "string", json_path = ".status.progressSummary"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Source", type_ = "string", json_path = ".spec.engine.postgres.source.uriFrom.secretKeyRef.name", priority = 1),
    printcolumn(name = "Target", type_ = "string", json_path = ".spec.engine.postgres.target.uriFrom.secretKeyRef.name", priority = 1),
    printcolumn(name = "Step", type_ = "string", json_path = ".status.step.name", priority = 1),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Progressing\")].reason", priority = 1),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.conditions[?(@.type==\"Progressing\")].message", priority = 1),
    printcolumn(name = "ETA", type_ = "string", json_path = ".status.progress.estimatedCompletionTime", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.gates) || !has(self.checks) || self.gates.all(g, !('Finalize' in g.before) || self.checks.all(c, c.name != g.check || !has(c.validation)))")
    .message(Message::Expression("'a check of source validation looks at a cohort, so it cannot be a gate before Finalize'".into())).field_path(".gates"))]
#[x_kube(validation = Rule::new("!has(self.gates) || self.gates.all(g, has(self.checks) && self.checks.exists(c, c.name == g.check))")
    .message(Message::Expression("'every gate must name one of spec.checks'".into())).field_path(".gates"))]
#[x_kube(validation = Rule::new("!has(self.triggers) || self.triggers.all(t, has(self.checks) && self.checks.exists(c, c.name == t.check))")
    .message(Message::Expression("'every trigger must name one of spec.checks'".into())).field_path(".triggers"))]
pub struct MigrationSpec {
    /// Stop cord: while true no new step starts and running Jobs finish; going back still works. Default false; change it at any time.
    #[serde(default)]
    pub suspend: bool,
    /// The two systems and how they are reached; exactly one engine. Fixed once started.
    pub engine: Engine,
    /// Which rows move and to whom they belong. `root` is fixed once started.
    pub dataset: Dataset,
    /// Where the backup and all evidence are stored, and what is backed up beside the data.
    pub backup: Backup,
    /// How both systems live side by side. Default: Freeze.
    #[serde(default)]
    pub coexistence: Coexistence,
    /// How to go back after a cutover. Required: there is no default. Fixed once started.
    pub rollback: Rollback,
    /// What is compared beside every row. Default: nothing more.
    #[serde(default)]
    pub validation: Validation,
    /// How cohorts advance. Default: one at a time, soaking 24h each, reverted when a copy or validation fails.
    #[serde(default)]
    pub rollout: Rollout,
    /// Measurements that gates and triggers refer to. Changeable at any time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub checks: Vec<Check>,
    /// Checks that must pass before a step. Changeable at any time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["check".into()]))]
    pub gates: Vec<Gate>,
    /// Checks that act when they fail after a cutover. Changeable at any time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub triggers: Vec<Trigger>,
    /// Steps that wait for people. Default: one approval before Finalize, because there is no way back after it; an explicit empty list waits for nobody.
    #[serde(default = "approve_finalize")]
    #[schemars(length(max = 2))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["before".into()]))]
    pub approvals: Vec<RequiredApproval>,
    /// Where applications learn which side owns a customer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub routing: Option<Routing>,
}

fn approve_finalize() -> Vec<RequiredApproval> {
    vec![RequiredApproval { before: ApprovedStep::Finalize, required: one() }]
}

/// The two systems; exactly one engine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.postgres)")
    .message(Message::Expression("'engine needs exactly one of: postgres'".into())).reason(Reason::FieldValueRequired).field_path(".postgres"))]
pub struct Engine {
    /// Two PostgreSQL databases, version 13 or later; the source no newer than the PostgreSQL programs of the image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub postgres: Option<PostgresEngine>,
}

/// Two PostgreSQL databases.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
pub struct PostgresEngine {
    /// The database that the customers leave.
    pub source: Database,
    /// The database that the customers move to.
    pub target: Database,
}

/// One database.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Database {
    /// Where the connection URI comes from.
    pub uri_from: UriSource,
}

/// Where a connection URI comes from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct UriSource {
    /// Key of a Secret in the same namespace that holds `postgresql://user:password@host:port/database?sslmode=…`.
    pub secret_key_ref: SecretKeyRef,
}

/// How both systems live side by side.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct Coexistence {
    /// Freeze (default): a cohort's writes are stopped on both sides while its last difference is brought over.
    #[serde(default)]
    pub mode: CoexistenceMode,
}

/// Freeze.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum CoexistenceMode {
    #[default]
    Freeze,
}

/// How to go back after a cutover.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct Rollback {
    /// RestoreOnly: the source serves the customers as they were at cutover; what the target wrote since is exported and counted, not merged.
    pub mode: RollbackMode,
}

/// RestoreOnly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RollbackMode {
    RestoreOnly,
}

/// What is compared beside every row.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct Validation {
    /// Pairs of queries whose numbers must agree.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub checks: Vec<QueryPair>,
}

/// A pair of queries whose single numbers must agree. Both see `current_setting('godwit.cohort')` and `godwit.member`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct QueryPair {
    /// Name in reports; unique in the migration.
    #[schemars(length(min = 1, max = 40), regex(pattern = pattern::LABEL))]
    pub name: String,
    /// SELECT on the source that returns one number.
    #[schemars(length(min = 1, max = 4096))]
    pub source: String,
    /// SELECT on the target that returns one number.
    #[schemars(length(min = 1, max = 4096))]
    pub target: String,
    /// Largest accepted absolute difference, a decimal number as text. Default `0`.
    #[serde(default = "zero")]
    #[schemars(length(max = 32), regex(pattern = r"^[0-9]+(\.[0-9]+)?$"))]
    pub tolerance: String,
}

fn zero() -> String {
    "0".to_owned()
}

/// How cohorts advance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("duration(self.soak) <= duration('8760h')")
    .message(Message::Expression("'soak may be 8760h (a year) at most, not ' + self.soak".into())).field_path(".soak"))]
pub struct Rollout {
    /// Cohorts of one wave that may be under way at the same time, 1 to 100. Default 1. Changeable at any time.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 100))]
    pub max_concurrent_cohorts: u32,
    /// How long a cohort is watched on the target before it is done. Default 24h; a Cohort may say otherwise.
    #[serde(default = "default_soak")]
    pub soak: DurationString,
    /// What follows when a cohort's copy or validation fails for good: Revert (default: what was copied is removed) or Hold (stalled, everything stays).
    #[serde(default)]
    pub on_failure: OnFailure,
}

impl Default for Rollout {
    fn default() -> Self {
        Self { max_concurrent_cohorts: one(), soak: default_soak(), on_failure: OnFailure::default() }
    }
}

fn one() -> u32 {
    1
}
fn default_soak() -> DurationString {
    "24h".into()
}

/// Revert or Hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnFailure {
    #[default]
    Revert,
    Hold,
}

/// A step that waits for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct RequiredApproval {
    /// Cutover (each cohort) or Finalize (the migration).
    pub before: ApprovedStep,
    /// Distinct approvers needed, 1 to 5. Default 1.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 5))]
    pub required: u32,
}

/// Where applications learn which side owns a customer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Routing {
    /// A ConfigMap that the operator keeps current.
    pub route_table: RouteTable,
}

/// A ConfigMap with the key `routes.json`: owner and epoch of each cohort and of customers in no cohort.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct RouteTable {
    /// Name of the ConfigMap, in the same namespace; created when absent.
    #[schemars(length(min = 1, max = 253), regex(pattern = pattern::OBJECT_NAME))]
    pub config_map_name: String,
}

/// How far the migration is. Written by the operator alone.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct MigrationStatus {
    /// Generation of the spec that this status is about; -1 before the operator has seen the object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Summary for people (may gain values): Assessing, BackingUp, VerifyingBackup, Preparing, Moving, Holding, Finalizing, Completed, Reverting, RolledBack, Stalled, Paused, CleaningUp.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 40))]
    pub phase: Option<String>,
    /// Standard conditions; waits and alerts use these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// When the first step began; the parts of the spec that are fixed once started are fixed from then on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,
    /// When the migration was completed or rolled back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<Time>,
    /// The point of no return: when the first attempt of Finalize was started. Absent while there is a way back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closed_time: Option<Time>,
    /// The step under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<StepStatus>,
    /// Job attempts started in the life of this object; never falls.
    #[serde(default)]
    pub attempts: i64,
    /// What runs, and what an approval of Finalize approves.
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
    /// Progress of the running step, in Move over all customers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<ProgressStatus>,
    /// Progress as a short text for the printer column, such as `63%`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 20))]
    pub progress_summary: Option<String>,
    /// Cohorts done of all, such as `3/12`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 20))]
    pub cohort_summary: Option<String>,
    /// Cohorts that may be under way now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), inner(length(max = 63)))]
    pub admitted: Vec<String>,
    /// Checks measured for the migration itself (gates before Finalize).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub checks: Vec<CheckStatus>,
    /// The migration-wide way back that is under way or was taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollback: Option<RollbackStatus>,
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
