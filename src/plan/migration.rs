//! The Migration's next step: Assess → Backup → VerifyBackup → Prepare → Move → Finalize → Completed, and the way back.
//! Called by `controller/` with what it observed. Pure and total; cohorts are only read, never written.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::api::check::TriggerAction;
use crate::api::condition::reason;
use crate::api::names::Verb;
use crate::api::status::{PlanStatus, RollbackStatus};
use crate::api::{MigrationSpec, MigrationStatus};

use super::attempt;
use super::cohort::{is_of_another_migration, step_of as cohort_step};
use super::command;
use super::conditions::{Situation, Why};
use super::decision::{Decision, FinalizerChange, JobRequest, Note, Work};
use super::observed::{CohortView, MigrationView, ObservedMigration};
use super::pass::{FORMER_JOB, Pass, Words};
use super::record::{bounded, evidence_for, evidence_named, note_history};
use super::step::{CohortStep, MigrationStep};
use super::{check, digest, retreat, revert, task};

/// Plan of evidence that must not count: the step said no.
pub(super) const REFUSED: &str = "refused";

/// The step that a status stands at; a new object stands at Assess, which writes nothing.
pub fn step_of(status: &MigrationStatus) -> MigrationStep {
    status.step.as_ref().and_then(|step| MigrationStep::parse(&step.name)).unwrap_or(MigrationStep::Assess)
}

/// Past the point of no return: Finalize has had an attempt that may have changed something.
pub fn is_closed(migration: &MigrationView) -> bool {
    closed(&migration.status)
}

pub(super) fn closed(status: &MigrationStatus) -> bool {
    step_of(status) == MigrationStep::Completed || status.closed_time.is_some()
}

/// What should happen next.
pub fn decide(seen: &ObservedMigration, now: Timestamp) -> Decision<MigrationStatus> {
    let mut pass = Pass::new(seen, now);
    let situation = if seen.object.deleted_at.is_some() { retreat::leave(&mut pass) } else { pass.run() };
    pass.finish(&situation)
}

/// One pass over one migration.
pub(super) type Migrations<'a> = Pass<'a, ObservedMigration>;

impl<'a> Migrations<'a> {
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
        let alarm = self.own_cohorts().find_map(|cohort| {
            let alarm = cohort.status.alarm.as_ref()?;
            let answered = revert::was_ordered(&cohort.status) && cohort_step(&cohort.status) == CohortStep::RolledBack;
            (alarm.action == TriggerAction::RollbackMigration && !answered).then_some((cohort, alarm))
        });
        if let Some((cohort, alarm)) = alarm {
            let name = &cohort.object.name;
            let cause = format!("trigger on check {} of cohort {name}: {}", alarm.check, alarm.evidence);
            retreat::wish(self, "Rollback", &format!("trigger-{name}-{}", alarm.time.0), &cause);
        }
    }

    /// Without those that were started under a deleted Migration of this name: what they say is not about this one.
    pub fn own_cohorts(&self) -> impl Iterator<Item = &'a CohortView> + use<'a> {
        let uid = &self.seen.object.uid;
        self.seen.cohorts.iter().filter(move |cohort| !is_of_another_migration(&cohort.status, uid))
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
        departs_from_preparation(&self.status, &self.seen.spec)
    }

    fn proceed(&mut self) -> Situation {
        match self.step() {
            MigrationStep::Completed => Situation::Complete(Why::new(
                reason::COMPLETED,
                "Every customer is on the target; fences and ledger are gone",
            )),
            MigrationStep::RolledBack => retreat::rolled_back(self),
            step @ (MigrationStep::Return | MigrationStep::Reset) => self.go_back(step),
            step => self.go_forward(step),
        }
    }

    /// Going back ignores suspension, gates and approvals, but not that it would go over other rows than went forward.
    fn go_back(&mut self, step: MigrationStep) -> Situation {
        if let Some(situation) = self.occupied(step) {
            return situation;
        }
        if self.spec_changed() {
            return Situation::NeedsHuman(spec_changed());
        }
        if step == MigrationStep::Return { retreat::return_cohorts(self) } else { self.carry_out(step) }
    }

    fn go_forward(&mut self, step: MigrationStep) -> Situation {
        if let Some(situation) = self.occupied(step) {
            return situation;
        }
        if self.spec_changed() {
            return Situation::NeedsHuman(spec_changed());
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
        let alarm = self.own_cohorts().find_map(|cohort| {
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

    /// The situation of a step that is not free to start an attempt.
    fn occupied(&mut self, step: MigrationStep) -> Option<Situation> {
        let message = format!("{} is under way", step.as_str());
        let seen = self.seen;
        let plan = || digest::data(&seen.spec);
        let words = Words {
            step: step.as_str(),
            reason: step.running_reason(),
            message: &message,
            plan: &plan,
            limits: step.limits(),
        };
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
        if self.stray_in_the_way(&MigrationStep::ALL.map(MigrationStep::as_str)) {
            return Situation::Running(Why::new(step.running_reason(), FORMER_JOB));
        }
        self.start_attempt(step.limits(), digest::data(&self.seen.spec));
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

    pub fn measure_needed(&mut self) {
        let needed = check::needed_by_migration(&self.seen.spec, &self.status);
        self.measure(&needed, &self.seen.spec, Self::job_request);
    }

    /// Begins a step, with history and event.
    pub fn enter(&mut self, next: MigrationStep, told: &str) {
        let before = self.status.step.as_ref().map_or("", |step| step.name.as_str()).to_owned();
        self.status.step = Some(attempt::begin(next.as_str(), self.now));
        self.status.progress = None;
        if next == MigrationStep::Finalize {
            // What was measured for an earlier try says nothing about this one.
            self.status.checks.clear();
        }
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

/// Whether engine, dataset or storage are others than those that Prepare worked with.
pub(super) fn departs_from_preparation(status: &MigrationStatus, spec: &MigrationSpec) -> bool {
    let prepared = evidence_named(&status.evidence, MigrationStep::Prepare.evidence());
    prepared.is_some_and(|prepared| prepared.plan != REFUSED && prepared.plan != digest::data(spec))
}

/// What is said about it, on the Migration and on each of its Cohorts.
pub(super) fn spec_changed() -> Why {
    let told = "spec.engine, spec.dataset or spec.backup.storage of the Migration differ from what was prepared; undo the \
                change. To move other rows, undo it, roll back, change it then and request a retry";
    Why::new(reason::SPEC_CHANGED, told)
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
