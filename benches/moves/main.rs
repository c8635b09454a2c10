//! How fast Godwit moves, as ratios to what people use today: `make bench`. Both sides of a ratio run in the same round, in turn.
//! Started by `cargo bench --bench moves -- [metric…]`; leaves target/bench.json, and a table in docs/benchmarks.md when asked to.
//! Must not measure anything but the product's own code as shipped, nor let it skip a proof that a Job would run.

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot go on stops here, as a test does")]
#![allow(clippy::print_stdout, reason = "its table is for people")]
#![allow(clippy::disallowed_methods, reason = "there is no cli.rs here: scale and rounds come from the environment")]
#![allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "times")]
#![allow(clippy::large_futures, reason = "no stack here is small")]

mod backup;
mod compare;
mod data;
mod fence;
mod killed;
mod landing;
mod peers;
mod report;
mod rig;
mod rounds;
#[allow(dead_code, reason = "the tests' servers; a benchmark needs no pairs of databases")]
#[path = "../../tests/postgres/server.rs"]
mod server;
mod table;
mod whole;
mod work;

use std::process::ExitCode;

use report::Results;
use rig::Rig;

/// A group of metrics that share what they set up.
type Metric = (&'static str, fn(&Rig, &mut Results));

const METRICS: &[Metric] = &[
    ("table", table::run),
    ("backup", backup::run),
    ("compare", compare::run),
    ("landing", landing::run),
    ("fence", fence::run),
    ("killed", killed::run),
    ("whole", whole::run),
];

fn main() -> ExitCode {
    if let Some(step) = std::env::var_os(work::CHILD) {
        return work::child(&step.to_string_lossy());
    }
    // `cargo bench` adds flags of its own.
    let wanted: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let chosen: Vec<&Metric> =
        METRICS.iter().filter(|(name, _)| wanted.is_empty() || wanted.iter().any(|it| it == name)).collect();
    if chosen.is_empty() {
        eprintln!("no such metric; there are {:?}", METRICS.map_names());
        return ExitCode::FAILURE;
    }
    let rig = Rig::new();
    let mut results = Results::of(&rig);
    for (name, metric) in chosen {
        eprintln!("== {name}");
        metric(&rig, &mut results);
        results.write();
    }
    drop(rig);
    println!("{}", results.markdown());
    results.write_page();
    ExitCode::SUCCESS
}

trait Names {
    fn map_names(&self) -> Vec<&'static str>;
}

impl Names for [Metric] {
    fn map_names(&self) -> Vec<&'static str> {
        self.iter().map(|(name, _)| *name).collect()
    }
}
