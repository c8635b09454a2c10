//! Sample, sweep or replay: which plans are run in which batches, and what is written down about them.
//! Called by the test in `main.rs`.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::campaign::{Batch, References, Verdict, summary};
use crate::cluster::Cluster;
use crate::draw;
use crate::plan::Plan;
use crate::settings::{self, Wanted};

/// Plans of the sample.
const SAMPLE: usize = 64;
/// Plans of one batch of the sweep: their operators all stay alive until its end.
const BATCH: usize = 72;

/// Runs what is wanted; returns the names of the plans that failed.
pub fn run() -> Vec<String> {
    let began = Instant::now();
    let (undisturbed, may_be_read) = settings::undisturbed();
    let mut references = may_be_read.then(|| References::read(&undisturbed)).flatten();
    let mut plans: Option<Vec<Plan>> = None;
    let mut verdicts: Vec<Verdict> = Vec::new();
    for number in 0.. {
        let judged = on_a_cluster(&format!("batch-{number}"), async |mut batch| {
            let mut known = match references.take() {
                Some(known) => known,
                None => batch.play_undisturbed().await,
            };
            let left = plans.get_or_insert_with(|| wanted(&known));
            println!("seed {}, {} plans to go after {} s", settings::seed(), left.len(), began.elapsed().as_secs());
            let rest = left.split_off(left.len().min(BATCH));
            batch.play(std::mem::replace(left, rest)).await;
            let judged = batch.judge(&mut known).await;
            known.write(&undisturbed);
            references = Some(known);
            judged
        });
        write_down(&judged);
        verdicts.extend(judged);
        if plans.as_ref().is_none_or(Vec::is_empty) {
            break;
        }
    }
    println!("{} runs in {} s\n{}", verdicts.len(), began.elapsed().as_secs(), summary(&verdicts));
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

/// A control plane and a runtime for each batch: nothing of one lives on into the next.
fn on_a_cluster(name: &str, work: impl AsyncFnOnce(Batch) -> Vec<Verdict>) -> Vec<Verdict> {
    let folder = settings::folder().join(name);
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    let log = folder.join("audit").join("audit.log");
    let cluster = Cluster::up(
        "gauntlet-cluster",
        &[format!("--audit-log={}", log.display()), "--audit-level=Request".to_owned()],
    );
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let verdicts = runtime.block_on(async { work(Batch::begin(&cluster, folder).await).await });
    runtime.shutdown_timeout(Duration::from_secs(10));
    drop(cluster);
    verdicts
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
