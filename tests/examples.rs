//! Every object in `examples/` is one that the kinds of this version accept, field by field and rule by rule.
//! Run by `cargo test`; the API server tier applies the same files to a real server.

use std::path::{Path, PathBuf};

use godwit::api::{Approval, Cohort, Migration};
use kube::core::cel::{ErrorKind, ValidationErrors, validate_cel_schema};
use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

fn yaml_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).expect("the folder is there") {
        let path = entry.expect("the folder can be read").path();
        if path.is_dir() {
            files.extend(yaml_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "yaml") {
            files.push(path);
        }
    }
    files
}

fn objects() -> Vec<(String, Value)> {
    let files = yaml_files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("examples"));
    let mut objects = Vec::new();
    for path in files {
        let text = std::fs::read_to_string(&path).expect("an example is text");
        for document in serde_yaml::Deserializer::from_str(&text) {
            let object = Value::deserialize(document).expect("an example is YAML");
            objects.push((format!("{} {}", path.display(), object["kind"]), object));
        }
    }
    objects
}

/// Fields of `written` that `read` does not have: nobody would act on them.
fn ignored(written: &Value, read: &Value, path: &str) -> Vec<String> {
    match (written, read) {
        (Value::Object(written), Value::Object(read)) => written
            .iter()
            .flat_map(|(key, value)| match read.get(key) {
                Some(read) => ignored(value, read, &format!("{path}.{key}")),
                // An empty list is as good as none.
                None if value.as_array().is_some_and(Vec::is_empty) => Vec::new(),
                None => vec![format!("{path}.{key}")],
            })
            .collect(),
        (Value::Array(written), Value::Array(read)) if written.len() == read.len() => {
            written.iter().zip(read).flat_map(|(written, read)| ignored(written, read, &format!("{path}[]"))).collect()
        }
        (written, read) if written == read => Vec::new(),
        _ => vec![path.to_owned()],
    }
}

fn problems<T: JsonSchema + DeserializeOwned + serde::Serialize>(object: &Value) -> Vec<String> {
    let typed: T = match serde_json::from_value(object.clone()) {
        Ok(typed) => typed,
        Err(error) => return vec![error.to_string()],
    };
    let read = serde_json::to_value(&typed).expect("a typed object can be written");
    let mut problems = ignored(&object["spec"], &read["spec"], "spec");
    let broken = validate_cel_schema::<T>(&read, None).err().map(ValidationErrors::into_vec).unwrap_or_default();
    // A few functions of CEL exist on the API server only; there the same examples are applied for real.
    let known = broken.into_iter().filter(|error| error.kind != ErrorKind::UnsupportedReference);
    problems.extend(known.map(|error| error.message));
    problems
}

fn problems_of(object: &Value) -> Option<Vec<String>> {
    match object["kind"].as_str()? {
        "Migration" => Some(problems::<Migration>(object)),
        "Cohort" => Some(problems::<Cohort>(object)),
        "Approval" => Some(problems::<Approval>(object)),
        _ => None,
    }
}

#[test]
fn every_example_is_accepted_and_no_field_of_it_is_ignored() {
    let mut seen = 0;
    for (name, object) in objects() {
        let Some(problems) = problems_of(&object) else { continue };
        assert_eq!(problems, Vec::<String>::new(), "{name}");
        seen += 1;
    }
    assert!(seen >= 12, "only {seen} objects of ours were found");
}

#[test]
fn the_first_example_moves_nobody() {
    let minimal: Vec<Value> =
        objects().into_iter().filter(|(name, _)| name.contains("/minimal.yaml ")).map(|(_, object)| object).collect();
    assert!(minimal.iter().any(|object| object["kind"] == "Migration"));
    assert!(minimal.iter().all(|object| object["kind"] != "Cohort"), "README applies it before anything may move");
}

#[test]
fn no_gitops_tool_prunes_what_an_example_starts() {
    for (name, object) in objects() {
        let kept = ["Migration", "Cohort"].iter().any(|kind| object["kind"] == *kind) && !name.contains("/crm/");
        if !kept {
            continue;
        }
        let annotations = &object["metadata"]["annotations"];
        assert_eq!(annotations["argocd.argoproj.io/sync-options"], "Prune=confirm,Delete=confirm", "{name}");
        assert_eq!(annotations["kustomize.toolkit.fluxcd.io/prune"], "disabled", "{name}");
    }
}

#[test]
fn a_field_that_does_not_exist_or_a_rule_that_is_broken_is_a_problem() {
    let (_, mut cohort) = objects().into_iter().find(|(_, object)| object["kind"] == "Cohort").unwrap();
    cohort["spec"]["select"] = serde_json::json!({"percent": 1, "remainder": {}});
    assert_eq!(problems_of(&cohort).unwrap().len(), 1);
    cohort["spec"]["select"] = serde_json::json!({"percent": 1});
    cohort["spec"]["speed"] = serde_json::json!("high");
    assert_eq!(problems_of(&cohort).unwrap(), ["spec.speed"]);
}
