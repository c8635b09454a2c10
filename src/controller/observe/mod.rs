//! Live reads of everything that a decision depends on. Caches only wake us: nothing here comes from one.
//! Called first in every pass. Must not write anything.

pub mod cohort;
pub mod jobs;
pub mod migration;

use std::collections::BTreeMap;

use kube::api::ListParams;
use kube::{Api, ResourceExt};
use serde_json::Value;
use serde_path_to_error::Segment;

use super::call::{call, list};
use super::context::Context;
use super::error::{Attempt, Error};
use crate::api::approval::{Approval, ApprovalSpec, SubjectKind};
use crate::api::names::{FINALIZER, GROUP};
use crate::plan::observed::ObjectFacts;

/// Namespace and name of the object that a pass is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    pub namespace: String,
    pub name: String,
}

impl Key {
    pub fn of(object: &impl ResourceExt) -> Self {
        Self { namespace: object.namespace().unwrap_or_default(), name: object.name_any() }
    }

    /// The object's name among those of every kind.
    pub fn of_kind(&self, kind: &str) -> String {
        format!("{kind} {self}")
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// What was seen: the object as it was read, the facts for the decision, and the uids that deletions must name.
#[derive(Debug)]
pub struct Look<K, F> {
    pub object: K,
    pub facts: F,
    pub job_uids: BTreeMap<String, String>,
}

/// What is the same for every kind.
pub fn facts_of(object: &impl ResourceExt) -> ObjectFacts {
    let meta = object.meta();
    let prefix = format!("{GROUP}/");
    let annotations = object.annotations().iter();
    ObjectFacts {
        namespace: object.namespace().unwrap_or_default(),
        name: object.name_any(),
        uid: object.uid().unwrap_or_default(),
        generation: meta.generation.unwrap_or_default(),
        deleted_at: meta.deletion_timestamp.as_ref().map(|time| time.0),
        has_finalizer: object.finalizers().iter().any(|name| name == FINALIZER),
        last_attempt: 0,
        annotations: annotations
            .filter(|(key, _)| key.starts_with(&prefix))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect(),
    }
}

/// Approvals for one object. One that cannot be read counts for nobody and is left out.
pub async fn approvals(ctx: &Context, key: &Key, kind: SubjectKind) -> Result<Vec<ApprovalSpec>, Error> {
    let api: Api<Loose> =
        Api::namespaced_with(ctx.client.clone(), &key.namespace, &kube::core::ApiResource::erase::<Approval>(&()));
    let of_subject = ListParams::default().fields(&format!("spec.subject.name={}", key.name));
    let found = list("approvals", &api, of_subject).await?;
    let specs = found.into_iter().filter_map(|approval| {
        let name = approval.name_any();
        serde_json::from_value::<ApprovalSpec>(approval.data["spec"].clone())
            .inspect_err(|error| {
                tracing::warn!(approval = name, %error, "Approval cannot be read and does not count");
            })
            .ok()
    });
    Ok(specs.filter(|spec| spec.subject.kind == kind && spec.subject.name == key.name).collect())
}

/// An object whose content may be anything: so that one malformed item does not spoil a list.
pub type Loose = kube::core::DynamicObject;

/// True when the namespace is being deleted. Asked for objects that are marked for deletion only: before that, a refused
/// create leads to another pass.
pub async fn namespace_is_terminating(ctx: &Context, facts: &ObjectFacts) -> Result<bool, Error> {
    if facts.deleted_at.is_none() {
        return Ok(false);
    }
    let api: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(ctx.client.clone());
    let attempt = Attempt::new("get", "namespaces", facts.namespace.as_str());
    let namespace = call(attempt, api.get_opt(&facts.namespace)).await?;
    Ok(namespace.is_none_or(|namespace| namespace.metadata.deletion_timestamp.is_some()))
}

/// A part of a loose object, or its default when it does not have the shape that this version knows.
pub fn lenient<T: serde::de::DeserializeOwned>(value: &Value) -> Option<T> {
    serde_json::from_value(value.clone()).ok()
}

/// The field for which a value cannot be read, and what is wrong with it.
pub fn unreadable<T: serde::de::DeserializeOwned>(value: &Value) -> Option<(String, String)> {
    let error = serde_path_to_error::deserialize::<_, T>(value.clone()).err()?;
    Some((error.path().to_string(), error.inner().to_string()))
}

/// What of a value can be read: fields that cannot are left out one by one, and the others keep their meaning.
pub fn salvage<T: serde::de::DeserializeOwned + Default>(value: &Value) -> T {
    let mut value = value.clone();
    // Bounded, because each round leaves one field out; an object with more of them than that is not worth reading.
    for _ in 0..100 {
        match serde_path_to_error::deserialize::<_, T>(value.clone()) {
            Ok(read) => return read,
            Err(error) => {
                let path: Vec<Segment> = error.path().iter().cloned().collect();
                if !leave_out(&mut value, &path) {
                    break;
                }
            }
        }
    }
    T::default()
}

/// Takes the value at the end of the path away; false when there is none.
fn leave_out(value: &mut Value, path: &[Segment]) -> bool {
    match (path, value) {
        ([Segment::Map { key }], Value::Object(fields)) => fields.remove(key).is_some(),
        ([Segment::Seq { index }], Value::Array(items)) if *index < items.len() => {
            items.remove(*index);
            true
        }
        ([Segment::Map { key }, rest @ ..], Value::Object(fields)) => {
            fields.get_mut(key).is_some_and(|inner| leave_out(inner, rest))
        }
        ([Segment::Seq { index }, rest @ ..], Value::Array(items)) => {
            items.get_mut(*index).is_some_and(|inner| leave_out(inner, rest))
        }
        // A segment that names no place, such as an enumeration's variant: what surrounds it goes.
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::CohortStatus;

    #[test]
    fn of_a_malformed_status_everything_that_can_be_read_is_kept() {
        let status: CohortStatus = salvage(&json!({
            "owner": "Target", "epoch": 2, "customers": "many",
            "step": {"name": "Soak", "startTime": "2026-03-01T10:00:00Z", "failures": 5_000_000_000_u64},
            "history": [{"time": "yesterday", "step": "Copy", "message": "m"}, {"time": "2026-03-01T10:00:00Z", "step": "Soak", "message": "m"}],
            "checks": [{"name": "quiet", "verdict": "Perhaps"}],
        }));
        assert_eq!((status.owner.as_deref(), status.epoch, status.customers), (Some("Target"), 2, None));
        assert_eq!(status.step.unwrap().name, "Soak");
        assert_eq!(status.history.len(), 1);
        assert_eq!(salvage::<CohortStatus>(&json!("nonsense")), CohortStatus::default());
        assert_eq!(salvage::<CohortStatus>(&json!(null)), CohortStatus::default());
    }
}
