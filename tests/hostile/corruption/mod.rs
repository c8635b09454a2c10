//! Single corruptions of the target, each injected alone: Validate fails, and names table and key in the evidence file and nowhere else.
//!
//! Corruption number `n` is a function of `n` alone: class `n % classes`, row and value by a generator seeded with `n`.
//! - `GODWIT_HOSTILE_CORRUPTIONS=10000 cargo test --test hostile corruption` makes so many of them (default below).
//! - `GODWIT_HOSTILE_CORRUPTION=4711 cargo test …` makes that one alone.

mod blind;
mod cells;
mod classes;
mod lab;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use godwit::contract::exit;

use classes::{Class, classes};
use lab::{Lab, Line};

/// What `make test` makes.
const DEFAULT: u64 = 1_500;
/// Two servers and two lanes keep two cores busy.
const LANES: usize = 2;
/// Every so many corruptions the worker runs as the program, and its output is searched for keys.
const AS_PROGRAM: u64 = 50;
/// Every so many corruptions the other cohort, and the repaired one, must pass.
const CONTROL: u64 = 50;

/// One corruption of the target.
pub struct Case {
    pub breaks: String,
    /// Beside the rows of `lines`, which are put back from the pristine copy.
    pub repairs: String,
    /// The findings' codes, each of which must be there, and no other.
    pub codes: BTreeSet<&'static str>,
    /// The tables that the findings must name, and no other.
    pub tables: BTreeSet<&'static str>,
    /// What the evidence must name, and nothing else.
    pub lines: BTreeSet<Line>,
}

/// A small generator: a test's numbers must not change with a library's version.
pub struct Random(u64);

impl Random {
    pub fn of(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x6a09_e667_f3bc_c908)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap()
    }

    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}

#[expect(clippy::disallowed_methods, reason = "how a failing corruption is replayed")]
fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap())
}

/// How often each group of classes was injected, and which checks saw it.
type Tally = BTreeMap<&'static str, (u64, BTreeSet<&'static str>)>;

#[test]
fn every_single_corruption_fails_validation_and_is_localised_to_its_key() {
    let only = number("GODWIT_HOSTILE_CORRUPTION");
    let count = number("GODWIT_HOSTILE_CORRUPTIONS").unwrap_or(DEFAULT);
    let numbers = only.map_or(0..count, |only| only..only + 1);
    let next = AtomicU64::new(numbers.start);
    let tally = Mutex::new(Tally::new());
    std::thread::scope(|scope| {
        for _ in 0..LANES {
            let (next, tally, end) = (&next, &tally, numbers.end);
            scope.spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(run_lane(next, end, tally));
            });
        }
    });
    let tally = tally.into_inner().unwrap();
    for (group, (count, codes)) in &tally {
        println!("{count:6} {group}: {codes:?}");
    }
    if only.is_none() {
        assert_eq!(tally.values().map(|(count, _)| count).sum::<u64>(), count);
        documented(&tally);
    }
}

async fn run_lane(next: &AtomicU64, end: u64, tally: &Mutex<Tally>) {
    let lab = Lab::new().await;
    let classes = classes();
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= end {
            return;
        }
        let class = &classes[usize::try_from(number % classes.len() as u64).unwrap()];
        let seen = inject(&lab, class, number).await;
        let mut tally = tally.lock().unwrap();
        let (count, codes) = tally.entry(class.group).or_default();
        *count += 1;
        codes.extend(seen);
    }
}

/// Breaks, validates, repairs; returns the codes that saw it.
async fn inject(lab: &Lab, class: &Class, number: u64) -> BTreeSet<&'static str> {
    let case = (class.make)(lab, &mut Random::of(number));
    let name = format!("corruption {number} ({}: {})", class.group, class.name);
    lab.stranger(&case.breaks, &name).await;
    let told = match class.of_one_cohort {
        _ if number.is_multiple_of(AS_PROGRAM) => lab.validate_as_program(),
        true => lab.judge().await,
        // What concerns the catalogue needs it read anew.
        false => lab.validate("one").await,
    };
    assert_eq!(told.code, exit::DATA_DIFFERS, "{name}: {}\n{:?}", case.breaks, told.report);
    let codes: BTreeSet<&str> = told.report.findings.iter().map(|finding| finding.code.as_str()).collect();
    assert_eq!(codes, case.codes, "{name}: {}\n{:?}", case.breaks, told.report.findings);
    let tables: BTreeSet<&str> = told.report.findings.iter().map(|finding| finding.object.as_str()).collect();
    assert_eq!(tables, case.tables, "{name}: {:?}", told.report.findings);
    assert_eq!(told.lines, case.lines, "{name}: {}", case.breaks);
    for (_, key) in &case.lines {
        for part in key.iter().filter(|part| part.len() > 6) {
            assert!(!told.output.contains(part), "{name}: a key in the report or the output: {}", told.output);
        }
    }
    // Another cohort has nothing to do with one cohort's rows.
    if number.is_multiple_of(CONTROL) && class.of_one_cohort {
        let other = lab.validate("other").await;
        assert_eq!(other.code, exit::DONE, "{name}, seen from the other cohort: {:?}", other.report);
    }
    lab.repair(&case, &name).await;
    if number.is_multiple_of(CONTROL) {
        let repaired = lab.validate("one").await;
        assert_eq!(repaired.code, exit::DONE, "{name}, repaired: {:?}", repaired.report);
    }
    case.codes
}

/// The table in the documentation says what was measured here, class by class.
fn documented(tally: &Tally) {
    let text = include_str!("../../../docs/validation.md");
    for (group, (_, codes)) in tally {
        let row = text.lines().find(|line| line.starts_with(&format!("| {group} |")));
        let row = row.unwrap_or_else(|| panic!("docs/validation.md has no row for: {group}"));
        for code in classes::CODES {
            assert_eq!(row.contains(&format!("`{code}`")), codes.contains(code), "docs/validation.md: {code} in {row}");
        }
    }
}
