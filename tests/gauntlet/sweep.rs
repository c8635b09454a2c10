//! Sample, sweep or replay: which plans are run in which batches, and what is written down about them.
//! Called by the test in `main.rs`.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::Path;
use std::time::Instant;

use serde_json::Value;

use crate::campaign::{Batch, References, Verdict, summary};
use crate::draw;
use crate::plan::Plan;
use crate::settings::{self, Wanted};

/// Plans of the sample.
const SAMPLE: usize = 64;
/// Plans of one batch of the sweep: their operators all stay alive until its end.
const BATCH: usize = 72;

/// Runs what is wanted; returns the names of the plans that failed.
pub async fn run() -> Vec<String> {
    let began = Instant::now();
    let mut batch = Batch::begin("batch-0").await;
    let (undisturbed, may_be_read) = settings::undisturbed();
    let known = may_be_read.then(|| References::read(&undisturbed)).flatten();
    let mut references = match known {
        Some(known) => known,
        None => batch.play_undisturbed().await,
    };
    println!("what undisturbed runs do is known after {:.0} s", began.elapsed().as_secs_f64());
    let mut plans = wanted(&references);
    let total = plans.len();
    println!("seed {}, {total} plans", settings::seed());
    let mut verdicts: Vec<Verdict> = Vec::new();
    let mut number = 0;
    loop {
        let rest = plans.split_off(plans.len().min(BATCH));
        batch.play(plans).await;
        let judged = batch.judge(&mut references).await;
        references.write(&undisturbed);
        write_down(&judged);
        verdicts.extend(judged);
        println!("{} of {total} plans after {:.0} s", verdicts.len(), began.elapsed().as_secs_f64());
        if rest.is_empty() {
            break;
        }
        plans = rest;
        number += 1;
        batch = Batch::begin(&format!("batch-{number}")).await;
    }
    println!("{}", summary(&verdicts));
    let (planned, came) = verdicts
        .iter()
        .fold((0, 0), |(planned, came), verdict| (planned + verdict.plan.faults.len(), came + verdict.fired));
    // Pods that end at once, and second faults, shift later writes; most faults must come all the same.
    assert!(
        came * 5 >= planned * 4,
        "only {came} of {planned} faults came: the plans do not fit the operator's writes"
    );
    verdicts.iter().filter(|verdict| !verdict.passed()).map(|verdict| verdict.plan.name()).collect()
}

fn wanted(references: &References) -> Vec<Plan> {
    let seed = settings::seed();
    let writes = |subject| references.writes(subject);
    match settings::wanted() {
        Wanted::Files(path) => read(&path),
        Wanted::Count(count) if !settings::is_full() => draw::sample(count, seed, writes),
        Wanted::Default if !settings::is_full() => {
            let kept = read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/gauntlet/plans"));
            draw::sample(SAMPLE, seed, writes).into_iter().chain(kept).collect()
        }
        limit => {
            let passed = passed_before();
            let mut plans = draw::sweep(seed, writes);
            println!("the sweep has {} plans, {} of which passed before", plans.len(), passed.len());
            plans.retain(|plan| !passed.contains(&plan.name()));
            if let Wanted::Count(count) = limit {
                plans.truncate(count);
            }
            plans
        }
    }
}

fn read(path: &Path) -> Vec<Plan> {
    if path.is_dir() {
        let mut files: Vec<_> = std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.retain(|file| file.extension().is_some_and(|kind| kind == "json"));
        files.sort();
        return files.iter().flat_map(|file| read(file)).collect();
    }
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    vec![serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))]
}

/// A sweep that was stopped goes on where it was.
fn passed_before() -> BTreeSet<String> {
    let text = std::fs::read_to_string(settings::results()).unwrap_or_default();
    let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(|line| line["passed"] == true).filter_map(|line| line["plan"].as_str().map(str::to_owned)).collect()
}

fn write_down(verdicts: &[Verdict]) {
    let path = settings::results();
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
    for verdict in verdicts {
        verdict.tell(&settings::folder().join("failed"));
        writeln!(file, "{}", verdict.line()).unwrap();
    }
}
