//! The Cohort's next step: Pending → Select → Copy → Validate → Cutover → Soak → Done, and the ways back.
//! Called by `controller/` with what it observed. Pure and total; the outcome of a Job enters only when it was seen.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::api::condition::reason;
use crate::api::status::RollbackStatus;
use crate::api::{CohortStatus, DurationString};

use super::attempt::{self};
use super::cohort_outcome::plan_of;
use super::conditions::{Situation, Why};
use super::decision::{Decision, FinalizerChange, JobRequest, Note, Work};
use super::hold::{self, Ask, Hold};
use super::migration::{departs_from_preparation, spec_changed};
use super::observed::{MigrationView, ObservedCohort};
use super::pass::{FORMER_JOB, Pass, Words};
use super::record::{evidence_for, note_history};
use super::revert;
use super::step::CohortStep;
use super::{check, digest, task, trigger};

/// The step that a status stands at; text that is none of ours counts as Pending, where nothing has been written.
pub fn step_of(status: &CohortStatus) -> CohortStep {
    status.step.as_ref().and_then(|step| CohortStep::parse(&step.name)).unwrap_or(CohortStep::Pending)
}

/// Started under another Migration than the one of this uid: a deleted one of the same name.
pub fn is_of_another_migration(status: &CohortStatus, uid: &str) -> bool {
    step_of(status) != CohortStep::Pending && status.migration_uid.as_deref().is_some_and(|started| started != uid)
}

/// What should happen next.
pub fn decide(seen: &ObservedCohort, now: Timestamp) -> Decision<CohortStatus> {
    let mut pass = Pass::new(seen, now);
    let situation = match &seen.migration {
        _ if seen.object.deleted_at.is_some() => pass.leave(),
        None => Situation::NeedsHuman(Why::new(
            reason::MIGRATION_NOT_FOUND,
            format!("There is no Migration {}; create it, or delete this Cohort", seen.spec.migration_ref.name),
        )),
        Some(migration) if is_of_another_migration(&seen.status, &migration.object.uid) => {
            let told = format!(
                "This Cohort was started under a Migration {} that was deleted; delete the Cohort and create it again",
                migration.object.name
            );
            Situation::NeedsHuman(Why::new(reason::MIGRATION_REPLACED, told))
        }
        Some(migration) => pass.run(migration),
    };
    pass.finish(&situation)
}

/// One pass over one cohort.
pub(super) type Cohorts<'a> = Pass<'a, ObservedCohort>;

