//! Every manifest that a reader may copy is accepted by a real server: `examples/`, the README and the guides.

use std::path::{Path, PathBuf};

use serde::Deserialize as _;
use serde_json::Value;

use crate::server::{Server, root};

fn files_below(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files_below(&path, found);
        } else {
            found.push(path);
        }
    }
}

fn has_ending(path: &Path, endings: &[&str]) -> bool {
    path.extension().is_some_and(|ending| endings.iter().any(|one| ending == *one))
}

/// The blocks of a page that are marked as YAML.
fn blocks(page: &str) -> Vec<String> {
    let parts = page.split("```yaml\n").skip(1);
    parts.map(|part| part.split("\n```").next().unwrap().to_owned()).collect()
}

fn documents(text: &str) -> Vec<Value> {
    serde_yaml::Deserializer::from_str(text)
        .map(|document| Value::deserialize(document).unwrap_or_else(|error| panic!("no YAML: {error}\n{text}")))
        .filter(|document| !document.is_null())
        .collect()
}

/// Where each manifest comes from, and the manifest.
fn manifests() -> Vec<(String, Value)> {
    let mut files = vec![root().join("README.md")];
    files_below(&root().join("examples"), &mut files);
    files_below(&root().join("docs"), &mut files);
    files.sort();
    let mut all = Vec::new();
    for file in files {
        let name = file.strip_prefix(root()).unwrap().display().to_string();
        let texts = match std::fs::read_to_string(&file) {
            Ok(text) if has_ending(&file, &["yaml", "yml"]) => vec![text],
            Ok(text) if has_ending(&file, &["md"]) => blocks(&text),
            _ => continue,
        };
        all.extend(texts.iter().flat_map(|text| documents(text)).map(|document| (name.clone(), document)));
    }
    all
}

#[test]
fn every_manifest_that_a_reader_may_copy_is_accepted_as_it_is() {
    let server = Server::shared();
    let manifests = manifests();
    let kinds = |kind: &str| manifests.iter().filter(|(_, one)| one["kind"] == kind).count();
    for kind in ["Migration", "Cohort", "Approval"] {
        assert!(kinds(kind) > 0, "no manifest of a {kind} was found");
    }
    for (_, manifest) in &manifests {
        if let Some(namespace) = manifest["metadata"]["namespace"].as_str() {
            server.namespace(namespace);
        }
    }
    let mut wrong = Vec::new();
    for (file, manifest) in &manifests {
        let args = ["apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", "-"];
        if let Err(refusal) = server.kubectl_reading(&manifest.to_string(), &args) {
            wrong.push(format!("{file}, {} {}: {refusal}", manifest["kind"], manifest["metadata"]["name"]));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
