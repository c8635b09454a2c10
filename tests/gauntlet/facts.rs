//! What two runs of the same story must agree on at their end: objects, fields, counts by kind.
//! Used by `campaign.rs`. What differs between undisturbed runs (uids, times, addresses) is learned and left out.

use std::collections::{BTreeMap, BTreeSet};

use godwit::api::{Approval, Cohort, Migration};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::ListParams;
use kube::core::{ApiResource, DynamicObject};
use kube::{Api, Client, ResourceExt};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// One run's end: each field by its path.
pub type Facts = BTreeMap<String, String>;

pub async fn collect(client: &Client, namespace: &str) -> Facts {
    let mut facts = Facts::new();
    let kinds = [
        ApiResource::erase::<Migration>(&()),
        ApiResource::erase::<Cohort>(&()),
        ApiResource::erase::<Approval>(&()),
        ApiResource::erase::<Job>(&()),
        ApiResource::erase::<ConfigMap>(&()),
    ];
    for kind in kinds {
        let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &kind);
        let found = api.list(&ListParams::default()).await.unwrap();
        for object in found.items.iter().filter(|object| object.name_any() != "kube-root-ca.crt") {
            let name = scrubbed(&object.name_any(), namespace);
            flatten(&format!("{}/{name}", kind.kind), &of_interest(&kind.kind, object), namespace, &mut facts);
        }
    }
    // What runs although the Job that made it is gone: nobody would ever stop it.
    let pods = Api::<Pod>::namespaced(client.clone(), namespace).list(&ListParams::default()).await.unwrap();
    let left = pods.iter().filter(|pod| pod.owner_references().is_empty()).count();
    facts.insert("pods of no Job".to_owned(), left.to_string());
    facts
}

/// Of a Job only what the operator decides and how it ended.
fn of_interest(kind: &str, object: &DynamicObject) -> Value {
    let meta = &object.metadata;
    let owners: Vec<_> =
        object.owner_references().iter().map(|owner| format!("{}/{}", owner.kind, owner.name)).collect();
    let head = json!({"labels": meta.labels, "annotations": meta.annotations, "finalizers": meta.finalizers,
        "owners": owners, "deleted": meta.deletion_timestamp.is_some()});
    if kind != "Job" {
        let mut whole = object.data.clone();
        whole["metadata"] = head;
        return whole;
    }
    let conditions = object.data["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let ended: Vec<_> =
        conditions.into_iter().filter(|one| one["status"] == "True").map(|one| one["type"].clone()).collect();
    json!({"metadata": head, "suspend": object.data["spec"]["suspend"], "ended": ended})
}

fn flatten(path: &str, value: &Value, namespace: &str, facts: &mut Facts) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                flatten(&format!("{path}.{key}"), value, namespace, facts);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                let named = ["name", "type", "verb"].iter().find_map(|key| item[key].as_str());
                let place = named.map_or_else(|| index.to_string(), str::to_owned);
                flatten(&format!("{path}[{place}]"), item, namespace, facts);
            }
        }
        Value::String(text) => {
            facts.insert(path.to_owned(), scrubbed(text, namespace));
        }
        Value::Null => {}
        other => {
            facts.insert(path.to_owned(), other.to_string());
        }
    }
}

/// Without what cannot be the same twice: times, uids, hashes over uids, the namespace, the address of the checks' server.
fn scrubbed(text: &str, namespace: &str) -> String {
    const TIME: &str = "dddd-dd-ddTdd:dd:dd";
    const UID: &str = "hhhhhhhh-hhhh-hhhh-hhhh-hhhhhhhhhhhh";
    let mut out = String::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        if let Some(after) = after_shape(rest, TIME) {
            let fraction = after.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
            out.push_str("<time>");
            rest = fraction.strip_prefix('Z').unwrap_or(fraction);
        } else if let Some(after) = after_shape(rest, UID) {
            out.push_str("<uid>");
            rest = after;
        } else if let Some(after) =
            after_shape(rest, "-hhhhhhhh").filter(|after| !after.starts_with(|c: char| c.is_ascii_alphanumeric()))
        {
            out.push_str("-<hash>");
            rest = after;
        } else if let Some(after) = rest.strip_prefix("127.0.0.1:") {
            out.push_str("<address>");
            rest = after.trim_start_matches(|c: char| c.is_ascii_digit());
        } else if let Some(after) = rest.strip_prefix(namespace) {
            out.push_str("<namespace>");
            rest = after;
        } else {
            out.push(first);
            rest = &rest[first.len_utf8()..];
        }
    }
    out
}

/// The text after this shape: `d` is a digit, `h` a hexadecimal digit, all else itself.
fn after_shape<'a>(text: &'a str, shape: &str) -> Option<&'a str> {
    let mut chars = text.chars();
    for wanted in shape.chars() {
        let found = chars.next()?;
        let fits = match wanted {
            'd' => found.is_ascii_digit(),
            'h' => found.is_ascii_hexdigit(),
            other => found == other,
        };
        if !fits {
            return None;
        }
    }
    Some(chars.as_str())
}

/// What undisturbed runs agree on.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Expected {
    facts: Facts,
    masked: BTreeSet<String>,
}

impl Expected {
    pub fn learn(runs: &[Facts]) -> Self {
        let paths: BTreeSet<&String> = runs.iter().flat_map(BTreeMap::keys).collect();
        let differs = |path: &&&String| runs.iter().any(|run| run.get(**path) != runs[0].get(**path));
        let masked = paths.iter().filter(differs).map(|path| (*path).clone()).collect();
        Self { facts: runs[0].clone(), masked }
    }

    pub fn masked(&self) -> impl Iterator<Item = &String> {
        self.masked.iter()
    }

    /// Every difference, as a sentence.
    pub fn compare(&self, found: &Facts) -> Vec<String> {
        let paths: BTreeSet<&String> = self.facts.keys().chain(found.keys()).collect();
        paths
            .into_iter()
            .filter(|path| !self.masked.contains(*path) && self.facts.get(*path) != found.get(*path))
            .map(|path| {
                let shown =
                    |facts: &Facts| facts.get(path).map_or_else(|| "nothing".to_owned(), |text| format!("{text:?}"));
                format!("{path} is {}, in undisturbed runs {}", shown(found), shown(&self.facts))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(pairs: &[(&str, &str)]) -> Facts {
        pairs.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect()
    }

    #[test]
    fn what_cannot_be_the_same_twice_is_left_out_of_a_text() {
        let text = "Job canary-copy-7-0a1b2c3d of 0f7c1d2e-1111-2222-3333-444455556666 in g-12 at 2026-03-01T10:00:00.123Z asks 127.0.0.1:4242/g-12";
        assert_eq!(
            scrubbed(text, "g-12"),
            "Job canary-copy-7-<hash> of <uid> in <namespace> at <time> asks <address>/<namespace>"
        );
    }

    #[test]
    fn what_undisturbed_runs_differ_in_is_not_compared_and_everything_else_is() {
        let expected = Expected::learn(&[facts(&[("a", "1"), ("b", "1")]), facts(&[("a", "1"), ("b", "2")])]);
        assert_eq!(expected.compare(&facts(&[("a", "1"), ("b", "3")])), Vec::<String>::new());
        assert_eq!(expected.compare(&facts(&[("a", "2")])).len(), 1);
        assert_eq!(expected.compare(&facts(&[("a", "1"), ("c", "1")])), ["c is \"1\", in undisturbed runs nothing"]);
    }
}
