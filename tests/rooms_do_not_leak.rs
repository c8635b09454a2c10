//! The rooms name only their neighbours: the arrows of `src/lib.rs`, kept by parsing the sources.
//! Grouped, renamed, relative and inline paths count too; the second case proves that a leak is found.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::fs;
use std::path::{Path, PathBuf};

use syn::visit::{self, Visit};

const WALLS: &[(&str, &[&str])] = &[
    (
        "src/contract",
        &[
            "kube",
            "k8s_openapi",
            "tokio",
            "std::env",
            "std::time",
            "crate::api",
            "crate::plan",
            "crate::build",
            "crate::controller",
            "crate::worker",
            "crate::cli",
            "crate::server",
            "crate::metrics",
            "crate::telemetry",
        ],
    ),
    (
        "src/api",
        &[
            "kube::Client",
            "kube::Api",
            "kube::api",
            "kube::client",
            "kube::runtime",
            "tokio",
            "std::env",
            "std::time::SystemTime",
            "crate::plan",
            "crate::build",
            "crate::controller",
            "crate::worker",
            "crate::cli",
            "crate::contract",
            "crate::server",
            "crate::metrics",
            "crate::telemetry",
        ],
    ),
    (
        "src/plan",
        &[
            "kube",
            "k8s_openapi::api",
            "tokio",
            "std::env",
            "std::fs",
            "std::net",
            "std::time::SystemTime",
            "std::time::Instant",
            "crate::build",
            "crate::controller",
            "crate::worker",
            "crate::cli",
            "crate::server",
            "crate::metrics",
            "crate::telemetry",
        ],
    ),
    (
        "src/build",
        &[
            "kube",
            "tokio",
            "std::env",
            "std::fs",
            "std::net",
            "std::time::SystemTime",
            "std::time::Instant",
            "crate::controller",
            "crate::worker",
            "crate::cli",
            "crate::server",
            "crate::metrics",
            "crate::telemetry",
        ],
    ),
    ("src/controller", &["crate::worker", "crate::cli", "crate::server", "std::env", "tokio_postgres", "object_store"]),
    (
        "src/worker",
        &[
            "kube",
            "k8s_openapi",
            "std::env",
            "crate::api",
            "crate::plan",
            "crate::build",
            "crate::controller",
            "crate::cli",
            "crate::server",
            "crate::metrics",
            "crate::telemetry",
        ],
    ),
    (
        "src/server.rs",
        &["kube", "k8s_openapi", "crate::plan", "crate::build", "crate::controller", "crate::worker", "crate::api"],
    ),
    ("src/metrics", &["kube", "crate::build", "crate::controller", "crate::worker", "crate::cli", "crate::server"]),
    (
        "src/telemetry.rs",
        &["kube", "k8s_openapi", "crate::api", "crate::plan", "crate::build", "crate::controller", "crate::worker"],
    ),
];

/// Every path that a source text names, absolute within the crate.
struct Paths {
    /// Module path of the file, such as `crate::plan::migration`.
    module: Vec<String>,
    found: Vec<String>,
}

impl Paths {
    fn of(text: &str, module: &[&str]) -> Vec<String> {
        let file = syn::parse_file(text).expect("a source file parses");
        let mut paths = Paths { module: module.iter().map(|&part| part.to_owned()).collect(), found: Vec::new() };
        paths.visit_file(&file);
        paths.found
    }

    /// `super` and `self` resolved; a leading `::` or `r#` taken off.
    fn add(&mut self, parts: &[String]) {
        let mut absolute: Vec<String> = Vec::new();
        for (index, part) in parts.iter().enumerate() {
            match part.as_str() {
                "self" if index == 0 => absolute.clone_from(&self.module),
                "super" => {
                    if index == 0 {
                        absolute.clone_from(&self.module);
                    }
                    absolute.pop();
                }
                other => absolute.push(other.trim_start_matches("r#").to_owned()),
            }
        }
        self.found.push(absolute.join("::"));
    }

    fn flatten(&mut self, prefix: &[String], tree: &syn::UseTree) {
        let with = |name: &syn::Ident| {
            let mut parts = prefix.to_vec();
            parts.push(name.to_string());
            parts
        };
        match tree {
            syn::UseTree::Path(path) => {
                let prefix = with(&path.ident);
                self.flatten(&prefix, &path.tree);
            }
            syn::UseTree::Name(name) if name.ident == "self" => self.add(prefix),
            syn::UseTree::Name(name) => {
                let parts = with(&name.ident);
                self.add(&parts);
            }
            syn::UseTree::Rename(rename) => {
                let parts = with(&rename.ident);
                self.add(&parts);
            }
            syn::UseTree::Glob(_) => self.add(prefix),
            syn::UseTree::Group(group) => {
                for item in &group.items {
                    self.flatten(prefix, item);
                }
            }
        }
    }
}

