//! What the operator's own configuration says about the pods of its Jobs.
//! Filled by `cli.rs` from flags, passed through `controller/`. Must not read the environment.

use k8s_openapi::api::core::v1::ResourceRequirements;

/// The part of a pod that a Migration does not decide.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PodSettings {
    /// Image of `godwit worker`.
    pub image: String,
    /// `Always`, `IfNotPresent` or `Never`; absent: the cluster's default.
    pub pull_policy: Option<String>,
    /// Names of the pull secrets, in the Migration's namespace.
    pub pull_secrets: Vec<String>,
    pub resources: ResourceRequirements,
    pub priority_class: Option<String>,
    /// User and group of the worker's process and of the volumes; absent: the platform chooses (OpenShift).
    pub user_id: Option<i64>,
}
