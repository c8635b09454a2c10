//! Batches of runs on one control plane, and what is asked at their end: the same objects as undisturbed, one Job per
//! attempt, the temporal rules over the audit log, and a minute in which no operator writes anything.
//! Called by the test in `main.rs`.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::Semaphore;

use crate::audit::{self, Event};
use crate::cluster::Cluster;
use crate::facts::{self, Expected, Facts};
use crate::plan::{Plan, Pods, Subject};
use crate::run::Run;
use crate::stage::Stage;
use crate::traffic::Sent;
use crate::{rules, settings};

/// Undisturbed runs of each subject from which is learned what may differ.
const UNDISTURBED: usize = 3;
/// No operator writes for so long after the last story has ended.
const REST: Duration = Duration::from_secs(60);
/// What follows a story's last step by itself: the route table, the other objects' last look.
const GRACE: Duration = Duration::from_secs(15);

/// What undisturbed runs did.
#[derive(Default, Serialize, Deserialize)]
pub struct References {
    writes: HashMap<Subject, Vec<Sent>>,
    expected: HashMap<Subject, Expected>,
}

impl References {
    /// What was written down before; `None`: nothing was.
    pub fn read(path: &Path) -> Option<Self> {
        let text = std::fs::read_to_string(path).ok()?;
        Some(serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
    }

    pub fn write(&self, path: &Path) {
        std::fs::write(path, serde_json::to_string(self).unwrap()).unwrap();
    }

    pub fn writes(&self, subject: Subject) -> Vec<Sent> {
        self.writes[&subject].clone()
    }
}

pub struct Verdict {
    pub plan: Plan,
    pub problems: Vec<String>,
    pub took: Duration,
    pub writes: usize,
    pub processes: usize,
    pub fired: usize,
    pub folder: PathBuf,
}

pub struct Batch {
    stage: Arc<Stage>,
    runs: Vec<Arc<Run>>,
}

impl Batch {
    pub async fn begin(cluster: &Cluster, folder: PathBuf) -> Self {
        Self { stage: Arc::new(Stage::on(cluster, folder).await), runs: Vec::new() }
    }

    /// Plays these plans, some at a time, and leaves their operators running.
    pub async fn play(&mut self, mut plans: Vec<Plan>) {
        // What waits longest for a refused operator comes first.
        plans.sort_by_key(|plan| !["A1", "C4", "C6"].contains(&plan.class().as_str()));
        let places = Arc::new(Semaphore::new(settings::jobs()));
        let mut playing = Vec::new();
        for plan in plans {
            let place = Arc::clone(&places).acquire_owned().await.unwrap();
            let namespace = format!("gauntlet-{:03}", self.runs.len());
            let run = Run::start(Arc::clone(&self.stage), &namespace, plan).await;
            self.runs.push(Arc::clone(&run));
            playing.push(tokio::spawn(async move {
                let played = tokio::spawn(Arc::clone(&run).play()).await;
                if let Err(panic) = played {
                    run.outcome.lock().unwrap().error = Some(format!("the run itself broke: {panic}"));
                }
                drop(place);
            }));
        }
        for one in playing {
            one.await.unwrap();
        }
    }

    /// Undisturbed runs; the plans are drawn over their writes.
    pub async fn play_undisturbed(&mut self) -> References {
        let undisturbed = |subject| Plan { seed: 0, subject, pods: Pods::WhenSeen, faults: Vec::new() };
        let plans = Subject::ALL.into_iter().flat_map(|subject| std::iter::repeat_n(undisturbed(subject), UNDISTURBED));
        self.play(plans.collect()).await;
        self.settle().await;
        let mut references = References::default();
        for run in &self.runs {
            references.writes.entry(run.plan.subject).or_insert_with(|| run.proxy.traffic.sent());
        }
        references
    }

