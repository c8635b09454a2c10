//! Status conditions of any named object in the namespace.
//! Used by `checks/mod.rs`. A missing object or right is an outcome that names what is missing.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use kube::discovery::{Scope, pinned_kind};
use kube::{Api, Client};

use super::Answer;
use crate::api::check::ConditionSource;

/// Kinds that were looked up; a kind that is not served is asked for again each time.
#[derive(Default)]
pub struct Conditions {
    known: Mutex<HashMap<GroupVersionKind, ApiResource>>,
}

impl Conditions {
    pub async fn ask(&self, client: &Client, namespace: &str, source: &ConditionSource) -> Answer {
        let resource = match self.resource(client, source).await {
            Ok(resource) => resource,
            Err(message) => return Answer::Error(message),
        };
        let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource);
        let named = if resource.group.is_empty() {
            resource.plural.clone()
        } else {
            format!("{}.{}", resource.plural, resource.group)
        };
        match api.get_opt(&source.name).await {
            Ok(Some(object)) => compare(&object, source),
            Ok(None) => Answer::NoData(format!("{named} {} was not found", source.name)),
            Err(kube::Error::Api(status)) if status.is_forbidden() => Answer::Error(format!(
                "the operator may not get {named} in namespace {namespace}: grant it the verb get"
            )),
            Err(error) => {
                tracing::debug!(%error, "Object of a condition check could not be read");
                Answer::Error(format!("failed to get {named} {}", source.name))
            }
        }
    }

    async fn resource(&self, client: &Client, source: &ConditionSource) -> Result<ApiResource, String> {
        let (group, version) = source.api_version.split_once('/').unwrap_or(("", &source.api_version));
        let kind = GroupVersionKind::gvk(group, version, &source.kind);
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(&kind).cloned();
        if let Some(resource) = known {
            return Ok(resource);
        }
        let named = format!("{} {}", source.api_version, source.kind);
        let (resource, capabilities) =
            pinned_kind(client, &kind).await.map_err(|_| format!("the API server does not serve {named}"))?;
        if capabilities.scope == Scope::Cluster {
            return Err(format!("{named} is not namespaced"));
        }
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(kind, resource.clone());
        Ok(resource)
    }
}

fn compare(object: &DynamicObject, source: &ConditionSource) -> Answer {
    let conditions = object.data["status"]["conditions"].as_array();
    let found =
        conditions.into_iter().flatten().find(|condition| condition["type"].as_str() == Some(source.type_.as_str()));
    let Some(condition) = found else {
        return Answer::NoData(format!("{} {} has no condition {}", source.kind, source.name, source.type_));
    };
    let status = condition["status"].as_str().unwrap_or_default();
    let reason = condition["reason"].as_str().unwrap_or_default();
    Answer::Compared {
        passed: status == source.status.as_str(),
        found: format!("{}={status} {reason}", source.type_).trim_end().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(conditions: &serde_json::Value) -> DynamicObject {
        serde_json::from_value(json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "crm"},
            "status": {"conditions": conditions},
        }))
        .unwrap()
    }

    fn source() -> ConditionSource {
        serde_json::from_value(json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "name": "crm", "type": "Available",
        }))
        .unwrap()
    }

    #[test]
    fn a_condition_passes_while_it_has_the_stated_status() {
        for (status, passed) in [("True", true), ("False", false), ("Unknown", false)] {
            let object = object(&json!([
                {"type": "Progressing", "status": "True"},
                {"type": "Available", "status": status, "reason": "Why"},
            ]));
            let found = format!("Available={status} Why");
            assert_eq!(compare(&object, &source()), Answer::Compared { passed, found });
        }
    }

    #[test]
    fn an_object_without_the_condition_is_no_data() {
        for conditions in [json!([]), json!(null), json!([{"type": "Other", "status": "True"}])] {
            assert!(matches!(compare(&object(&conditions), &source()), Answer::NoData(_)));
        }
    }
}
