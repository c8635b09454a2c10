//! The Migration's next step: Assess → Backup → VerifyBackup → Prepare → Move → Finalize → Completed, and the way back.
//! Called by `controller/` with what it observed. Pure and total; cohorts are only read, never written.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::api::MigrationStatus;
use crate::api::approval::{ApprovedStep, SubjectKind};
use crate::api::check::{GatedStep, TriggerAction};
use crate::api::condition::reason;
use crate::api::names::Verb;
use crate::api::status::{PlanStatus, RollbackStatus};
use crate::contract::Report;

use super::admission::{self, Waiting};
use super::approval::{self, Question};
use super::attempt::{self, Attempt, Refusal};
use super::command;
use super::conditions::{Situation, Why};
use super::decision::{Decision, FinalizerChange, JobRequest, Note, Work};
use super::hold::gate_answer;
use super::observed::{MigrationView, ObservedMigration};
use super::pass::{Pass, Words};
use super::record::{bounded, evidence_for, evidence_of, findings_of, note_history, put_evidence};
use super::step::MigrationStep;
use super::{check, digest, retreat, task};

/// Plan of evidence that must not count: the step said no.
pub(super) const REFUSED: &str = "refused";

/// The step that a status stands at; a new object stands at Assess, which writes nothing.
pub fn step_of(status: &MigrationStatus) -> MigrationStep {
    status.step.as_ref().and_then(|step| MigrationStep::parse(&step.name)).unwrap_or(MigrationStep::Assess)
}

/// Past the point of no return: Finalize has an attempt, or is over.
pub fn is_closed(migration: &MigrationView) -> bool {
    closed(&migration.status)
}

pub(super) fn closed(status: &MigrationStatus) -> bool {
    let begun =
        status.step.as_ref().is_some_and(|step| step.job.is_some() || step.failures > 0 || step.stalled.is_some());
    match step_of(status) {
        MigrationStep::Completed => true,
        MigrationStep::Finalize => begun,
        _ => false,
    }
}

/// What should happen next.
pub fn decide(seen: &ObservedMigration, now: Timestamp) -> Decision<MigrationStatus> {
    let mut pass = Pass::new(seen, now);
    let situation = if seen.object.deleted_at.is_some() { retreat::leave(&mut pass) } else { pass.run() };
    pass.finish(&situation)
}

/// One pass over one migration.
pub(super) type Migrations<'a> = Pass<'a, ObservedMigration>;

