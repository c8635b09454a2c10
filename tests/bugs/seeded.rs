//! What a seeded bug is, which ones are wanted, and the page that says what found them.
//! Used by `main.rs`. Must not run anything.

use std::fmt::Write as _;

use serde::Deserialize;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SeededBug {
    /// What is wrong, in words.
    pub name: String,
    /// Which part of the hazards it belongs to.
    pub area: String,
    pub edits: Vec<Edit>,
    pub found_by: Finder,
}

/// One change of the sources.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Edit {
    pub file: String,
    pub find: String,
    pub replace: String,
}

/// What must fail with the bug in it.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub enum Finder {
    /// A file of `tests/bugs/plans`, for the gauntlet.
    Plan { plan: String },
    /// A test target (`lib` for unit tests) and what its tests are filtered by.
    Test { test: String, filter: String },
}

impl std::fmt::Display for Finder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Plan { plan } => write!(f, "gauntlet plan `{plan}`"),
            Self::Test { test, filter } => write!(f, "tests `{test}`, `{filter}`"),
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the one place that reads the environment here")]
fn wanted() -> Option<String> {
    std::env::var("GODWIT_BUGS").ok().filter(|text| !text.is_empty())
}

pub fn all_were_chosen() -> bool {
    wanted().is_none()
}

pub fn chosen(bugs: Vec<SeededBug>) -> Vec<SeededBug> {
    let Some(wanted) = wanted() else { return bugs };
    bugs.into_iter().filter(|bug| wanted.split('|').any(|part| bug.name.contains(part))).collect()
}

/// What found each bug, or that nothing did.
pub fn page(rows: &[(SeededBug, Result<String, String>)]) -> String {
    let found = rows.iter().filter(|(_, found)| found.is_ok()).count();
    let mut page = format!(
        "# Seeded bugs\n\nWritten by `make bugs`: each bug is put into a copy of the sources, and what is named beside it must fail.\n\
         {found} of {} were found.\n\n| area | bug | found by | what it said |\n| --- | --- | --- | --- |\n",
        rows.len()
    );
    for (bug, found) in rows {
        let said = match found {
            Ok(said) => said.clone(),
            Err(why) => format!("**not found**: {why}"),
        };
        let said = said.replace('|', "\\|");
        writeln!(page, "| {} | {} | {} | {said} |", bug.area, bug.name, bug.found_by).unwrap();
    }
    page
}
