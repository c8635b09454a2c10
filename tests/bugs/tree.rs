//! A copy of the tracked files, where bugs are seeded and taken out again.
//! Used by `main.rs`. Must leave the tree it was copied from as it is, and build into a folder of its own.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::seeded::{Finder, SeededBug};

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The path of a plan that finds a bug.
pub fn plan(name: &str) -> PathBuf {
    root().join("tests/bugs/plans").join(name)
}

pub struct Tree {
    sources: PathBuf,
    build: PathBuf,
}

impl Tree {
    /// The files that git knows, as they are on disk.
    pub fn copy() -> Self {
        let folder = root().join("target/bugs");
        let (sources, build) = (folder.join("tree"), folder.join("build"));
        let listed = Command::new("git").args(["ls-files", "-z"]).current_dir(root()).output().unwrap();
        assert!(listed.status.success(), "the tree is copied by git's list of files");
        let _ = std::fs::remove_dir_all(&sources);
        for name in String::from_utf8(listed.stdout).unwrap().split_terminator('\0') {
            let (from, to) = (root().join(name), sources.join(name));
            std::fs::create_dir_all(to.parent().unwrap()).unwrap();
            // A file that was deleted and not yet committed is not there.
            if from.is_file() {
                std::fs::copy(from, to).unwrap();
            }
        }
        Self { sources, build }
    }

    /// Whether the bug is found, with the first words of what found it.
    pub fn seed(&self, bug: &SeededBug) -> Result<String, String> {
        for edit in &bug.edits {
            let path = self.sources.join(&edit.file);
            let text = std::fs::read_to_string(&path).unwrap();
            assert_eq!(text.matches(&edit.find).count(), 1, "{:?} no longer applies to {}", bug.name, edit.file);
            std::fs::write(&path, text.replace(&edit.find, &edit.replace)).unwrap();
        }
        let found = self.look_for(&bug.found_by);
        for edit in &bug.edits {
            std::fs::copy(root().join(&edit.file), self.sources.join(&edit.file)).unwrap();
        }
        found
    }

    fn look_for(&self, finder: &Finder) -> Result<String, String> {
        let output = match finder {
            Finder::Plan { plan } => {
                self.cargo(&["build", "--locked", "--bin", "godwit"])?;
                let mut gauntlet = Command::new("cargo");
                gauntlet.args(["test", "--locked", "--test", "gauntlet", "whatever_is_disturbed", "--", "--nocapture"]);
                gauntlet.current_dir(root());
                gauntlet.env("GODWIT_GAUNTLET_OPERATOR", self.build.join("debug/godwit"));
                gauntlet.env("GODWIT_GAUNTLET_PLANS", crate::tree::plan(plan));
                gauntlet.output().unwrap()
            }
            Finder::Test { test, filter } => {
                let target: Vec<&str> = if test == "lib" { vec!["--lib"] } else { vec!["--test", test] };
                self.cargo(&[&["test", "--locked", "--no-run"], target.as_slice()].concat())?;
                self.command(&[&["test", "--locked"], target.as_slice(), &[filter]].concat()).output().unwrap()
            }
        };
        verdict(&output)
    }

    fn cargo(&self, arguments: &[&str]) -> Result<(), String> {
        let built = self.command(arguments).output().unwrap();
        if built.status.success() {
            return Ok(());
        }
        Err(format!("it does not compile: {}", last_lines(&String::from_utf8_lossy(&built.stderr), 12)))
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("cargo");
        command.args(arguments).current_dir(&self.sources).env("CARGO_TARGET_DIR", &self.build);
        command
    }
}

/// A failure finds the bug; a run of no test finds nothing.
fn verdict(output: &Output) -> Result<String, String> {
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if output.status.success() {
        return Err(if text.contains(" 0 passed") { "no test ran".to_owned() } else { "everything passed".to_owned() });
    }
    if !text.contains("test result: FAILED") {
        return Err(format!("it broke down: {}", last_lines(&text, 12)));
    }
    Ok(first_words(&text))
}

/// What a failed run said first: a violated rule, else the first panic.
fn first_words(text: &str) -> String {
    let mut lines = text.lines();
    let rule = lines.clone().find(|line| line.trim_start().starts_with("TR") && line.contains(": "));
    let panic = || lines.by_ref().skip_while(|line| !line.contains("panicked at")).nth(1);
    let said = rule.or_else(panic).unwrap_or("it failed");
    said.trim().chars().take(160).collect()
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}
