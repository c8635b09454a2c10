//! A case: a step of the life, a fault at a place of its wire, and the way on or the way back; then everything must be as it has to be.
//! Cases are enumerated by the test modules and played here, a few at a time; each is named so that it can be played alone.
//! `GODWIT_FAULT_CASE=<part of a name>` plays only the cases whose name has it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::StreamExt;
use godwit::contract::{Side, Task, exit};
use tokio_postgres::Client;

use crate::life::Scene;
use crate::prints::{Facts, Print, differences, finished_chunks, owners, row_versions};
use crate::server::Servers;
use crate::wire::Place;
use crate::world::{Fault, Run, World, subject};

/// How many cases one test plays at the same time: they wait for processes and servers most of the time.
pub const LANES: usize = 3;
/// A cohort's step is tried this often before a person is asked; the faults here need far less.
const TRIES: i64 = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Road {
    /// New attempts until the step is done.
    On,
    /// The operator's way back from this step.
    Back,
}

pub struct Case {
    pub scene: Arc<Scene>,
    pub place: Place,
    pub fault: Fault,
    pub road: Road,
}

impl fmt::Display for Case {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {:?} at {}, {:?}", self.scene.name, self.fault, self.place, self.road)
    }
}

/// What a case came to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Figures {
    pub reached: usize,
    /// Runs after the disturbed one.
    pub runs: usize,
    /// The disturbed worker came to its end by itself.
    pub healed: usize,
    /// Bytes on the wire of the disturbed run and those after it, as a share of the undisturbed run's; with road On only.
    pub work: Option<f64>,
}

/// By which steps the operator goes back from a step, and whether there is a way back from it at all.
pub fn way_back(scene: &Scene) -> Vec<Task> {
    match scene.task {
        Task::Prepare {} => vec![Task::Reset {}],
        Task::Select { .. } | Task::Copy {} | Task::Validate { .. } => vec![Task::Discard {}],
        // Its pod is lost without an answer: only the road that asks both ledgers is safe.
        Task::Cutover { .. } => vec![Task::Freeze {}, Task::Return {}, Task::Verify {}, Task::Reopen {}],
        _ => Vec::new(),
    }
}

impl Case {
    pub async fn play(&self, servers: &Arc<Servers>) -> Result<Figures, String> {
        let world = self.scene.stage.world(servers, self.fault == Fault::Fill).await;
        let played = self.play_in(&world).await;
        world.remove().await;
        played.map_err(|problem| format!("{self}\n    {problem}"))
    }

    async fn play_in(&self, world: &World) -> Result<Figures, String> {
        let mut step = self.scene.step();
        let disturbed = world.run(&step, Some((self.place, self.fault))).await;
        let mut figures = Figures { reached: usize::from(disturbed.reached), ..Figures::default() };
        figures.healed = usize::from(disturbed.is_done());
        refuse_other_ends(&disturbed)?;
        self.between(world).await?;
        if self.road == Road::Back {
            for task in way_back(&self.scene) {
                step.task = task;
                figures.runs += until_done(world, &mut step).await?.len();
            }
            self.back(world).await?;
            return Ok(figures);
        }
        if !disturbed.is_done() {
            let is_copy = matches!(self.scene.task, Task::Copy {});
            let landed = if is_copy { Some(Landed::of(world, &self.scene).await) } else { None };
            let runs = until_done(world, &mut step).await?;
            if let (Some(landed), Some(last)) = (landed, runs.last()) {
                landed.refuse_repetition(world, last).await?;
            }
            figures.runs = runs.len();
            let bytes: u64 = runs.iter().chain([&disturbed]).map(Run::bytes).sum();
            #[expect(clippy::cast_precision_loss, reason = "a ratio for people")]
            let work = bytes as f64 / self.scene.undisturbed.bytes() as f64;
            figures.work = Some(work);
        }
        self.arrived(world).await?;
        Ok(figures)
    }