impl Cohorts<'_> {
    pub fn step(&self) -> CohortStep {
        step_of(&self.status)
    }

    pub fn run(&mut self, migration: &MigrationView) -> Situation {
        if !self.seen.object.has_finalizer {
            // Nothing is written anywhere before deletion is under control.
            self.effects.finalizer = Some(FinalizerChange::Add);
            return Situation::Digesting(Why::new(reason::ACCEPTED, "Taking the cohort under control"));
        }
        self.renew_generation();
        self.take_up(migration);
        self.agree(migration);
        let mut measured = self.seen.measured.clone();
        measured.extend(check::foreign_jobs(&self.status.checks, &self.seen.jobs));
        let turned = check::enter(&mut self.status.checks, &migration.spec, &measured, self.now);
        self.notes.extend(trigger::notes(&migration.spec, &self.status, &turned, self.now));
        self.hear(migration);
        self.watch(migration);
        revert::turn(self);
        self.proceed(migration)
    }

    /// A new generation gives a stalled or rolled-back cohort another chance.
    fn renew_generation(&mut self) {
        let known = self.status.observed_generation;
        if known.is_none_or(|generation| generation < 0 || generation == self.seen.object.generation) {
            return;
        }
        if self.step() == CohortStep::RolledBack {
            self.start_over("a new generation of the spec");
        } else if self.stalled().is_some() {
            self.clear_stall(self.step().limits());
        }
    }

    pub fn soak(&self, migration: &MigrationView) -> SignedDuration {
        let default = SignedDuration::from_hours(24);
        let own = self.seen.spec.soak.as_ref().and_then(DurationString::parse);
        own.unwrap_or_else(|| migration.spec.rollout.soak.or(default))
    }

    /// Holds, starts or waits for the attempt of the step that the pass arrived at; a step that just began is decided
    /// in the same pass.
    fn proceed(&mut self, migration: &MigrationView) -> Situation {
        let current = self.step();
        match current {
            CohortStep::RolledBack => self.rolled_back(),
            CohortStep::Done => {
                self.measure_needed(migration);
                Situation::Complete(Why::new(reason::COMPLETED, "The target serves these customers"))
            }
            CohortStep::Soak => self.soak_on(migration),
            step if step.is_backward() => self.carry_out(step, migration),
            step => self.hold_or_start(migration, step),
        }
    }

    fn rolled_back(&self) -> Situation {
        let rollback = self.status.rollback.as_ref();
        let cause = rollback.map_or("", |rollback| rollback.cause.as_str());
        let reason = match rollback {
            Some(rollback) if rollback.kind == "Abort" => reason::ABORTED,
            _ => reason::ROLLED_BACK,
        };
        Situation::RolledBack(Why::new(reason, format!("The source serves these customers; {cause}")))
    }

    fn hold_or_start(&mut self, migration: &MigrationView, step: CohortStep) -> Situation {
        if let Some(situation) = self.occupied(step) {
            return situation;
        }
        if migration.object.deleted_at.is_some() {
            let told = format!("Migration {} is being deleted; no step starts", migration.object.name);
            return Situation::Holding(Why::new(reason::MIGRATION_DELETING, told));
        }
        if step == CohortStep::Cutover && !revert::source_owns(&self.status) {
            // Users may be waiting before closed fences, which no gate that measures them would ever open. Even a suspension lets
            // what runs come to its end, and this cutover has not come to its own.
            return self.carry_out(step, migration);
        }
        if step == CohortStep::Cutover && !self.validated(migration) {
            self.enter(CohortStep::Validate, "the validation rules were changed");
            return self.hold_or_start(migration, CohortStep::Validate);
        }
        let ask = Ask { seen: self.seen, migration, status: &self.status, step, now: self.now };
        match hold::first(&ask) {
            Some(Hold::Paused(why)) => Situation::Paused(why),
            Some(Hold::Waiting(why)) => {
                self.measure_needed(migration);
                Situation::Holding(why)
            }
            None if step == CohortStep::Pending => {
                self.status.start_time = self.status.start_time.take().or(Some(Time(self.now)));
                self.status.migration_uid = Some(migration.object.uid.clone());
                self.enter(CohortStep::Select, "admitted");
                self.carry_out(CohortStep::Select, migration)
            }
            None => self.carry_out(step, migration),
        }
    }

    fn validated(&self, migration: &MigrationView) -> bool {
        let plan = digest::validation(&migration.spec);
        evidence_for(&self.status.evidence, CohortStep::Validate.evidence(), &plan).is_some()
    }

    /// The situation of a step that is not free to start an attempt.
    pub fn occupied(&mut self, step: CohortStep) -> Option<Situation> {
        let message = running_message(step, self.status.rollback.as_ref());
        let seen = self.seen;
        let plan = || seen.migration.as_ref().map_or_else(String::new, |migration| plan_of(step, migration));
        let words = Words {
            step: step.as_str(),
            reason: step.running_reason(),
            message: &message,
            plan: &plan,
            limits: step.limits(),
        };
        let was_stalled = self.stalled().is_some();
        let situation = self.not_free(words, |pass, name, attempt| pass.request(step, name, attempt));
        if let Some(migration) = seen.migration.as_ref().filter(|_| self.stalled().is_some() && !was_stalled) {
            self.give_up_late(step, migration);
        }
        situation
    }

    /// Starts an attempt, or waits for the one under way. Forward holds were asked before.
    pub fn carry_out(&mut self, step: CohortStep, migration: &MigrationView) -> Situation {
        if let Some(situation) = self.occupied(step) {
            return situation;
        }
        if self.seen.namespace_terminating {
            let told = "The namespace is being deleted; nothing can be started in it";
            return Situation::NeedsHuman(Why::new(reason::NAMESPACE_TERMINATING, told));
        }
        // Holds on the way back too: it would go over other rows than went forward. A deletion must end all the same.
        let deleted = self.seen.object.deleted_at.is_some();
        if !deleted && departs_from_preparation(&migration.status, &migration.spec) {
            return Situation::NeedsHuman(spec_changed());
        }
        if let Err(field) = task::of_cohort(step, &self.seen.spec, &migration.spec) {
            return Situation::NeedsHuman(Why::new(reason::INVALID_SPEC, field));
        }
        if self.stray_in_the_way(&CohortStep::ALL.map(CohortStep::as_str)) {
            return Situation::Running(Why::new(step.running_reason(), FORMER_JOB));
        }
        self.start_attempt(step.limits(), plan_of(step, migration));
        let started = Situation::Running(Why::new(step.running_reason(), step.as_str()));
        self.occupied(step).unwrap_or(started)
    }

    fn request(&self, step: CohortStep, name: &str, attempt: i64) -> Option<JobRequest> {
        let migration = self.seen.migration.as_ref()?;
        let task = task::of_cohort(step, &self.seen.spec, &migration.spec).ok()?;
        Some(self.job_request(name, attempt, Work::Worker(task), migration))
    }

    fn job_request(&self, name: &str, attempt: i64, work: Work, migration: &MigrationView) -> JobRequest {
        JobRequest {
            name: name.to_owned(),
            attempt,
            epoch: self.status.epoch,
            migration: migration.object.identity(),
            cohort: Some(self.seen.object.identity()),
            work,
        }
    }

    fn measure_needed(&mut self, migration: &MigrationView) {
        let needed = check::needed_by_cohort(&migration.spec, &self.status, self.now);
        self.measure(&needed, &migration.spec, |pass, name, attempt, work| {
            pass.job_request(name, attempt, work, migration)
        });
    }

    fn soak_on(&mut self, migration: &MigrationView) -> Situation {
        self.measure_needed(migration);
        if let Some(alarm) = &self.status.alarm {
            let told = format!("Trigger on check {} fired: {}; request a retry to go on", alarm.check, alarm.evidence);
            return Situation::Holding(Why::new(reason::PAUSED_BY_TRIGGER, told));
        }
        let end = self.status.soak_end_time.as_ref().map_or(self.now, |end| end.0);
        if end > self.now {
            self.wake_at(end);
            return Situation::Holding(Why::new(reason::SOAKING, format!("Watched on the target until {end}")));
        }
        if let Some(evidence) = trigger::undecided(&migration.spec, &self.status, self.now) {
            let names = migration.spec.triggers.iter().map(|trigger| trigger.check.as_str());
            let kept = check::kept(names, &self.status.checks, &self.seen.jobs);
            let kept = kept.map_or_else(String::new, |kept| format!("; {kept}"));
            let told = format!("The soak is over, but a trigger has no passing verdict: {evidence}{kept}");
            return Situation::Holding(Why::new(reason::GATE_INCONCLUSIVE, told));
        }
        self.enter(CohortStep::Done, "the soak is over");
        self.status.completion_time = Some(Time(self.now));
        self.wake_at(self.now);
        Situation::Complete(Why::new(reason::COMPLETED, "The target serves these customers"))
    }

    /// Begins a step, with history and event.
    pub fn enter(&mut self, next: CohortStep, told: &str) {
        let before = self.step();
        self.status.step = Some(attempt::begin(next.as_str(), self.now));
        self.status.progress = None;
        if next.is_forward() {
            // What was measured for an earlier step says nothing about this one.
            self.status.checks.clear();
        }
        note_history(&mut self.status.history, next.as_str(), told, self.now);
        let message = format!("{} -> {}: {told}", before.as_str(), next.as_str());
        let action = next.as_str();
        self.notes.push(match next {
            CohortStep::RolledBack => Note::normal("RollbackCompleted", action, message),
            step if step.is_backward() => Note::warning("RollingBack", action, message),
            _ => Note::normal("CohortAdvanced", action, message),
        });
        if next == CohortStep::RolledBack {
            self.status.completion_time = Some(Time(self.now));
        }
    }

    /// From RolledBack back to Pending; attempts and epoch go on rising.
    pub fn start_over(&mut self, why: &str) {
        let before = std::mem::take(&mut self.status);
        self.status = CohortStatus {
            observed_generation: before.observed_generation,
            conditions: before.conditions,
            start_time: before.start_time,
            attempts: before.attempts,
            epoch: before.epoch,
            owner: before.owner,
            last_handled: before.last_handled,
            history: before.history,
            ..CohortStatus::default()
        };
        note_history(&mut self.status.history, CohortStep::Pending.as_str(), why, self.now);
        self.notes.push(Note::normal("CohortAdvanced", "Retry", format!("RolledBack -> Pending: {why}")));
    }
}

fn running_message(step: CohortStep, rollback: Option<&RollbackStatus>) -> String {
    match (step.is_backward(), rollback) {
        (true, Some(rollback)) => format!("{} because of {}", step.as_str(), rollback.cause),
        _ => format!("{} is under way", step.as_str()),
    }
}
