//! What the chart promises, as far as plain files show it: the same definitions as in code, and no right to read a Secret.
//! Run by `cargo test`. What helm renders is tested by `make test-chart`, which says where helm is.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;
use serde_json::Value;

fn chart() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("charts/godwit")
}

fn templates() -> Vec<(String, String)> {
    std::fs::read_dir(chart().join("templates"))
        .expect("the chart has templates")
        .map(|entry| entry.expect("the folder can be read").path())
        .map(|path| {
            let text = std::fs::read_to_string(&path).expect("a template is text");
            (path.display().to_string(), text)
        })
        .collect()
}

#[test]
fn the_chart_installs_the_definitions_of_this_version() {
    let folder = chart().join("files/crds");
    let expected = godwit::api::crd::files().unwrap();
    for (name, content) in &expected {
        let found = std::fs::read_to_string(folder.join(name)).unwrap_or_default();
        assert!(found == *content, "{name} is out of date: run `godwit crds` into charts/godwit/files/crds");
        // The template puts labels and annotations after this line; the definition itself must have none of its own.
        assert_eq!(content.matches("\nmetadata:\n  name: ").count(), 1, "{name}");
    }
    assert_eq!(std::fs::read_dir(folder).unwrap().count(), expected.len(), "a file is left over from another version");
}

#[test]
fn no_role_of_the_chart_names_secrets_or_everything() {
    for (path, text) in templates() {
        for line in text.lines().map(str::trim) {
            let grants = line.starts_with("resources:") || line.starts_with("verbs:");
            assert!(!(grants && (line.contains("secrets") || line.contains('*'))), "{path}: {line}");
        }
    }
}

/// What helm renders, or None where no helm is.
fn rendered(arguments: &[&str]) -> Option<Vec<Value>> {
    let Some(helm) = std::env::var_os("GODWIT_HELM").filter(|path| Path::new(path).exists()) else {
        eprintln!("GODWIT_HELM names no helm: run `make test-chart`");
        return None;
    };
    let mut command = Command::new(helm);
    command.args(["template", "godwit"]).arg(chart()).args(["--namespace", "ops"]).args(arguments);
    let output = command.output().expect("helm can be started");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("helm renders text");
    let documents = serde_yaml::Deserializer::from_str(&text);
    let objects = documents.map(|document| Value::deserialize(document).expect("helm renders YAML"));
    Some(objects.filter(|object| !object.is_null()).collect())
}

fn of_kind<'a>(objects: &'a [Value], kind: &str) -> Vec<&'a Value> {
    objects.iter().filter(|object| object["kind"] == kind).collect()
}

fn grants(role: &Value, resource: &str) -> Vec<String> {
    let rules = role["rules"].as_array().expect("a role has rules");
    let matching =
        rules.iter().filter(|rule| rule["resources"].as_array().is_some_and(|all| all.iter().any(|r| r == resource)));
    matching
        .flat_map(|rule| rule["verbs"].as_array().cloned().unwrap_or_default())
        .filter_map(|verb| verb.as_str().map(str::to_owned))
        .collect()
}

#[test]
fn the_operators_pod_is_restricted() {
    let Some(objects) = rendered(&[]) else { return };
    let pod = &of_kind(&objects, "Deployment")[0]["spec"]["template"]["spec"];
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
    let container = &pod["containers"][0]["securityContext"];
    assert_eq!(container["allowPrivilegeEscalation"], false);
    assert_eq!(container["readOnlyRootFilesystem"], true);
    assert_eq!(container["capabilities"]["drop"][0], "ALL");
}

#[test]
fn definitions_are_kept_when_the_release_goes_and_are_otherwise_those_in_the_files() {
    let Some(objects) = rendered(&[]) else { return };
    let definitions = of_kind(&objects, "CustomResourceDefinition");
    assert_eq!(definitions.len(), 3);
    for definition in definitions {
        assert_eq!(definition["metadata"]["annotations"]["helm.sh/resource-policy"], "keep");
        let name = definition["metadata"]["name"].as_str().unwrap().trim_end_matches(".godwit.dev");
        let file = chart().join(format!("files/crds/godwit.dev_{name}.yaml"));
        let written: Value = serde_yaml::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
        assert_eq!(definition["spec"], written["spec"]);
    }
    let Some(without) = rendered(&["--set", "crds.enabled=false"]) else { return };
    assert!(of_kind(&without, "CustomResourceDefinition").is_empty());
}

#[test]
fn with_namespaces_named_the_operator_has_no_right_elsewhere() {
    let Some(objects) = rendered(&["--set", "watchNamespaces={crm,shop}"]) else { return };
    assert!(of_kind(&objects, "ClusterRoleBinding").is_empty());
    let mut namespaces: Vec<&str> = of_kind(&objects, "RoleBinding")
        .iter()
        .filter_map(|binding| binding["metadata"]["namespace"].as_str())
        .collect();
    namespaces.sort_unstable();
    assert_eq!(namespaces, ["crm", "ops", "shop"]);
}

#[test]
fn nobody_may_approve_but_those_to_whom_the_approvers_role_is_bound() {
    let Some(objects) = rendered(&[]) else { return };
    let can: Vec<&Value> = of_kind(&objects, "ClusterRole")
        .into_iter()
        .filter(|role| grants(role, "approvals").iter().any(|v| v == "create"))
        .collect();
    assert_eq!(can.len(), 1);
    assert_eq!(can[0]["metadata"]["name"], "godwit-approver");
    let labels = can[0]["metadata"]["labels"].as_object().unwrap();
    assert!(labels.keys().all(|label| !label.contains("aggregate")), "{labels:?}");
}

