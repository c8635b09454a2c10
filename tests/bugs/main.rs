//! Whether the tests bite: bugs that operators of this kind have had, seeded one at a time, each to be found.
//! `cargo test --test bugs` only shows that every bug still applies to the sources; `make bugs` seeds them, in a copy of the
//! tree below `target/bugs`, and writes `docs/seeded-bugs.md`. Must never change a file of the tree it was started in.

#![allow(clippy::unwrap_used, reason = "a test ends where an expectation is broken")]

mod search;
mod seeded;
mod tree;

use std::collections::VecDeque;

use search::{Search, Undisturbed};
use seeded::{Finder, SeededBug};
use tree::Tree;

/// A search waits more than it works: so many go on while the next bug is built.
const AT_A_TIME: usize = 4;

const LIST: &str = include_str!("bugs.yaml");

fn bugs() -> Vec<SeededBug> {
    serde_yaml::from_str(LIST).expect("bugs.yaml has the shape that seeded.rs describes")
}

#[test]
fn every_seeded_bug_changes_the_sources_in_exactly_one_place() {
    for bug in bugs() {
        assert!(!bug.edits.is_empty(), "{:?} changes nothing", bug.name);
        for edit in &bug.edits {
            let path = tree::root().join(&edit.file);
            let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", edit.file));
            let places = text.matches(&edit.find).count();
            assert_eq!(places, 1, "{:?}: {:?} occurs {places} times in {}", bug.name, edit.find, edit.file);
            assert_ne!(edit.find, edit.replace, "{:?} changes nothing", bug.name);
        }
        if let Finder::Plan { plan } = &bug.found_by {
            assert!(tree::plan(plan).is_file(), "{:?}: there is no plan {plan}", bug.name);
        }
    }
}

/// Minutes for each bug: the operator is built with it. `GODWIT_BUGS` chooses those whose names contain it, or one of its parts between `|`.
#[test]
#[ignore = "builds the operator once for each bug; `make bugs` runs it"]
fn every_seeded_bug_is_found() {
    let tree = Tree::copy();
    let undisturbed = Undisturbed::play();
    let mut searches: VecDeque<(SeededBug, Search)> = VecDeque::new();
    let mut rows = Vec::new();
    let mut end = |(bug, search): (SeededBug, Search)| {
        let found = search.end();
        eprintln!("{}: {}", if found.is_ok() { "found" } else { "NOT FOUND" }, bug.name);
        rows.push((bug, found));
    };
    for bug in seeded::chosen(bugs()) {
        eprintln!("seeding: {}", bug.name);
        let search = tree.seed(&bug, &undisturbed);
        searches.push_back((bug, search));
        if searches.len() > AT_A_TIME {
            searches.pop_front().into_iter().for_each(&mut end);
        }
    }
    searches.into_iter().for_each(end);
    let page = seeded::page(&rows);
    if seeded::all_were_chosen() {
        std::fs::write(tree::root().join("docs/seeded-bugs.md"), &page).unwrap();
    }
    eprintln!("{page}");
    let missed: Vec<&str> = rows.iter().filter(|(_, found)| found.is_err()).map(|(bug, _)| bug.name.as_str()).collect();
    assert!(missed.is_empty(), "not found: {missed:?}");
}
