//! A Cohort as far as waking needs it: its metadata and the Migration it names.
//! Used by the watches. Decodes whatever a Cohort's spec holds, so that one malformed Cohort cannot stop the watch of all.

use std::borrow::Cow;

use kube::Resource;
use kube::core::ObjectMeta;
use serde::{Deserialize, Deserializer};

use crate::api::Cohort;

#[derive(Clone, Debug)]
pub struct CohortLink {
    pub metadata: ObjectMeta,
    /// Name of the Migration; empty when the spec does not say.
    pub migration: String,
}

impl<'de> Deserialize<'de> for CohortLink {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Wire {
            metadata: ObjectMeta,
            #[serde(default)]
            spec: serde_json::Value,
        }
        let Wire { mut metadata, spec } = Wire::deserialize(deserializer)?;
        // Ten thousand of these are kept: without the history of who wrote what they are a fifth of the size.
        metadata.managed_fields = None;
        let name = spec["migrationRef"]["name"].as_str();
        Ok(Self { metadata, migration: name.unwrap_or_default().to_owned() })
    }
}

impl Resource for CohortLink {
    type DynamicType = ();
    type Scope = <Cohort as Resource>::Scope;

    fn kind(dynamic: &()) -> Cow<'_, str> {
        Cohort::kind(dynamic)
    }
    fn group(dynamic: &()) -> Cow<'_, str> {
        Cohort::group(dynamic)
    }
    fn version(dynamic: &()) -> Cow<'_, str> {
        Cohort::version(dynamic)
    }
    fn plural(dynamic: &()) -> Cow<'_, str> {
        Cohort::plural(dynamic)
    }
    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }
    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_malformed_cohort_is_still_a_link() {
        for (spec, migration) in [
            (r#"{"migrationRef": {"name": "crm"}, "wave": "many"}"#, "crm"),
            (r#"{"migrationRef": 7}"#, ""),
            ("null", ""),
        ] {
            let text = format!(r#"{{"metadata": {{"name": "canary"}}, "spec": {spec}}}"#);
            let link: CohortLink = serde_json::from_str(&text).unwrap();
            assert_eq!(link.migration, migration);
            assert_eq!(link.metadata.name.as_deref(), Some("canary"));
        }
    }
}