    /// What must hold at any moment, however the worker ended.
    async fn between(&self, world: &World) -> Result<(), String> {
        let clients = world.clients().await;
        let (source, target) = (owners(&clients[&Side::Source]).await, owners(&clients[&Side::Target]).await);
        // While Prepare runs the target owns what is in its own tables before they are known.
        let two = |(name, one): (&String, &(String, i64))| {
            one.0 == "Source" && target.get(name).is_some_and(|other| other.0 == "Target")
        };
        if !matches!(self.scene.task, Task::Prepare {}) && source.iter().any(two) {
            return Err(format!("two owners: {source:?} and {target:?}"));
        }
        let print = Print::take(&clients).await;
        let strangers = match self.scene.cohort {
            Some("first") => "(last)",
            Some(_) => "(first)",
            None => "Source",
        };
        same(&print.rows_of(&[strangers]), &self.scene.stage.print.rows_of(&[strangers]), "rows of others")
    }

    async fn arrived(&self, world: &World) -> Result<(), String> {
        let clients = world.clients().await;
        let print = Print::take(&clients).await;
        same(&print.rows, &self.scene.after.rows, "rows")?;
        same(&print.ledger, &self.scene.after.ledger, "ledgers")?;
        same(&print.schema, &self.scene.after.schema, "constraints and indexes")?;
        one_story(&clients).await.map(drop)
    }

    async fn back(&self, world: &World) -> Result<(), String> {
        let clients = world.clients().await;
        let print = Print::take(&clients).await;
        let (stage, home) = (&self.scene.stage.print, &self.scene.home.print);
        same(&print.rows_of(&["Source"]), &stage.rows_of(&["Source"]), "rows of the source")?;
        for cohort in ["(first)", "(last)", "(all)"] {
            let there = |print: &Print| print.rows_of(&["Target", cohort]);
            same(&there(&print), &there(home), "rows of the target")?;
        }
        same(&print.schema, &home.schema, "constraints and indexes")?;
        let owners = one_story(&clients).await?;
        let subjects: &[&str] = match self.scene.cohort {
            Some("last") => &["last", "unassigned", "reference"],
            Some(name) => &[name],
            None => &["unassigned"],
        };
        for name in subjects {
            if let Some((owner, _)) = owners.get(*name).filter(|(owner, _)| owner != "Source") {
                return Err(format!("{name} is {owner}'s after the way back"));
            }
        }
        if self.scene.cohort.is_none() {
            same(&print.ledger, &home.ledger, "what is left of Godwit")?;
        }
        Ok(())
    }
}

fn same(found: &Facts, expected: &Facts, what: &str) -> Result<(), String> {
    let differences = differences(found, expected);
    if differences.is_empty() { Ok(()) } else { Err(format!("{what} differ: {}", differences.join("; "))) }
}

/// Both ledgers tell the same owner and epoch of every entry.
pub async fn one_story(clients: &BTreeMap<Side, Client>) -> Result<BTreeMap<String, (String, i64)>, String> {
    let (mut source, mut target) = (owners(&clients[&Side::Source]).await, owners(&clients[&Side::Target]).await);
    if source.is_empty() || target.is_empty() {
        return Ok(target);
    }
    // Each side's own.
    source.remove("native");
    target.remove("native");
    if source == target { Ok(target) } else { Err(format!("the ledgers disagree: {source:?} and {target:?}")) }
}

/// A worker is killed, done, or asks to be tried again: no fault is a reason to give up.
pub fn refuse_other_ends(run: &Run) -> Result<(), String> {
    match run.ended.code {
        None | Some(exit::DONE | exit::TRY_AGAIN | KILLED) => Ok(()),
        Some(code) => Err(format!("exit code {code}: {:?}\n{}", run.ended.report, run.ended.log)),
    }
}

/// What a shell says of a child that was killed.
const KILLED: i32 = 137;

/// New attempts until one is done; `step` is then the next one.
pub async fn until_done(world: &World, step: &mut crate::world::Step) -> Result<Vec<Run>, String> {
    let mut runs = Vec::new();
    for _ in 0..TRIES {
        step.attempt += 1;
        let run = world.run(step, None).await;
        refuse_other_ends(&run).map_err(|problem| format!("{} again: {problem}", step.task.name()))?;
        let done = run.is_done();
        runs.push(run);
        if done {
            return Ok(runs);
        }
    }
    let last = runs.last().map(|run| format!("{:?}\n{}", run.ended.report, run.ended.log));
    Err(format!("{} is not done after {TRIES} attempts: {last:?}", step.task.name()))
}

