//! A copy of the tracked files, where bugs are seeded and taken out again.
//! Used by `main.rs`. Must leave the tree it was copied from as it is, and build into a folder of its own.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::search::{self, Search, Undisturbed};
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

    /// Builds the tree with the bug in it and begins to look for it.
    pub fn seed(&self, bug: &SeededBug, undisturbed: &Undisturbed) -> Search {
        for edit in &bug.edits {
            let path = self.sources.join(&edit.file);
            let text = std::fs::read_to_string(&path).unwrap();
            assert_eq!(text.matches(&edit.find).count(), 1, "{:?} no longer applies to {}", bug.name, edit.file);
            std::fs::write(&path, text.replace(&edit.find, &edit.replace)).unwrap();
        }
        let search = self.look_for(&bug.found_by, undisturbed).unwrap_or_else(|why| Search::Over(Err(why)));
        for edit in &bug.edits {
            std::fs::copy(root().join(&edit.file), self.sources.join(&edit.file)).unwrap();
        }
        search
    }

    fn look_for(&self, finder: &Finder, undisturbed: &Undisturbed) -> Result<Search, String> {
        match finder {
            Finder::Plan { plan } => {
                self.cargo(&["build", "--locked", "--bin", "godwit"])?;
                Ok(undisturbed.compare(&self.build.join("debug/godwit"), plan))
            }
            Finder::Test { test, filter } => {
                let target: Vec<&str> = if test == "lib" { vec!["--lib"] } else { vec!["--test", test] };
                self.cargo(&[&["test", "--locked", "--no-run"], target.as_slice()].concat())?;
                let output =
                    self.command(&[&["test", "--locked"], target.as_slice(), &[filter]].concat()).output().unwrap();
                Ok(Search::Over(search::verdict(&output)))
            }
        }
    }

    fn cargo(&self, arguments: &[&str]) -> Result<(), String> {
        let built = self.command(arguments).output().unwrap();
        if built.status.success() {
            return Ok(());
        }
        Err(format!("it does not compile: {}", search::last_lines(&String::from_utf8_lossy(&built.stderr), 12)))
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("cargo");
        command.args(arguments).current_dir(&self.sources);
        command.env("CARGO_TARGET_DIR", &self.build).env("RUST_BACKTRACE", "0");
        command
    }
}