impl<'ast> Visit<'ast> for Paths {
    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.flatten(&[], &item.tree);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let parts: Vec<_> = path.segments.iter().map(|part| part.ident.to_string()).collect();
        // A single word is a local name or was brought in by a `use`, which is looked at itself.
        if parts.len() > 1 {
            self.add(&parts);
        }
        visit::visit_path(self, path);
    }

    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        self.module.push(module.ident.to_string());
        visit::visit_item_mod(self, module);
        self.module.pop();
    }

    fn visit_macro(&mut self, item: &'ast syn::Macro) {
        // What stands in a macro call is tokens: every run of `a::b::c` in it counts as a path.
        let mut run: Vec<String> = Vec::new();
        collect_runs(item.tokens.clone(), &mut run, self);
        visit::visit_macro(self, item);
    }
}

fn collect_runs(tokens: impl IntoIterator<Item = impl ToString>, run: &mut Vec<String>, paths: &mut Paths) {
    // Token texts are stable enough for names and colons; groups are flattened by their own text.
    let text: Vec<String> = tokens.into_iter().map(|token| token.to_string()).collect();
    for word in text.join(" ").replace("::", " :: ").split_whitespace() {
        let name = word.trim_matches(|c: char| !c.is_alphanumeric() && c != '_' && c != ':');
        if name == "::" || name == ":" {
            run.push("::".into());
        } else if run.last().is_some_and(|last| last == "::") {
            run.push(name.into());
        } else {
            flush(run, paths);
            run.push(name.into());
        }
    }
    flush(run, paths);
}

fn flush(run: &mut Vec<String>, paths: &mut Paths) {
    let parts: Vec<String> = run.drain(..).filter(|part| part != "::" && !part.is_empty()).collect();
    if parts.len() > 1 {
        paths.add(&parts);
    }
}

fn is_below(path: &str, wall: &str) -> bool {
    path == wall || path.strip_prefix(wall).is_some_and(|rest| rest.starts_with("::"))
}

fn leaks(text: &str, module: &[&str], walls: &[&str]) -> Vec<String> {
    let mut found: Vec<_> =
        // A room may name itself: `super::*` of its own tests resolves to it.
        Paths::of(text, module)
            .into_iter()
            .filter(|path| !is_below(path, &module.join("::")))
            .filter(|path| walls.iter().any(|wall| is_below(path, wall)))
            .collect();
    found.dedup();
    found
}

fn sources(path: &Path) -> Vec<PathBuf> {
    if path.is_file() {
        return vec![path.to_owned()];
    }
    let entries = fs::read_dir(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir() || path.extension().is_some_and(|end| end == "rs"))
        .flat_map(|path| sources(&path))
        .collect()
}

/// `src/plan/migration.rs` is `crate::plan::migration`.
fn module_of(file: &Path, root: &Path) -> Vec<String> {
    let inside = file.strip_prefix(root.join("src")).unwrap().with_extension("");
    let parts = inside.iter().map(|part| part.to_str().unwrap().to_owned());
    let mut module: Vec<_> = std::iter::once("crate".to_owned()).chain(parts).collect();
    if module.last().is_some_and(|last| last == "mod" || last == "lib") {
        module.pop();
    }
    module
}

#[test]
fn every_room_names_only_its_neighbours() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    let mut files = 0;
    for (room, walls) in WALLS {
        for file in sources(&root.join(room)) {
            files += 1;
            let module = module_of(&file, root);
            let module: Vec<_> = module.iter().map(String::as_str).collect();
            let text = fs::read_to_string(&file).unwrap();
            for path in leaks(&text, &module, walls) {
                found.push(format!("{} names {path}", file.display()));
            }
        }
    }
    assert!(files > 20, "only {files} files were looked at");
    assert!(found.is_empty(), "leaks:\n{}", found.join("\n"));
}

#[test]
fn a_grouped_or_renamed_import_is_still_a_leak() {
    let walls = &["kube", "crate::worker", "std::env"];
    let module = &["crate", "plan", "migration"];
    for (text, count) in [
        ("use kube::{Api as A, Client};", 2),
        ("use crate::{api, worker as w};", 1),
        ("use super::super::worker;", 1),
        ("mod inner { use super::super::super::worker::Error; }", 1),
        ("fn f() -> kube::Result<()> { Ok(()) }", 1),
        ("fn f() { let _ = std::env::var(\"HOME\"); }", 1),
        ("fn f() { println!(\"{:?}\", kube::Config::infer()); }", 1),
        ("use std::{collections::BTreeMap, env};", 1),
        ("use kube::*;", 1),
        ("use crate::api::names; fn kube_like() {}", 0),
        ("use kubert::Runtime;", 0),
    ] {
        assert_eq!(leaks(text, module, walls).len(), count, "{text}");
    }
}