/// What a copy had landed for good when its worker ended.
pub struct Landed {
    rows: BTreeSet<String>,
    chunks: usize,
}

impl Landed {
    pub async fn of(world: &World, scene: &Scene) -> Self {
        let target = world.client(Side::Target).await;
        Self { rows: row_versions(&target).await, chunks: finished_chunks(&target, &subject(scene.cohort)).await }
    }

    /// What landed stays as it is, row version by row version, and finished chunks are left alone.
    pub async fn refuse_repetition(&self, world: &World, last: &Run) -> Result<(), String> {
        let now = row_versions(&world.client(Side::Target).await).await;
        let again = self.rows.difference(&now).count();
        if again > 0 {
            return Err(format!("{again} of {} landed rows were written again", self.rows.len()));
        }
        let resumed = last.report().counts.get("chunksResumed").copied();
        if resumed == i64::try_from(self.chunks).ok() {
            return Ok(());
        }
        Err(format!("{} chunks had landed and {resumed:?} were left alone", self.chunks))
    }
}

/// Whether only some cases are wanted, and this is none of them.
pub fn is_left_out(name: &str) -> bool {
    setting("GODWIT_FAULT_CASE").is_some_and(|wanted| !name.contains(&wanted))
}

/// Plays all cases, tells the figures by step, and fails with every problem found.
pub async fn play_all(servers: &Arc<Servers>, (what, lanes): (&str, usize), cases: Vec<Case>) {
    let cases: Vec<Case> = cases.into_iter().filter(|case| !is_left_out(&case.to_string())).collect();
    let done = AtomicUsize::new(0);
    let played: Vec<(&Case, Result<Figures, String>)> = futures::stream::iter(&cases)
        .map(async |case| {
            let played = case.play(servers).await;
            if done.fetch_add(1, Ordering::Relaxed) % 50 == 49 {
                println!("{what}: {} of {} cases", done.load(Ordering::Relaxed), cases.len());
            }
            (case, played)
        })
        .buffer_unordered(lanes)
        .collect()
        .await;
    tell(what, &played);
    let problems: Vec<&String> = played.iter().filter_map(|(_, played)| played.as_ref().err()).collect();
    for problem in &problems {
        println!("{problem}\n");
    }
    assert!(problems.is_empty(), "{what}: {} of {} cases are wrong", problems.len(), cases.len());
    // A fault that never came shows nothing. Places close to the end may be missed by some bytes of a time or a key.
    let reached: usize = played.iter().filter_map(|(_, figures)| figures.as_ref().ok()).map(|it| it.reached).sum();
    assert!(reached * 20 >= cases.len() * 19, "{what}: only {reached} of {} faults came", cases.len());
}

fn tell(what: &str, played: &[(&Case, Result<Figures, String>)]) {
    let mut steps: BTreeMap<&str, Vec<Figures>> = BTreeMap::new();
    for (case, figures) in played {
        let figures = figures.as_ref().copied().unwrap_or_default();
        steps.entry(&case.scene.name).or_default().push(figures);
    }
    println!("{what}: step | cases | reached | ended by themselves | further runs | work, worst and mean");
    for (step, figures) in steps {
        let sum = |of: fn(&Figures) -> usize| figures.iter().map(of).sum::<usize>();
        let works: Vec<f64> = figures.iter().filter_map(|figures| figures.work).collect();
        let worst = works.iter().copied().fold(0.0, f64::max);
        #[expect(clippy::cast_precision_loss, reason = "a mean for people")]
        let mean = works.iter().sum::<f64>() / works.len().max(1) as f64;
        let (reached, healed, runs) = (sum(|it| it.reached), sum(|it| it.healed), sum(|it| it.runs));
        println!("  {step} | {} | {reached} | {healed} | {runs} | {worst:.2} {mean:.2}", figures.len());
    }
}

#[expect(clippy::disallowed_methods, reason = "how deep to look is said from outside")]
pub fn setting(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Every second case goes back, where there is a way back.
pub fn road(scene: &Scene, number: usize) -> Road {
    if number % 2 == 1 && !way_back(scene).is_empty() { Road::Back } else { Road::On }
}
