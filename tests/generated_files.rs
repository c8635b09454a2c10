//! What is generated from the code and committed is what the code says, byte for byte.
//! `make generate` writes the definitions, `GODWIT_BLESS=1 cargo test --test generated_files` the reference pages.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn names_in(folder: &Path) -> Vec<String> {
    let mut found: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    found.sort();
    found
}

#[test]
fn committed_definitions_are_what_the_code_generates() {
    let folder = root().join("crds");
    let wanted = godwit::api::crd::files().unwrap();
    let mut names: Vec<_> = wanted.iter().map(|(name, _)| name.clone()).collect();
    names.sort();
    assert_eq!(names_in(&folder), names, "files in crds/");
    for (name, text) in wanted {
        let committed = std::fs::read_to_string(folder.join(&name)).unwrap();
        assert!(committed == text, "crds/{name} is stale: run `make generate`");
    }
}

#[test]
fn committed_reference_pages_are_what_the_code_generates() {
    let folder = root().join("docs/reference");
    let bless = std::env::vars().any(|(key, value)| key == "GODWIT_BLESS" && value == "1");
    let stale: Vec<PathBuf> = godwit::reference::pages()
        .into_iter()
        .map(|(name, text)| (folder.join(name), text))
        .filter(|(path, text)| {
            if bless {
                std::fs::create_dir_all(&folder).unwrap();
                std::fs::write(path, text).unwrap();
            }
            std::fs::read_to_string(path).ok().as_ref() != Some(text)
        })
        .map(|(path, _)| path)
        .collect();
    assert!(stale.is_empty(), "{stale:?} are stale: run `GODWIT_BLESS=1 cargo test --test generated_files`");
}
