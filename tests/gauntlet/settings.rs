//! What a run of the gauntlet can be told from outside. The only reader of the environment in this folder.
//!
//! | variable | meaning |
//! | --- | --- |
//! | `GODWIT_GAUNTLET` | `full`: the whole sweep instead of the sample |
//! | `GODWIT_GAUNTLET_OPERATOR` | path of the operator under test; default: the one just built |
//! | `GODWIT_GAUNTLET_PLANS` | a plan file, a folder of them, or how many plans are drawn (sample: 64; sweep: all) |
//! | `GODWIT_GAUNTLET_SEED` | seed of what is drawn; default 1 |
//! | `GODWIT_GAUNTLET_RESULTS` | the sweep's JSON-lines file; plans that passed in it are not run again |
//! | `GODWIT_GAUNTLET_UNDISTURBED` | file with what undisturbed runs did; read when it is there, so that an operator under test is compared with another one's, else written |
//! | `GODWIT_GAUNTLET_FOLDER` | where the run writes, when it is not the only one of this build |
//! | `GODWIT_GAUNTLET_JOBS` | runs at the same time; default 8 |

use std::path::PathBuf;

#[expect(clippy::disallowed_methods, reason = "the one place that reads the environment here")]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn number(name: &str, default: u64) -> u64 {
    variable(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")))
}

pub fn operator() -> PathBuf {
    variable("GODWIT_GAUNTLET_OPERATOR").unwrap_or_else(|| env!("CARGO_BIN_EXE_godwit").to_owned()).into()
}

pub fn seed() -> u64 {
    number("GODWIT_GAUNTLET_SEED", 1)
}

pub fn jobs() -> usize {
    usize::try_from(number("GODWIT_GAUNTLET_JOBS", 8)).unwrap_or(1).max(1)
}

pub fn is_full() -> bool {
    variable("GODWIT_GAUNTLET").as_deref() == Some("full")
}

/// Which plans are wanted.
pub enum Wanted {
    Files(PathBuf),
    Count(usize),
    Default,
}

pub fn wanted() -> Wanted {
    match variable("GODWIT_GAUNTLET_PLANS") {
        None => Wanted::Default,
        Some(text) => text.parse().map_or_else(|_| Wanted::Files(text.into()), Wanted::Count),
    }
}

/// Where everything of this run is written; kept afterwards.
pub fn folder() -> PathBuf {
    variable("GODWIT_GAUNTLET_FOLDER")
        .map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("gauntlet"), PathBuf::from)
}

/// The file with what undisturbed runs did, and whether it may be read.
pub fn undisturbed() -> (PathBuf, bool) {
    let named = variable("GODWIT_GAUNTLET_UNDISTURBED");
    let read = named.is_some();
    (named.map_or_else(|| folder().join("undisturbed.json"), PathBuf::from), read)
}

pub fn results() -> PathBuf {
    variable("GODWIT_GAUNTLET_RESULTS").map_or_else(|| folder().join("results.jsonl"), PathBuf::from)
}
