//! Live reads of everything that a decision depends on. Caches only wake us: nothing here comes from one.
//! Called first in every pass. Must not write anything.

pub mod cohort;
pub mod jobs;
pub mod migration;

use std::collections::BTreeMap;

use kube::api::ListParams;
use kube::{Api, ResourceExt};
use serde_json::Value;

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
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// What was seen: the object as it was read, the facts for the decision, and what writes must name so that they meet
/// nothing but what was seen.
#[derive(Debug)]
pub struct Look<K, F> {
    pub object: K,
    pub facts: F,
    pub job_uids: BTreeMap<String, String>,
    /// The `ConfigMap` of the route table; `None`: there is none.
    pub route_table: Option<Version>,
}

/// Which state of which object was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    pub uid: Option<String>,
    pub resource_version: Option<String>,
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