    /// Until nobody has written for a moment.
    async fn settle(&self) {
        let deadline = Instant::now() + GRACE;
        while Instant::now() < deadline
            && self.runs.iter().any(|run| run.proxy.traffic.quiet_for() < Duration::from_secs(2))
        {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Asks everything that is asked at the end.
    pub async fn judge(self, references: &mut References) -> Vec<Verdict> {
        self.settle().await;
        let rest = Instant::now();
        tokio::time::sleep(REST).await;
        let restless: Vec<Option<String>> = self
            .runs
            .iter()
            .map(|run| {
                let last = run.proxy.traffic.sent().last().map(|sent| sent.key.clone()).unwrap_or_default();
                let quiet = run.proxy.traffic.quiet_for();
                (quiet < rest.elapsed())
                    .then(|| format!("the operator still wrote in the minute of rest: {last}, {quiet:?} ago"))
            })
            .collect();
        let mut ends: Vec<Facts> = Vec::new();
        for run in &self.runs {
            ends.push(facts::collect(&self.stage.client, &run.namespace).await);
        }
        for run in &self.runs {
            run.stop().await;
        }
        let folder = self.stage.folder.join("audit");
        let mut events = tokio::task::spawn_blocking(move || audit::read(&folder)).await.unwrap();
        self.learn(references, &ends);
        let mut verdicts = Vec::new();
        for ((run, end), restless) in self.runs.iter().zip(&ends).zip(restless) {
            let events = events.remove(&run.namespace).unwrap_or_default();
            let mut problems: Vec<String> = run.outcome.lock().unwrap().error.clone().into_iter().collect();
            problems.extend(restless);
            problems.extend(references.expected[&run.plan.subject].compare(end).into_iter().take(20));
            problems.extend(asked_of_events(&events));
            verdicts.push(verdict(run, problems));
        }
        verdicts
    }

    fn learn(&self, references: &mut References, ends: &[Facts]) {
        for subject in Subject::ALL {
            if references.expected.contains_key(&subject) {
                continue;
            }
            let undisturbed =
                self.runs.iter().zip(ends).filter(|(run, _)| run.plan.subject == subject && run.plan.faults.is_empty());
            let ends: Vec<Facts> = undisturbed.take(UNDISTURBED).map(|(_, end)| end.clone()).collect();
            let expected = Expected::learn(&ends);
            let masked: Vec<_> = expected.masked().cloned().collect();
            println!("{subject:?}: {} fields are compared, {} are not: {masked:?}", ends[0].len(), masked.len());
            references.expected.insert(subject, expected);
        }
    }
}

fn asked_of_events(events: &[Event]) -> Vec<String> {
    if events.is_empty() {
        return vec!["the audit log tells nothing of this run".to_owned()];
    }
    rules::check(events)
}

fn verdict(run: &Run, problems: Vec<String>) -> Verdict {
    let verdict = Verdict {
        plan: run.plan.clone(),
        problems,
        took: run.outcome.lock().unwrap().took,
        writes: run.proxy.traffic.sent().len(),
        processes: run.processes().len(),
        fired: run.proxy.traffic.fired(),
        folder: run.folder.clone(),
    };
    std::fs::write(run.folder.join("problems.txt"), verdict.problems.join("\n")).unwrap();
    verdict
}

impl Verdict {
    pub fn passed(&self) -> bool {
        self.problems.is_empty()
    }

    pub fn line(&self) -> String {
        let took = u64::try_from(self.took.as_millis()).unwrap_or(u64::MAX);
        json!({"plan": self.plan.name(), "class": self.plan.class(), "subject": self.plan.subject, "seed": self.plan.seed,
            "passed": self.passed(), "fired": self.fired, "writes": self.writes, "processes": self.processes,
            "ms": took, "problems": self.problems})
        .to_string()
    }

    /// Tells how it went; a failed plan is kept as a file that can be run again.
    pub fn tell(&self, failed: &Path) {
        if self.passed() {
            return;
        }
        std::fs::create_dir_all(failed).unwrap();
        let path = failed.join(format!("{}.json", self.plan.name()));
        std::fs::write(&path, serde_json::to_string_pretty(&self.plan).unwrap() + "\n").unwrap();
        println!(
            "FAILED {}\n  again with GODWIT_GAUNTLET_PLANS={}\n  trace and logs in {}",
            self.plan.name(),
            path.display(),
            self.folder.display()
        );
        for problem in self.problems.iter().take(12) {
            println!("  - {problem}");
        }
    }
}

/// How many plans of each class were run and failed, and how many faults never came.
pub fn summary(verdicts: &[Verdict]) -> String {
    let mut classes: BTreeMap<String, [usize; 3]> = BTreeMap::new();
    for verdict in verdicts {
        let [run, failed, missed] = classes.entry(verdict.plan.class()).or_default();
        *run += 1;
        *failed += usize::from(!verdict.passed());
        *missed += usize::from(verdict.fired < verdict.plan.faults.len());
    }
    let lines = classes.into_iter().map(|(class, [run, failed, missed])| {
        format!("  {class:<5} {run:>5} run {failed:>4} failed {missed:>4} not reached")
    });
    let took: Duration = verdicts.iter().map(|verdict| verdict.took).sum();
    format!(
        "{}\n  mean time of a run {:.1} s",
        lines.collect::<Vec<_>>().join("\n"),
        took.as_secs_f64() / f64::from(u32::try_from(verdicts.len().max(1)).unwrap_or(u32::MAX))
    )
}
