//! The definitions as documents: every field explained and bounded, every path that a column or selector names really there.
//! No server is asked here.

use godwit::api::crd;
use serde_json::Value;

/// The definition of a kind.
pub fn definition_of(kind: &str) -> Value {
    crd::definitions().into_iter().find(|one| one["spec"]["names"]["kind"] == kind).unwrap()
}

/// The schema of a kind's only version.
pub fn schema_of(kind: &str) -> Value {
    let mut definition = definition_of(kind);
    assert_eq!(definition["spec"]["versions"].as_array().unwrap().len(), 1);
    definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"].take()
}

/// Visits every node of a schema with the path of the field that it describes.
pub fn walk(node: &Value, path: &str, visit: &mut impl FnMut(&str, &Value)) {
    visit(path, node);
    for (name, property) in node["properties"].as_object().into_iter().flatten() {
        walk(property, &format!("{path}.{name}"), visit);
    }
    if node["items"].is_object() {
        walk(&node["items"], &format!("{path}[]"), visit);
    }
    if node["additionalProperties"].is_object() {
        walk(&node["additionalProperties"], &format!("{path}{{}}"), visit);
    }
}

const KINDS: [&str; 3] = ["Migration", "Cohort", "Approval"];

/// What is wrong with any node of any kind.
fn faults(find: impl Fn(&str, &Value) -> Option<String>) -> Vec<String> {
    let mut faults = Vec::new();
    for kind in KINDS {
        walk(&schema_of(kind), "", &mut |path, node| {
            if let Some(fault) = find(path, node) {
                faults.push(format!("{kind}{path}: {fault}"));
            }
        });
    }
    faults
}

