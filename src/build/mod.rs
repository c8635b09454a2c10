//! A decision becomes Kubernetes objects: Jobs, their pods, labels, the route table's `ConfigMap`.
//! Called by `controller/perform.rs`. Pure: must not know a client, a clock, the environment or a running cluster.

pub mod error;
pub mod job;
pub mod labels;
pub mod pod;
pub mod route_table;
pub mod settings;
pub mod step_input;

#[cfg(test)]
mod fixtures;

pub use error::Error;
pub use job::{JobOrder, build_job, build_placeholder};
pub use route_table::build_route_table;
pub use settings::PodSettings;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

use crate::api::names::GROUP;
use crate::contract::Identity;

/// The object that a child belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner<'a> {
    /// `Migration` or `Cohort`.
    pub kind: &'static str,
    pub identity: &'a Identity,
}

impl Owner<'_> {
    /// The reference that makes the child vanish with its owner.
    pub fn reference(&self) -> OwnerReference {
        OwnerReference {
            api_version: format!("{GROUP}/v1alpha1"),
            kind: self.kind.to_owned(),
            name: self.identity.name.clone(),
            uid: self.identity.uid.clone(),
            controller: Some(true),
            block_owner_deletion: Some(true),
        }
    }
}
