//! Looking for a seeded bug: by the gauntlet, beside others, or by a test that has ended; and what a failed run said.
//! Used by `main.rs` and `tree.rs`. Must not take a search that broke down, or ran nothing, for one that found something.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::thread::JoinHandle;

use crate::tree::{plan, root};

/// Whether a bug is found, with the first words of what found it: known, or to be waited for.
pub enum Search {
    Over(Result<String, String>),
    GoingOn(JoinHandle<Result<String, String>>),
}

impl Search {
    pub fn end(self) -> Result<String, String> {
        match self {
            Self::Over(found) => found,
            Self::GoingOn(thread) => thread.join().expect("a search comes to its end"),
        }
    }
}

/// What the operator without a bug does when nothing disturbs it; all others are compared with it.
pub struct Undisturbed {
    folder: PathBuf,
}

impl Undisturbed {
    pub fn play() -> Self {
        let known = Self { folder: root().join("target/bugs/searches") };
        let _ = std::fs::remove_dir_all(&known.folder);
        let folder = known.folder.join("undisturbed");
        std::fs::create_dir_all(&folder).unwrap();
        let output = gauntlet(&folder, &known.file(), "undisturbed.json").output().unwrap();
        assert!(output.status.success(), "without a bug nothing is found: {}", last_lines(&text_of(&output), 12));
        known
    }

    fn file(&self) -> PathBuf {
        self.folder.join("undisturbed.json")
    }

    /// Begins to play a plan with another operator, of which a copy is taken.
    pub fn compare(&self, operator: &Path, plan: &str) -> Search {
        let number = std::fs::read_dir(&self.folder).unwrap().count();
        let folder = self.folder.join(number.to_string());
        std::fs::create_dir_all(&folder).unwrap();
        let (operator_copy, known) = (folder.join("godwit"), folder.join("undisturbed.json"));
        std::fs::copy(operator, &operator_copy).unwrap();
        std::fs::copy(self.file(), &known).unwrap();
        let mut gauntlet = gauntlet(&folder, &known, plan);
        gauntlet.env("GODWIT_GAUNTLET_OPERATOR", operator_copy);
        Search::GoingOn(std::thread::spawn(move || verdict(&gauntlet.output().unwrap())))
    }
}

fn gauntlet(folder: &Path, undisturbed: &Path, plan_file: &str) -> Command {
    let mut gauntlet = Command::new("cargo");
    gauntlet.args(["test", "--locked", "--test", "gauntlet", "whatever_is_disturbed", "--", "--nocapture"]);
    gauntlet.current_dir(root());
    gauntlet.env("GODWIT_GAUNTLET_FOLDER", folder).env("GODWIT_GAUNTLET_UNDISTURBED", undisturbed);
    gauntlet.env("GODWIT_GAUNTLET_PLANS", plan(plan_file)).env("RUST_BACKTRACE", "0");
    gauntlet
}

fn text_of(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// A failure finds the bug; a run of no test finds nothing.
pub fn verdict(output: &Output) -> Result<String, String> {
    let text = text_of(output);
    if output.status.success() {
        return Err(if text.contains(" 0 passed") { "no test ran".to_owned() } else { "everything passed".to_owned() });
    }
    if !text.contains("test result: FAILED") {
        return Err(format!("it broke down: {}", last_lines(&text, 12)));
    }
    Ok(first_words(&text))
}

/// What a failed run said first: a problem that the gauntlet names, else the first panic.
fn first_words(text: &str) -> String {
    let mut lines = text.lines();
    let rule = lines.clone().find_map(|line| line.strip_prefix("  - "));
    let panic = || lines.by_ref().skip_while(|line| !line.contains("panicked at")).nth(1);
    let said = rule.or_else(panic).unwrap_or("it failed");
    said.trim().chars().take(160).collect()
}

pub fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}
