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

/// Words in quotes that are made of two or more words, as codes are.
fn codes_in(text: &str) -> impl Iterator<Item = &str> {
    let is_code = |word: &&str| {
        let capitals = word.chars().filter(char::is_ascii_uppercase).count();
        word.chars().all(|letter| letter.is_ascii_alphabetic())
            && word.starts_with(|first: char| first.is_ascii_uppercase())
            && word.ends_with(|last: char| last.is_ascii_lowercase())
            && (2..word.len()).contains(&capitals)
    };
    text.split('"').filter(is_code)
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else {
            found.push(path);
        }
    }
}

#[test]
fn every_code_that_a_worker_reports_is_explained() {
    let page = std::fs::read_to_string(root().join("docs/findings.md")).unwrap();
    let mut files = Vec::new();
    for room in ["src/worker", "src/contract"] {
        sources(&root().join(room), &mut files);
    }
    let mut known = 0;
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let (code, _tests) = text.split_once("#[cfg(test)]").unwrap_or((&text, ""));
        for word in codes_in(code) {
            known += 1;
            assert!(
                page.contains(&format!("`{word}`")),
                "docs/findings.md does not explain {word} of {}",
                file.display()
            );
        }
    }
    assert!(known > 100, "only {known} codes were found: the test looks for the wrong thing");
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
