//! What the chart promises, as far as plain files show it: the same definitions as in code, and no right to read a Secret.
//! Run by `cargo test`. Rendering is tested where helm is: in the tiers that have a cluster.

use std::path::{Path, PathBuf};

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