#[test]
fn every_value_of_the_chart_is_rendered() {
    let values = chart().join("ci/full-values.yaml");
    let arguments = ["--values", values.to_str().unwrap(), "--api-versions", "monitoring.coreos.com/v1"];
    let Some(objects) = rendered(&arguments) else { return };
    for kind in ["PodDisruptionBudget", "NetworkPolicy", "ServiceMonitor"] {
        assert_eq!(of_kind(&objects, kind).len(), 1, "{kind}");
    }
    let deployment = of_kind(&objects, "Deployment")[0].to_string();
    for value in [
        "registry.example/godwit@sha256:aaaa",
        "registry.example/godwit-worker:v1",
        "crm,billing",
        "512Mi",
        "info,godwit=debug",
        "--lease-duration=30s",
    ] {
        assert!(deployment.contains(value), "{value}");
    }
}

#[test]
fn every_setting_that_the_chart_gives_is_one_that_the_operator_reads() {
    let template = std::fs::read_to_string(chart().join("templates/deployment.yaml")).unwrap();
    let cli = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cli.rs")).unwrap();
    let names: Vec<&str> = template
        .split(|c: char| !(c.is_ascii_uppercase() || c == '_'))
        .filter(|word| word.starts_with("GODWIT_"))
        .collect();
    assert!(names.len() > 8, "{names:?}");
    for name in names {
        assert!(cli.contains(&format!("env = \"{name}\"")), "{name}");
    }
}

#[test]
fn every_flag_that_the_values_speak_of_is_one_that_the_operator_has() {
    let values = std::fs::read_to_string(chart().join("values.yaml")).unwrap();
    let cli = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cli.rs")).unwrap();
    let flags: Vec<&str> =
        values.split_whitespace().filter_map(|word| word.strip_prefix("--")?.split('=').next()).collect();
    assert!(!flags.is_empty());
    for flag in flags {
        assert!(cli.contains(&format!("    {}: ", flag.replace('-', "_"))), "{flag}");
    }
}

/// Requests as the operator's code names them: `Attempt::new("verb", "resource", …)`.
fn requests(folder: &Path, found: &mut Vec<(String, String)>) {
    for entry in std::fs::read_dir(folder).expect("the sources are there") {
        let path = entry.expect("the folder can be read").path();
        if path.is_dir() {
            requests(&path, found);
            continue;
        }
        let text = std::fs::read_to_string(&path).expect("a source is text");
        for call in text.split("Attempt::new(\"").skip(1) {
            let mut words = call.split('"').step_by(2);
            if let (Some(verb), Some(resource)) = (words.next(), words.next()) {
                found.push((verb.to_owned(), resource.to_owned()));
            }
        }
    }
}

/// What the code asks for, as (verb, resource).
fn used_rights() -> BTreeSet<(String, String)> {
    let mut used = Vec::new();
    requests(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/controller"), &mut used);
    assert!(used.len() > 8, "{used:?}");
    // Lists go through one function and watches through the runtime; discovery is everybody's right.
    used.retain(|(verb, _)| verb != "list");
    for (verb, resources) in [
        ("list", ["migrations", "cohorts", "approvals", "jobs", "pods", "events"].as_slice()),
        ("watch", &["migrations", "cohorts", "approvals", "jobs"]),
        ("update", &["migrations/status", "cohorts/status"]),
        // The status by a patch: of an object that is too malformed to be written whole.
        ("patch", &["migrations", "cohorts", "migrations/status", "cohorts/status", "configmaps"]),
        // Within kube's recorder, where an event comes again.
        ("patch", &["events"]),
    ] {
        used.extend(resources.iter().map(|resource| (verb.to_owned(), (*resource).to_owned())));
    }
    used.into_iter().map(|(verb, resource)| (verb, resource.split('.').next().unwrap_or_default().to_owned())).collect()
}

fn operators_role(objects: &[Value]) -> &Value {
    let roles = of_kind(objects, "ClusterRole");
    roles.into_iter().find(|role| role["metadata"]["name"] == "godwit").expect("the operator has a role")
}

#[test]
fn every_right_that_the_operator_uses_is_granted() {
    let Some(objects) = rendered(&[]) else { return };
    let role = operators_role(&objects);
    for (verb, resource) in used_rights() {
        assert!(grants(role, &resource).contains(&verb), "{verb} {resource}");
    }
}

#[test]
fn no_right_is_granted_that_the_operator_does_not_use() {
    // What condition checks may read is for whoever installs the chart to say.
    let Some(objects) = rendered(&["--set", "rbac.conditionReaders=null"]) else { return };
    let used = used_rights();
    for rule in operators_role(&objects)["rules"].as_array().unwrap() {
        let words = |field: &str| -> Vec<String> {
            rule[field].as_array().unwrap().iter().map(|word| word.as_str().unwrap().to_owned()).collect()
        };
        for resource in words("resources") {
            // Asked of whoever creates objects with an owner that blocks; the operator itself never calls it.
            if resource.ends_with("/finalizers") {
                continue;
            }
            for verb in words("verbs") {
                assert!(used.contains(&(verb.clone(), resource.clone())), "{verb} {resource} is granted and not used");
            }
        }
    }
}