#[test]
fn every_field_is_explained_in_a_sentence() {
    let faults = faults(|path, node| {
        let text = node["description"].as_str().unwrap_or_default();
        // An element is explained by its list.
        let fault = if text.is_empty() && !path.ends_with("[]") {
            "no description"
        } else if text.contains("Auto-generated") {
            "a description of the derive"
        } else if !text.is_empty() && !text.ends_with('.') {
            "no full stop at the end"
        } else if text.contains('\n') && !path.contains(".conditions[]") {
            "a line break, which kubectl shows as it is"
        } else {
            return None;
        };
        Some(format!("{fault}: {text}"))
    });
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn every_default_of_a_spec_is_told() {
    let faults = faults(|path, node| {
        let text = node["description"].as_str().unwrap_or_default();
        let default = path.starts_with(".spec").then(|| node.get("default"))??;
        let value = match default {
            Value::String(text) => text.clone(),
            Value::Bool(_) | Value::Number(_) => default.to_string(),
            _ => "efault".to_owned(),
        };
        let told = text.to_lowercase().contains("default") && text.contains(&value);
        (!told).then(|| format!("default {default} is not told: {text}"))
    });
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn every_list_and_string_is_bounded() {
    let faults = faults(|path, node| {
        let has = |key: &str| node.get(key).is_some();
        let is = |kind: &str| node["type"] == kind;
        let fault = if is("string") && !(has("maxLength") || has("enum") || node["format"] == "date-time") {
            "a string without maxLength"
        } else if node["x-kubernetes-int-or-string"] == true && !has("maxLength") {
            "a number or string without maxLength"
        } else if is("array") && !has("maxItems") {
            "a list without maxItems"
        } else if has("additionalProperties") && !has("maxProperties") {
            "a map without maxProperties"
        } else if has("x-kubernetes-preserve-unknown-fields") {
            "a field that takes anything"
        } else if path.starts_with(".spec") && is("integer") && !(has("minimum") && has("maximum")) {
            "a number without bounds"
        } else if is("number") {
            "a number that is no integer"
        } else {
            return None;
        };
        Some(fault.to_owned())
    });
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn lists_of_named_things_are_maps_by_their_name() {
    let faults = faults(|_, node| {
        let keys = node["x-kubernetes-list-map-keys"].as_array()?;
        let required = node["items"]["required"].as_array().cloned().unwrap_or_default();
        keys.iter().find(|key| !required.contains(key)).map(|key| format!("key {key} is not required"))
    });
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    for kind in ["Migration", "Cohort"] {
        let conditions = schema_of(kind)["properties"]["status"]["properties"]["conditions"].take();
        assert_eq!(conditions["x-kubernetes-list-map-keys"], serde_json::json!(["type"]));
        assert_eq!(
            conditions["items"]["properties"]["status"]["enum"],
            serde_json::json!(["True", "False", "Unknown"])
        );
    }
}

/// The node that a path such as `.status.conditions[?(@.type=="Ready")].status` names.
fn resolve<'a>(schema: &'a Value, path: &str) -> Option<&'a Value> {
    let mut node = schema;
    for part in path.strip_prefix('.')?.split("].") {
        let (plain, filter) = part.split_once("[?(@.").map_or((part, None), |(plain, filter)| (plain, Some(filter)));
        for name in plain.split('.') {
            node = node["properties"].get(name)?;
        }
        if let Some(filter) = filter {
            node = node.get("items")?;
            node["properties"].get(filter.split("==").next()?)?;
        }
    }
    Some(node)
}

#[test]
fn every_column_and_every_selector_names_a_field_of_its_type() {
    for kind in KINDS {
        let definition = definition_of(kind);
        let version = &definition["spec"]["versions"][0];
        let schema = &version["schema"]["openAPIV3Schema"];
        for column in version["additionalPrinterColumns"].as_array().unwrap() {
            let path = column["jsonPath"].as_str().unwrap();
            if path == ".metadata.creationTimestamp" {
                continue;
            }
            let field = resolve(schema, path).unwrap_or_else(|| panic!("{kind}: no field {path}"));
            assert_eq!(field["type"], column["type"], "{kind} {path}");
            // A date column tells the age of a time, and `<invalid>` for one that is still to come.
            assert_ne!(column["type"], "date", "{kind} {path}");
        }
        let selectors = version["selectableFields"].as_array().unwrap();
        assert!((1..=8).contains(&selectors.len()));
        for selector in selectors {
            let path = selector["jsonPath"].as_str().unwrap();
            let field = resolve(schema, path).unwrap_or_else(|| panic!("{kind}: no field {path}"));
            assert!(["string", "boolean", "integer"].contains(&field["type"].as_str().unwrap()), "{kind} {path}");
        }
    }
}

#[test]
fn a_path_that_the_schema_does_not_have_is_found() {
    let schema = schema_of("Migration");
    assert!(resolve(&schema, ".status.conditions[?(@.type==\"Ready\")].status").is_some());
    for path in [
        ".status.phases",
        ".status.conditions[?(@.kind==\"Ready\")].status",
        ".status.conditions[?(@.type==\"Ready\")].state",
    ] {
        assert!(resolve(&schema, path).is_none(), "{path}");
    }
}

#[test]
fn columns_begin_with_the_phase_and_end_with_the_age() {
    let columns = |kind: &str, wide: bool| {
        let definition = definition_of(kind);
        let all = definition["spec"]["versions"][0]["additionalPrinterColumns"].as_array().unwrap().clone();
        let shown = all.into_iter().filter(|column| wide || column["priority"].as_i64().unwrap_or(0) == 0);
        shown.map(|column| column["name"].as_str().unwrap().to_uppercase()).collect::<Vec<_>>()
    };
    assert_eq!(columns("Migration", false), ["PHASE", "COHORTS", "PROGRESS", "READY", "AGE"]);
    assert_eq!(columns("Cohort", false), ["PHASE", "WAVE", "PROGRESS", "READY", "AGE"]);
    assert_eq!(columns("Approval", false), ["KIND", "SUBJECT", "BEFORE", "DECISION", "BY", "AGE"]);
    assert_eq!(columns("Migration", true)[4..], ["SOURCE", "TARGET", "STEP", "REASON", "MESSAGE", "ETA", "AGE"]);
    assert_eq!(columns("Cohort", true)[4..], ["MIGRATION", "OWNER", "STEP", "REASON", "MESSAGE", "ETA", "AGE"]);
}

#[test]
fn names_are_short_and_no_one_elses() {
    for (kind, short) in [("Migration", "gmig"), ("Cohort", "gco"), ("Approval", "gapp")] {
        let definition = definition_of(kind);
        let names = &definition["spec"]["names"];
        assert_eq!(names["shortNames"], serde_json::json!([short]));
        assert_eq!(names["categories"], serde_json::json!(["godwit"]));
        assert_eq!(definition["spec"]["scope"], "Namespaced");
    }
}