impl Migrations<'_> {
    pub fn step(&self) -> MigrationStep {
        step_of(&self.status)
    }

    fn run(&mut self) -> Situation {
        if !self.seen.object.has_finalizer {
            self.effects.finalizer = Some(FinalizerChange::Add);
            return Situation::Digesting(Why::new(reason::ACCEPTED, "Taking the migration under control"));
        }
        self.renew_generation();
        self.take_up();
        let mut measured = self.seen.measured.clone();
        measured.extend(check::foreign_jobs(&self.status.checks, &self.seen.jobs));
        check::enter(&mut self.status.checks, &self.seen.spec, &measured, self.now);
        self.hear();
        self.heed_alarms();
        retreat::turn(self);
        self.plan();
        self.proceed()
    }

    /// A new generation gives a stalled or rolled-back migration another chance.
    fn renew_generation(&mut self) {
        let known = self.status.observed_generation;
        if known.is_none_or(|generation| generation < 0 || generation == self.seen.object.generation) {
            return;
        }
        if self.step() == MigrationStep::RolledBack {
            self.start_over("a new generation of the spec");
        } else if self.stalled().is_some() {
            self.clear_stall(self.step().limits());
        }
    }

    /// Takes up what became of the attempt under way.
    pub fn take_up(&mut self) {
        let current = self.step();
        let Some(limits) = current.limits() else { return };
        match self.settle() {
            Attempt::Passed(report) => self.pass_step(current, &report),
            // Stopped for the way back: that is no failure.
            Attempt::Lost { .. } if self.status.rollback.is_some() && !current.is_backward() => {
                if let Some(step) = &mut self.status.step {
                    step.job = None;
                }
            }
            Attempt::Lost { message } => self.book_failure(limits, &message),
            Attempt::Refused(refusal) => self.refuse_step(current, &refusal),
            Attempt::Idle | Attempt::Unseen | Attempt::Running { .. } | Attempt::Terminating => {}
        }
    }

    fn pass_step(&mut self, current: MigrationStep, report: &Report) {
        let plan = digest::data(&self.seen.spec);
        put_evidence(&mut self.status.evidence, evidence_of(current.evidence(), report, &plan, self.now));
        self.status.findings = findings_of(&report.findings);
        let prepared = evidence_for(&self.status.evidence, MigrationStep::Prepare.evidence(), &plan).is_some();
        let next = match current {
            MigrationStep::Assess => MigrationStep::Backup,
            MigrationStep::Backup => MigrationStep::VerifyBackup,
            // A backup that was only renewed in the middle of the move goes back to it.
            MigrationStep::VerifyBackup if prepared => MigrationStep::Move,
            MigrationStep::VerifyBackup => MigrationStep::Prepare,
            MigrationStep::Prepare => MigrationStep::Move,
            MigrationStep::Finalize => MigrationStep::Completed,
            MigrationStep::Reset => MigrationStep::RolledBack,
            other => other,
        };
        let told = summary(current, report);
        self.enter(next, &told);
    }

    fn refuse_step(&mut self, current: MigrationStep, refusal: &Refusal) {
        let reason = if current == MigrationStep::Assess && refusal.reason == reason::DATA_DIFFERS {
            reason::BLOCKED_BY_FINDINGS
        } else {
            refusal.reason
        };
        if let Some(report) = &refusal.report {
            put_evidence(&mut self.status.evidence, evidence_of(current.evidence(), report, REFUSED, self.now));
            self.status.findings = findings_of(&report.findings);
        }
        let told = match current {
            MigrationStep::Assess => "PreflightFailed",
            MigrationStep::Backup | MigrationStep::VerifyBackup => "BackupFailed",
            _ => "StepFailed",
        };
        self.notes.push(Note::warning(told, current.as_str(), refusal.message.clone()));
        self.stall(reason, &refusal.message);
    }

    /// Commands become wishes.
    fn hear(&mut self) {
        for command in command::take(&self.seen.object, &mut self.status.last_handled) {
            match command.verb {
                Verb::Retry => self.retry(),
                Verb::Promote => {
                    let told = "promote skips a cohort's soak; set it on the Cohort";
                    self.notes.push(Note::warning("CommandRefused", "Promote", told));
                }
                Verb::Abort => retreat::abort(self, &command.value),
                Verb::Rollback => {
                    let cause = format!("rollback requested at {}", command.value);
                    retreat::wish(self, "Rollback", &command.value, &cause);
                }
            }
        }
    }

    fn retry(&mut self) {
        if self.step() == MigrationStep::RolledBack {
            self.start_over("a retry was requested");
        } else {
            self.clear_stall(self.step().limits());
        }
    }

    /// A cohort's trigger with action RollbackMigration is carried out here; the cohort stored its evidence first.
    fn heed_alarms(&mut self) {
        let alarm = self.seen.cohorts.iter().find_map(|cohort| {
            let alarm = cohort.status.alarm.as_ref()?;
            (alarm.action == TriggerAction::RollbackMigration).then_some((cohort, alarm))
        });
        if let Some((cohort, alarm)) = alarm {
            let name = &cohort.object.name;
            let cause = format!("trigger on check {} of cohort {name}: {}", alarm.check, alarm.evidence);
            retreat::wish(self, "Rollback", &format!("trigger-{name}-{}", alarm.time.0), &cause);
        }
    }

    /// Fixes the plan at the start and follows the spec while nothing has been written.
    fn plan(&mut self) {
        let digest = digest::plan(&self.seen.spec);
        let current = self.status.plan.as_ref().is_none_or(|plan| plan.digest != digest);
        if current && !self.spec_changed() {
            self.status.plan = Some(PlanStatus { digest, observed_generation: self.seen.object.generation });
        }
        if self.status.start_time.is_none() {
            self.status.start_time = Some(Time(self.now));
            self.enter(MigrationStep::Assess, "accepted");
        }
    }

    /// Whether what was prepared was prepared for another dataset or other systems.
    fn spec_changed(&self) -> bool {
        let prepared = self.status.evidence.iter().find(|one| one.name == MigrationStep::Prepare.evidence());
        prepared.is_some_and(|prepared| prepared.plan != REFUSED && prepared.plan != digest::data(&self.seen.spec))
    }

    fn proceed(&mut self) -> Situation {
        match self.step() {
            MigrationStep::Completed => Situation::Complete(Why::new(
                reason::COMPLETED,
                "Every customer is on the target; fences and ledger are gone",
            )),
            MigrationStep::RolledBack => retreat::rolled_back(self),
            MigrationStep::Return => retreat::return_cohorts(self),
            step @ MigrationStep::Reset => self.carry_out(step),
            step => self.go_forward(step),
        }
    }

    fn go_forward(&mut self, step: MigrationStep) -> Situation {
        if let Some(situation) = self.occupied(step) {
            return situation;
        }
        if self.spec_changed() {
            let told =
                "engine, dataset or storage differ from what was prepared; undo the change, or roll back and retry";
            return Situation::NeedsHuman(Why::new(reason::SPEC_CHANGED, told));
        }
        if let Some(why) = self.paused() {
            self.admit_nobody_new();
            return Situation::Paused(why);
        }
        match step {
            MigrationStep::Move => self.move_cohorts(),
            MigrationStep::Finalize => self.finalize(),
            _ if self.outdated(step) => {
                self.enter(MigrationStep::Assess, "engine, dataset or storage were changed");
                self.carry_out(MigrationStep::Assess)
            }
            _ => self.carry_out(step),
        }
    }

    /// Before Prepare a changed spec costs nothing but another look.
    fn outdated(&self, step: MigrationStep) -> bool {
        let plan = digest::data(&self.seen.spec);
        let needs = match step {
            MigrationStep::Backup | MigrationStep::Prepare => MigrationStep::Assess,
            MigrationStep::VerifyBackup => MigrationStep::Backup,
            _ => return false,
        };
        evidence_for(&self.status.evidence, needs.evidence(), &plan).is_none()
    }

    fn paused(&self) -> Option<Why> {
        let alarm = self.seen.cohorts.iter().find_map(|cohort| {
            let alarm = cohort.status.alarm.as_ref()?;
            (alarm.action == TriggerAction::Pause).then_some((cohort.object.name.as_str(), alarm))
        });
        if let Some((cohort, alarm)) = alarm {
            let told =
                format!("check {} of cohort {cohort}: {}; request a retry on the cohort", alarm.check, alarm.evidence);
            return Some(Why::new(reason::PAUSED_BY_TRIGGER, told));
        }
        let by = if self.seen.spec.suspend {
            "spec.suspend"
        } else if self.seen.object.paused() {
            "annotation godwit.dev/paused"
        } else {
            return None;
        };
        Some(Why::new(reason::PAUSED, format!("Before the next step of {}: paused by {by}", self.step().as_str())))
    }

    fn admit_nobody_new(&mut self) {
        let under_way: Vec<String> = self
            .seen
            .cohorts
            .iter()
            .filter(|cohort| admission::is_under_way(cohort))
            .map(|cohort| cohort.object.name.clone())
            .collect();
        self.status.admitted.retain(|name| under_way.contains(name));
    }

    fn move_cohorts(&mut self) -> Situation {
        let answer = admission::admit(&self.seen.cohorts, self.seen.spec.rollout.max_concurrent_cohorts);
        if answer.starts_new && self.backup_is_old() {
            self.admit_nobody_new();
            if self.status.admitted.is_empty() {
                self.enter(MigrationStep::Backup, "the verified backup is older than backup.maxAge");
                return self.carry_out(MigrationStep::Backup);
            }
            let told = "The verified backup is older than backup.maxAge; it is renewed before the next cohort starts";
            return Situation::Running(Why::new(reason::MOVING, told));
        }
        self.status.admitted = answer.admitted;
        match answer.waits_for {
            Waiting::Cohorts(why) => Situation::Running(why),
            Waiting::Person(why) => Situation::Holding(why),
            Waiting::Nothing => {
                self.enter(MigrationStep::Finalize, "every customer is on the target and every soak is over");
                self.finalize()
            }
        }
    }

    fn backup_is_old(&self) -> bool {
        let plan = digest::data(&self.seen.spec);
        let Some(backup) = evidence_for(&self.status.evidence, MigrationStep::Backup.evidence(), &plan) else {
            return true;
        };
        let max_age = self.seen.spec.backup.max_age.or(SignedDuration::from_hours(24));
        backup.time.0.saturating_add(max_age).is_ok_and(|until| until <= self.now)
    }

    fn finalize(&mut self) -> Situation {
        // A cohort that went back meanwhile, or a new one, has to be moved first.
        let all_done = admission::admit(&self.seen.cohorts, 1).waits_for == Waiting::Nothing;
        if !all_done {
            self.enter(MigrationStep::Move, "a cohort is not done");
            return self.move_cohorts();
        }
        let spec = &self.seen.spec;
        let verdicts = check::verdicts(check::gates_before(spec, GatedStep::Finalize), spec, &self.status.checks);
        if let Some(why) = gate_answer(&verdicts, "Finalize") {
            self.measure_needed();
            return Situation::Holding(why);
        }
        let digest = self.status.plan.as_ref().map_or("", |plan| plan.digest.as_str());
        let name = self.seen.object.name.as_str();
        let question = Question { kind: SubjectKind::Migration, name, before: ApprovedStep::Finalize, digest };
        if let Some(why) = approval::missing(&spec.approvals, &self.seen.approvals, question) {
            self.measure_needed();
            return Situation::Holding(why);
        }
        self.carry_out(MigrationStep::Finalize)
    }

    /// The situation of a step that is not free to start an attempt.
    fn occupied(&mut self, step: MigrationStep) -> Option<Situation> {
        let message = format!("{} is under way", step.as_str());
        let words = Words { step: step.as_str(), reason: step.running_reason(), message: &message };
        self.not_free(words, |pass, name, attempt| pass.request(step, name, attempt))
    }

    /// Starts an attempt, or waits for the one under way.
    pub fn carry_out(&mut self, step: MigrationStep) -> Situation {
        if let Some(situation) = self.occupied(step) {
            return situation;
        }
        if self.seen.namespace_terminating {
            let told = "The namespace is being deleted; nothing can be started in it";
            return Situation::NeedsHuman(Why::new(reason::NAMESPACE_TERMINATING, told));
        }
        if let Err(field) = task::of_migration(step, &self.seen.spec, &self.status.evidence) {
            return Situation::NeedsHuman(Why::new(reason::INPUT_MISSING, field));
        }
        self.start_attempt();
        let started = Situation::Running(Why::new(step.running_reason(), step.as_str()));
        self.occupied(step).unwrap_or(started)
    }

    fn request(&self, step: MigrationStep, name: &str, attempt: i64) -> Option<JobRequest> {
        let task = task::of_migration(step, &self.seen.spec, &self.status.evidence).ok()?;
        Some(self.job_request(name, attempt, Work::Worker(task)))
    }

    fn job_request(&self, name: &str, attempt: i64, work: Work) -> JobRequest {
        let migration = self.seen.object.identity();
        JobRequest { name: name.to_owned(), attempt, epoch: 0, migration, cohort: None, work }
    }

    fn measure_needed(&mut self) {
        let needed = check::needed_by_migration(&self.seen.spec, &self.status);
        self.measure(&needed, &self.seen.spec, Self::job_request);
    }

    /// Begins a step, with history and event.
    pub fn enter(&mut self, next: MigrationStep, told: &str) {
        let before = self.status.step.as_ref().map_or("", |step| step.name.as_str()).to_owned();
        self.status.step = Some(attempt::begin(next.as_str(), next.limits(), self.now));
        self.status.progress = None;
        note_history(&mut self.status.history, next.as_str(), told, self.now);
        if matches!(next, MigrationStep::Completed | MigrationStep::RolledBack) {
            self.status.completion_time = Some(Time(self.now));
        }
        let reason = match next {
            MigrationStep::Completed => "MigrationCompleted",
            MigrationStep::RolledBack => "RollbackCompleted",
            MigrationStep::Return | MigrationStep::Reset => "RollingBack",
            _ => "MigrationAdvanced",
        };
        let message =
            if before.is_empty() { told.to_owned() } else { format!("{before} -> {}: {told}", next.as_str()) };
        let note = if next.is_backward() && next != MigrationStep::RolledBack {
            Note::warning(reason, next.as_str(), message)
        } else {
            Note::normal(reason, next.as_str(), message)
        };
        self.notes.push(note);
    }

    /// From RolledBack back to Assess; attempts go on rising.
    fn start_over(&mut self, why: &str) {
        let before = std::mem::take(&mut self.status);
        self.status = MigrationStatus {
            observed_generation: before.observed_generation,
            conditions: before.conditions,
            start_time: before.start_time,
            attempts: before.attempts,
            last_handled: before.last_handled,
            history: before.history,
            ..MigrationStatus::default()
        };
        self.enter(MigrationStep::Assess, why);
    }
}

/// A rollback as it is recorded.
pub(super) fn rollback(kind: &str, id: &str, cause: &str, now: Timestamp) -> RollbackStatus {
    RollbackStatus {
        id: bounded(id, 128),
        kind: kind.to_owned(),
        cause: bounded(cause, 1024),
        time: Time(now),
        released: Vec::new(),
    }
}

fn summary(step: MigrationStep, report: &Report) -> String {
    let number = |name: &str| report.counts.get(name).map(|count| format!("{count} {name}"));
    let parts: Vec<String> =
        ["customers", "tables", "rows", "files", "bytes"].iter().filter_map(|name| number(name)).collect();
    if parts.is_empty() { format!("{} done", step.as_str()) } else { parts.join(", ") }
}
