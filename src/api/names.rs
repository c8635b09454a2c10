//! Names that are part of the contract: labels, annotations, field managers.
//! Used by `build/` to write them and by users and dashboards to select by them. A name never changes its meaning.

/// API group of every kind.
pub const GROUP: &str = "godwit.dev";

pub const LABEL_MIGRATION: &str = "godwit.dev/migration";
pub const LABEL_COHORT: &str = "godwit.dev/cohort";
pub const LABEL_STEP: &str = "godwit.dev/step";
pub const LABEL_ATTEMPT: &str = "godwit.dev/attempt";
pub const LABEL_CHECK: &str = "godwit.dev/check";
pub const LABEL_OWNER_UID: &str = "godwit.dev/owner-uid";

pub const LABEL_MANAGED_BY: &str = "app.kubernetes.io/managed-by";
pub const LABEL_COMPONENT: &str = "app.kubernetes.io/component";
pub const LABEL_NAME: &str = "app.kubernetes.io/name";
pub const LABEL_PART_OF: &str = "app.kubernetes.io/part-of";
pub const MANAGED_BY: &str = "godwit";

/// The break-glass twin of `spec.suspend`; survives GitOps.
pub const ANNOTATION_PAUSED: &str = "godwit.dev/paused";
/// Digest of the plan that a Job carries out.
pub const ANNOTATION_PLAN_DIGEST: &str = "godwit.dev/plan-digest";

pub const FINALIZER: &str = "godwit.dev/finalizer";

/// Field manager of children.
pub const MANAGER_CHILDREN: &str = "godwit";
/// Field manager of status.
pub const MANAGER_STATUS: &str = "godwit-status";
/// Field manager of the route table.
pub const MANAGER_ROUTING: &str = "godwit-routing";

/// A one-shot command: the annotation `godwit.dev/<verb>-requested-at`, handled once per distinct text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verb {
    Retry,
    Rollback,
    Promote,
    Abort,
}

impl Verb {
    pub const ALL: [Verb; 4] = [Verb::Retry, Verb::Rollback, Verb::Promote, Verb::Abort];

    pub fn as_str(self) -> &'static str {
        match self {
            Verb::Retry => "retry",
            Verb::Rollback => "rollback",
            Verb::Promote => "promote",
            Verb::Abort => "abort",
        }
    }

    /// The annotation's key.
    pub fn annotation(self) -> String {
        format!("godwit.dev/{}-requested-at", self.as_str())
    }
}
