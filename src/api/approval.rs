//! The kind `Approval`: a person's yes or no to one step of one object, bound to a digest.
//! Written by people, read by `controller/`. Immutable; who may create it is RBAC.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::pattern;

/// A yes or no to one step of one Migration or Cohort.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "godwit.dev",
    version = "v1alpha1",
    kind = "Approval",
    namespaced,
    shortname = "gapp",
    category = "godwit",
    derive = "PartialEq",
    cel,
    doc = "A person's yes or no to one step of a Migration or Cohort, bound to the digest of what was looked at. Immutable: to change your mind, delete it and create another. Who may approve is who may create approvals.godwit.dev.",
    selectable = ".spec.subject.name",
    printcolumn(name = "Kind", type_ = "string", json_path = ".spec.subject.kind"),
    printcolumn(name = "Subject", type_ = "string", json_path = ".spec.subject.name"),
    printcolumn(name = "Before", type_ = "string", json_path = ".spec.before"),
    printcolumn(name = "Decision", type_ = "string", json_path = ".spec.decision"),
    printcolumn(name = "By", type_ = "string", json_path = ".spec.by"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self == oldSelf")
    .message(Message::Expression("'an Approval is immutable: delete it and create another'".into())).reason(Reason::FieldValueForbidden))]
#[x_kube(validation = Rule::new("self.before == 'Cutover' ? self.subject.kind == 'Cohort' : self.subject.kind == 'Migration'")
    .message(Message::Expression("'before ' + self.before + ' belongs to a ' + (self.before == 'Cutover' ? 'Cohort' : 'Migration') + ', not to a ' + self.subject.kind".into())).field_path(".before"))]
pub struct ApprovalSpec {
    /// The object that is approved, in the same namespace.
    pub subject: Subject,
    /// The step that is approved: Cutover (of a Cohort) or Finalize (of a Migration).
    pub before: ApprovedStep,
    /// `status.plan.digest` of the subject as the approver saw it; an approval of another digest does not count.
    #[schemars(length(min = 71, max = 71), regex(pattern = r"^sha256:[0-9a-f]{64}$"))]
    pub digest: String,
    /// Approve or Reject. A Reject for the current digest holds the step whatever else was approved.
    pub decision: Decision,
    /// Who decided. Distinct names count as distinct approvers.
    #[schemars(length(min = 1, max = 253))]
    pub by: String,
    /// Why, for the record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub comment: Option<String>,
}

/// The object that is approved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct Subject {
    /// Migration or Cohort.
    pub kind: SubjectKind,
    /// Name of the object.
    #[schemars(length(min = 1, max = 50), regex(pattern = pattern::OBJECT_NAME))]
    pub name: String,
}

/// Migration or Cohort.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SubjectKind {
    Migration,
    Cohort,
}

/// The step that is approved: Cutover or Finalize.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ApprovedStep {
    Cutover,
    Finalize,
}

/// Approve or Reject.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Decision {
    Approve,
    Reject,
}
