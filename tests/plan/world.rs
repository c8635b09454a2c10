//! A world in memory: objects, Jobs that end as a script says, and a clock that moves only when nothing else does.
//! Used by the traces. It carries decisions out exactly as the operator does: record, then perform.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use godwit::api::approval::ApprovalSpec;
use godwit::api::names::Verb;
use godwit::api::{CohortSpec, CohortStatus, MigrationSpec, MigrationStatus};
use godwit::contract::{Finding, Owner, Report, ReportResult, Severity, Task};
use godwit::plan::check;
use godwit::plan::decision::{Decision, Effects, FinalizerChange, JobRequest, Wait, Work};
use godwit::plan::observed::{
    CohortView, Failure, JobState, Jobs, Measured, MigrationView, ObjectFacts, ObservedCohort, ObservedMigration,
    Outcome, RouteTableSeen,
};
use godwit::plan::{cohort, migration};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use crate::invariants::Watch;

/// How a Job of the script ends.
#[derive(Clone, Debug)]
pub enum End {
    /// Exit 65 with this finding; for a cutover the source is reopened first.
    Differs(&'static str),
    /// No answer: the pod was lost.
    Lost,
    /// This exit code and one finding: code, object, message.
    Fails(i32, [&'static str; 3]),
}

pub struct World {
    pub now: Timestamp,
    start: Timestamp,
    pub migration: Option<MigrationView>,
    pub cohorts: BTreeMap<String, CohortView>,
    pub jobs: BTreeMap<String, WorldJob>,
    pub approvals: Vec<ApprovalSpec>,
    /// What a check measures, by name: whether it passes. Absent: no data.
    pub measurements: BTreeMap<String, bool>,
    /// The next Jobs of (subject, step) end like this; then they pass again.
    pub script: BTreeMap<(String, String), Vec<End>>,
    pub route_table: Option<RouteTableSeen>,
    ledger: BTreeMap<String, (Owner, i64)>,
    pub log: String,
    told: BTreeMap<String, String>,
    pub watch: Watch,
    random: Option<u64>,
}

pub struct WorldJob {
    pub owner: String,
    pub request: JobRequest,
    pub ends_at: Timestamp,
    pub state: JobState,
}

/// The migration that every trace starts from.
pub fn migration_spec() -> MigrationSpec {
    serde_json::from_value(json!({
        "engine": {"postgres": {
            "source": {"uriFrom": {"secretKeyRef": {"name": "old-crm", "key": "uri"}}},
            "target": {"uriFrom": {"secretKeyRef": {"name": "new-crm", "key": "uri"}}}}},
        "dataset": {"root": {"table": "public.account", "key": "id"}},
        "backup": {"storage": {"persistentVolumeClaim": {"claimName": "crm-backup"}}, "maxAge": "720h"},
        "rollback": {"mode": "RestoreOnly"},
        "rollout": {"soak": "1h"},
        "routing": {"routeTable": {"configMapName": "crm-routes"}},
        "approvals": []
    }))
    .unwrap()
}

/// The same with these parts of it in the place of its own.
pub fn spec_with(parts: &serde_json::Value) -> MigrationSpec {
    let mut spec = serde_json::to_value(migration_spec()).unwrap();
    for (name, part) in parts.as_object().unwrap() {
        spec[name] = part.clone();
    }
    serde_json::from_value(spec).unwrap()
}

/// Far beyond every deadline.
pub const NEVER: SignedDuration = SignedDuration::from_hours(24 * 365);

fn object(name: &str) -> ObjectFacts {
    ObjectFacts {
        namespace: "crm".into(),
        name: name.into(),
        uid: format!("uid-{name}"),
        generation: 1,
        ..ObjectFacts::default()
    }
}

impl World {
    /// A migration `crm` with cohorts `canary` (1 %), `early` (20 %) and `rest` (the remainder), one wave each.
    pub fn new(spec: MigrationSpec) -> Self {
        let start: Timestamp = "2026-03-01T00:00:00Z".parse().unwrap();
        let view = MigrationView { object: object("crm"), spec, status: MigrationStatus::default() };
        let mut world = World {
            now: start,
            start,
            migration: Some(view),
            cohorts: BTreeMap::new(),
            jobs: BTreeMap::new(),
            approvals: Vec::new(),
            measurements: BTreeMap::new(),
            script: BTreeMap::new(),
            route_table: None,
            ledger: BTreeMap::new(),
            log: String::new(),
            told: BTreeMap::new(),
            watch: Watch::default(),
            random: None,
        };
        world.add_cohort("canary", 1, &json!({"percent": 1}));
        world.add_cohort("early", 2, &json!({"percent": 20}));
        world.add_cohort("rest", 3, &json!({"remainder": {}}));
        world
    }

    pub fn add_cohort(&mut self, name: &str, wave: i32, select: &serde_json::Value) {
        let spec: CohortSpec =
            serde_json::from_value(json!({"migrationRef": {"name": "crm"}, "wave": wave, "select": select})).unwrap();
        let view = CohortView { object: object(name), spec, status: CohortStatus::default() };
        self.cohorts.insert(name.into(), view);
    }

    /// Objects are visited in an order drawn from this seed instead of by name.
    pub fn in_random_order(mut self, seed: u64) -> Self {
        self.random = Some(seed | 1);
        self
    }

    pub fn say(&mut self, line: &str) {
        let minutes = (self.now.as_second() - self.start.as_second()) / 60;
        let seconds = (self.now.as_second() - self.start.as_second()) % 60;
        writeln!(self.log, "{minutes:>4}:{seconds:02}  {line}").unwrap();
    }

    pub fn request(&mut self, subject: &str, verb: Verb) {
        let value = self.now.to_string();
        let object = match self.cohorts.get_mut(subject) {
            Some(cohort) => &mut cohort.object,
            None => &mut self.migration.as_mut().unwrap().object,
        };
        object.annotations.insert(verb.annotation(), value);
        self.say(&format!("a person requests {} of {subject}", verb.as_str()));
    }

    pub fn fail_next(&mut self, subject: &str, step: &str, end: End) {
        self.script.entry((subject.into(), step.into())).or_default().push(end);
    }

    /// Runs until nothing changes and nothing will, or until `until` says so.
    pub fn run_until(&mut self, until: impl Fn(&World) -> bool) {
        for _ in 0..20_000 {
            if until(self) {
                return;
            }
            let (changed, wake) = self.round();
            if changed {
                continue;
            }
            let next_end = self.jobs.values().filter(|job| running(job)).map(|job| job.ends_at).min();
            match wake.into_iter().chain(next_end).filter(|at| *at > self.now).min() {
                Some(at) => self.now = at,
                None => return,
            }
        }
        panic!("the world does not settle:\n{}", self.log);
    }

    pub fn run_until_quiet(&mut self) {
        self.run_until(|_| false);
    }

    pub fn phase(&self, name: &str) -> String {
        let phase = match self.cohorts.get(name) {
            Some(cohort) => cohort.status.phase.clone(),
            None => self.migration.as_ref().and_then(|migration| migration.status.phase.clone()),
        };
        phase.unwrap_or_default()
    }

    /// One visit to every object. Returns whether anything changed, and the earliest wish to be woken.
    /// Visits everything once; returns whether anything changed, and when the first of them wants to be visited again.
    pub fn round(&mut self) -> (bool, Option<Timestamp>) {
        let mut changed = self.end_jobs();
        let mut wake: Option<Timestamp> = None;
        let mut names: Vec<String> = self.cohorts.keys().cloned().chain(["crm".to_owned()]).collect();
        self.shuffle(&mut names);
        for name in names {
            let (moved, wait) = if name == "crm" { self.visit_migration() } else { self.visit_cohort(&name) };
            changed |= moved;
            if let Wait::Until(at) = wait {
                wake = Some(wake.map_or(at, |wake| wake.min(at)));
            }
        }
        (changed, wake)
    }

    fn shuffle(&mut self, names: &mut [String]) {
        let Some(state) = &mut self.random else { return };
        for last in (1..names.len()).rev() {
            // xorshift64: reproducible by its seed, which is all that is asked of it.
            *state ^= *state << 13;
            *state ^= *state >> 7;
            *state ^= *state << 17;
            names.swap(last, usize::try_from(*state % (last as u64 + 1)).unwrap());
        }
    }

    fn visit_migration(&mut self) -> (bool, Wait) {
        let Some(view) = self.migration.clone() else { return (false, Wait::ForChange) };
        let mut seen = ObservedMigration {
            object: self.facts_of("crm", &view.object),
            spec: view.spec.clone(),
            status: view.status.clone(),
            jobs: self.jobs_of("crm"),
            cohorts: self.cohorts.values().cloned().collect(),
            approvals: self.approvals.clone(),
            measured: Vec::new(),
            route_table: self.route_table.clone(),
            namespace_terminating: false,
        };
        seen.measured = self.measure(&check::due_for_migration(&seen, self.now), &view.status.checks, "crm");
        let decision = migration::decide(&seen, self.now);
        let before = view.status;
        self.migration.as_mut().unwrap().status = decision.status.clone();
        Watch::migration(&before, &decision.status);
        let why = progressing(&decision.status.conditions);
        self.carry_out(("migration", "crm"), before != decision.status, decision, why)
    }

    fn visit_cohort(&mut self, name: &str) -> (bool, Wait) {
        let view = self.cohorts[name].clone();
        let mut seen = ObservedCohort {
            object: self.facts_of(name, &view.object),
            spec: view.spec.clone(),
            status: view.status.clone(),
            jobs: self.jobs_of(name),
            migration: self.migration.clone(),
            approvals: self.approvals.clone(),
            measured: Vec::new(),
            namespace_terminating: false,
        };
        seen.measured = self.measure(&check::due_for_cohort(&seen, self.now), &view.status.checks, name);
        let decision = cohort::decide(&seen, self.now);
        let before = view.status;
        self.cohorts.get_mut(name).unwrap().status = decision.status.clone();
        Watch::cohort(name, &before, &decision.status);
        let why = progressing(&decision.status.conditions);
        self.carry_out(("cohort", name), before != decision.status, decision, why)
    }

    fn carry_out<S>(
        &mut self,
        (kind, name): (&str, &str),
        recorded: bool,
        decision: Decision<S>,
        why: Option<String>,
    ) -> (bool, Wait) {
        for note in &decision.notes {
            self.say(&format!("{kind:<9} {name:<7} {}", note.message));
        }
        if let Some(why) = why
            && decision.notes.is_empty()
            && self.told.get(name) != Some(&why)
        {
            self.say(&format!("{kind:<9} {name:<7} {why}"));
            self.told.insert(name.to_owned(), why);
        }
        let performed = self.perform(name, decision.effects);
        (recorded || performed, decision.wait)
    }

    fn perform(&mut self, name: &str, effects: Effects) -> bool {
        let Effects { jobs, abandoned_jobs, route_table, finalizer } = effects;
        let mut changed = false;
        for request in jobs {
            if !self.jobs.contains_key(&request.name) {
                self.create_job(name, request);
                changed = true;
            }
        }
        for job in abandoned_jobs {
            changed = true;
            if self.jobs.remove(&job).is_none() {
                self.occupy(name, job);
            }
        }
        if let Some(table) = route_table {
            let migration_uid = self.migration.as_ref().map(|migration| migration.object.uid.clone());
            let written = RouteTableSeen { routes: Some(table.routes), migration_uid, version: "1".to_owned() };
            changed |= self.route_table.as_ref() != Some(&written);
            self.route_table = Some(written);
        }
        if let Some(change) = finalizer {
            let object = match self.cohorts.get_mut(name) {
                Some(cohort) => &mut cohort.object,
                None => &mut self.migration.as_mut().unwrap().object,
            };
            object.has_finalizer = change == FinalizerChange::Add;
            changed = true;
            if change == FinalizerChange::Remove && object.deleted_at.is_some() {
                self.say(&format!("{name} is gone"));
                if self.cohorts.remove(name).is_none() {
                    self.migration = None;
                }
            }
        }
        changed
    }

    fn create_job(&mut self, owner: &str, request: JobRequest) {
        let objects = (self.migration.as_ref(), self.cohorts.get(owner));
        self.watch.job(owner, &request, objects, &self.jobs);
        let minutes = match &request.work {
            Work::Worker(Task::Backup { .. } | Task::Copy {}) => 4,
            Work::Worker(Task::SqlCheck { .. } | Task::IntegrityCheck {}) | Work::Container { .. } => 0,
            Work::Worker(_) => 1,
        };
        let ends_at = self.now + SignedDuration::from_mins(minutes) + SignedDuration::from_secs(2);
        let state = JobState::Running { progress: None, trouble: None };
        self.jobs.insert(request.name.clone(), WorldJob { owner: owner.to_owned(), request, ends_at, state });
    }

    /// The name of an attempt that nobody saw is taken by a Job that never runs.
    fn occupy(&mut self, owner: &str, name: String) {
        let migration = self.migration.as_ref().unwrap().object.identity();
        let cohort = self.cohorts.get(owner).map(|cohort| cohort.object.identity());
        let work = Work::Container { check: "placeholder".into() };
        let request = JobRequest { name: name.clone(), attempt: 0, epoch: 0, migration, cohort, work };
        let abandoned = Failure { exit_code: None, reason: "Abandoned".into(), report: None };
        let state = JobState::Failed(abandoned);
        self.jobs.insert(name, WorldJob { owner: owner.to_owned(), request, ends_at: self.now, state });
    }

    fn end_jobs(&mut self) -> bool {
        let due: Vec<String> = self
            .jobs
            .iter()
            .filter(|(_, job)| running(job) && job.ends_at <= self.now)
            .map(|(name, _)| name.clone())
            .collect();
        for name in &due {
            let owner = self.jobs[name].owner.clone();
            let request = self.jobs[name].request.clone();
            self.jobs.get_mut(name).unwrap().state = self.end_of(&owner, &request);
        }
        !due.is_empty()
    }

    fn end_of(&mut self, owner: &str, request: &JobRequest) -> JobState {
        let Work::Worker(task) = &request.work else {
            return JobState::Succeeded { report: Some(Report::new(ReportResult::Pass)) };
        };
        let scripted = self
            .script
            .get_mut(&(owner.to_owned(), task.name().to_owned()))
            .and_then(|ends| if ends.is_empty() { None } else { Some(ends.remove(0)) });
        match scripted {
            Some(End::Lost) => {
                JobState::Failed(Failure { exit_code: None, reason: "BackoffLimitExceeded".into(), report: None })
            }
            Some(End::Differs(object)) => JobState::Failed(Failure {
                exit_code: Some(65),
                reason: "PodFailurePolicy".into(),
                report: Some(self.refusal(owner, task, object)),
            }),
            Some(End::Fails(code, [finding, object, message])) => {
                let mut report = Report::new(ReportResult::Error);
                let (code_of, object, message) = (finding.to_owned(), object.to_owned(), message.to_owned());
                report.findings = vec![Finding { severity: Severity::Blocker, code: code_of, object, message }];
                let reason = "PodFailurePolicy".into();
                JobState::Failed(Failure { exit_code: Some(code), reason, report: Some(report) })
            }
            None => JobState::Succeeded { report: Some(self.report(owner, task)) },
        }
    }

    fn refusal(&mut self, owner: &str, task: &Task, object: &str) -> Report {
        let mut report = Report::new(ReportResult::Fail);
        report.findings.push(Finding {
            severity: Severity::Blocker,
            code: "RowsDiffer".into(),
            object: object.into(),
            message: "14 rows differ".into(),
        });
        report.counts.insert("differences".into(), 14);
        if matches!(task, Task::Cutover { .. }) {
            let entry = self.ledger.entry(owner.to_owned()).or_insert((Owner::Source, 0));
            entry.1 += 2;
            report.owner = Some(entry.0);
            report.epoch = Some(entry.1);
        }
        report
    }

    /// What a worker would report, with the ledger moved as the worker would move it.
    fn report(&mut self, owner: &str, task: &Task) -> Report {
        let mut report = Report::new(ReportResult::Pass);
        let mut count = |name: &str, number: i64| report.counts.insert(name.to_owned(), number);
        match task {
            Task::Assess {} => count("customers", 20_000),
            Task::Backup { .. } => count("rows", 700_000),
            Task::Select { .. } => count(
                "customers",
                match owner {
                    "canary" => 200,
                    "early" => 4_000,
                    _ => 15_800,
                },
            ),
            Task::Copy {} | Task::Validate { .. } => count("rows", 7_000),
            Task::Return {} => count("setAside", 12),
            _ => None,
        };
        report.digest = Some(format!("sha256:{}", "0".repeat(64)));
        report.evidence_uri = Some(format!("evidence/{owner}/{}.json", task.name()));
        if let Some(entry) = self.moved(owner, task) {
            report.owner = Some(entry.0);
            report.epoch = Some(entry.1);
        }
        report
    }

    fn moved(&mut self, owner: &str, task: &Task) -> Option<(Owner, i64)> {
        let entry = self.ledger.entry(owner.to_owned()).or_insert((Owner::Source, 0));
        let (side, epochs) = match task {
            Task::Select { .. } => (entry.0, 0),
            Task::Discard {} => (Owner::Source, 0),
            Task::Cutover { .. } if entry.0 == Owner::Target => (Owner::Target, 0),
            Task::Cutover { .. } => (Owner::Target, 2),
            Task::Freeze {} => (Owner::None, 1),
            Task::Reopen {} => (Owner::Source, 1),
            _ => return None,
        };
        *entry = (side, entry.1 + epochs);
        Some(*entry)
    }

    /// The object, with the highest attempt among its Jobs as the operator reads it from their labels.
    fn facts_of(&self, owner: &str, object: &ObjectFacts) -> ObjectFacts {
        let attempts = self.jobs.values().filter(|job| job.owner == owner).map(|job| job.request.attempt);
        ObjectFacts { last_attempt: attempts.max().unwrap_or_default(), ..object.clone() }
    }

    /// The Job that an object's step waits for.
    pub fn running_job(&mut self, owner: &str) -> &mut WorldJob {
        let mut found = self.jobs.values_mut().filter(|job| job.owner == owner && running(job));
        found.next().expect("a Job runs")
    }

    /// Status, reason and message of a condition; nothing before the first visit.
    pub fn told(&self, name: &str, kind: &str) -> (String, String, String) {
        let conditions = match self.cohorts.get(name) {
            Some(cohort) => &cohort.status.conditions,
            None => &self.migration.as_ref().unwrap().status.conditions,
        };
        let found = conditions.iter().find(|one| one.type_ == kind);
        found.map(|one| (one.status.clone(), one.reason.clone(), one.message.clone())).unwrap_or_default()
    }

    fn jobs_of(&self, owner: &str) -> Jobs {
        let of_owner = self.jobs.iter().filter(|(_, job)| job.owner == owner);
        of_owner.map(|(name, job)| (name.clone(), job.state.clone())).collect()
    }

    fn measure(
        &self,
        due: &[godwit::api::Check],
        statuses: &[godwit::api::status::CheckStatus],
        owner: &str,
    ) -> Vec<Measured> {
        let finished = statuses.iter().filter(|status| {
            let state = status.job.as_ref().and_then(|job| self.jobs.get(&job.name)).filter(|job| job.owner == owner);
            state.is_some_and(|job| !running(job))
        });
        let names: BTreeSet<&str> =
            due.iter().map(|check| check.name.as_str()).chain(finished.map(|status| status.name.as_str())).collect();
        names
            .into_iter()
            .map(|name| {
                let outcome = match self.measurements.get(name) {
                    Some(passed) => {
                        Outcome::Numbers { values: vec![if *passed { 0.0 } else { 31.0 }], passed: *passed }
                    }
                    None => Outcome::NoData { message: "no sample".into() },
                };
                Measured { check: name.to_owned(), outcome }
            })
            .collect()
    }

    /// What must not depend on the order of visits.
    pub fn facts(&self) -> Vec<String> {
        let mut facts: Vec<String> = self
            .cohorts
            .iter()
            .map(|(name, cohort)| {
                format!("{name} {} {:?} {}", self.phase(name), cohort.status.owner, cohort.status.epoch)
            })
            .collect();
        facts.push(format!("crm {} {:?}", self.phase("crm"), self.route_table));
        facts
    }
}

/// The usual world after so many minutes.
pub fn after(minutes: i64) -> World {
    let mut world = World::new(migration_spec());
    let stop = world.now + SignedDuration::from_mins(minutes);
    world.run_until(|world| world.now >= stop);
    world
}

fn running(job: &WorldJob) -> bool {
    matches!(job.state, JobState::Running { .. })
}

/// What the object waits for, when it does.
fn progressing(conditions: &[k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition]) -> Option<String> {
    let condition = conditions.iter().find(|condition| condition.type_ == "Progressing")?;
    (condition.status == "False").then(|| format!("[{}] {}", condition.reason, condition.message))
}
