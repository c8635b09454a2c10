//! What became of a cohort's attempt: evidence and the next step, another attempt later, or a stall and the way back.
//! Used by `cohort.rs` at the start of a pass. The outcome of a Job enters only here, and only when it was seen.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::api::condition::reason;
use crate::api::migration::OnFailure;
use crate::api::status::PlanStatus;
use crate::contract::{Owner, Report, Severity, code};

use super::attempt::{Attempt, Refusal};
use super::cohort::Cohorts;
use super::decision::Note;
use super::migration::REFUSED;
use super::observed::MigrationView;
use super::pass::after;
use super::record::{evidence_named, evidence_of, findings_of, put_evidence};
use super::step::CohortStep;
use super::{digest, revert};

/// Owner of a cohort whose cutover gave no answer: it may have got anywhere, only the ledgers know.
const UNANSWERED: &str = "None";

impl Cohorts<'_> {
    /// Takes up what became of the attempt under way.
    pub fn take_up(&mut self, migration: &MigrationView) {
        let current = self.step();
        let Some(limits) = current.limits() else { return };
        match self.settle() {
            Attempt::Passed(report) => self.pass_step(current, &report, migration),
            // Stopped for the way back: that is no failure.
            Attempt::Lost { .. } if self.status.rollback.is_some() && !current.is_backward() => {
                self.doubt_ownership(current);
                if let Some(step) = &mut self.status.step {
                    step.job = None;
                }
            }
            Attempt::Lost { message } => {
                self.doubt_ownership(current);
                self.book_failure(limits, &message);
                if self.stalled().is_some() {
                    self.give_up(current, migration);
                }
            }
            Attempt::Refused(refusal) => self.refuse_step(current, &refusal, migration),
            Attempt::Idle | Attempt::Unseen | Attempt::Running { .. } | Attempt::Terminating => {}
        }
    }

    /// A cutover that gave no answer may have got anywhere; only the ledgers know.
    fn doubt_ownership(&mut self, current: CohortStep) {
        if current == CohortStep::Cutover {
            self.status.owner = Some(UNANSWERED.to_owned());
        }
    }

    /// The attempt passed: its evidence is kept and the next step begins.
    fn pass_step(&mut self, current: CohortStep, report: &Report, migration: &MigrationView) {
        self.keep_ownership(report);
        // Counts for what the Job worked with: the spec may have been edited while it ran.
        let plan = self.plan_of_attempt().unwrap_or_else(|| plan_of(current, migration));
        put_evidence(&mut self.status.evidence, evidence_of(current.evidence(), report, &plan, self.now));
        if !report.findings.is_empty() {
            self.status.findings = findings_of(&report.findings);
        }
        match current {
            CohortStep::Select => {
                self.status.customers = report.counts.get("customers").copied();
            }
            CohortStep::Cutover => {
                self.status.cutover_time = Some(Time(self.now));
                self.status.soak_end_time = Some(after(self.now, self.soak(migration)));
            }
            _ => {}
        }
        let told = summary(current, report);
        if current == CohortStep::Select && report.owner == Some(Owner::Target) {
            // Our status was edited or lost: the ledger knows of a cutover, which Cutover completes and tells again.
            self.enter(CohortStep::Cutover, "the ledger says that the target owns these customers already");
            return;
        }
        self.enter(current.next(), &told);
    }

    fn refuse_step(&mut self, current: CohortStep, refusal: &Refusal, migration: &MigrationView) {
        self.doubt_ownership(current);
        if let Some(report) = &refusal.report {
            self.keep_ownership(report);
            put_evidence(&mut self.status.evidence, evidence_of(current.evidence(), report, REFUSED, self.now));
            self.status.findings = findings_of(&report.findings);
        }
        self.notes.push(Note::warning(refused_reason(current), current.as_str(), refusal.message.clone()));
        self.stall(reason_of(refusal), &refusal.message);
        self.give_up(current, migration);
    }

    /// The step failed for good: undone by itself where the user wants it, else a person decides.
    fn give_up(&mut self, current: CohortStep, migration: &MigrationView) {
        // With keys about to run out nothing is wrong with what was copied: a person makes room, and it goes on.
        let keys = self.stalled().is_some_and(|stalled| stalled.reason == reason::KEY_RANGE_SPENT);
        let undo = matches!(current, CohortStep::Copy | CohortStep::Validate | CohortStep::Cutover) && !keys;
        if !undo || migration.spec.rollout.on_failure != OnFailure::Revert || self.status.rollback.is_some() {
            return;
        }
        let message = self.stalled().map_or_else(String::new, |stalled| stalled.message.clone());
        let cause = format!("{} failed: {message}", current.as_str());
        revert::wish(self, "Rollback", &format!("failed-{}-{}", current.as_str(), self.status.attempts), &cause);
    }

    /// Owner and epoch as the ledger has them.
    fn keep_ownership(&mut self, report: &Report) {
        if let Some(owner) = report.owner {
            let text = match owner {
                Owner::Source => "Source",
                Owner::Target => "Target",
                Owner::None => "None",
            };
            self.status.owner = Some(text.to_owned());
        }
        if let Some(epoch) = report.epoch {
            self.status.epoch = self.status.epoch.max(epoch);
        }
    }

    /// What an approval of this cohort approves: the migration's plan as it is now, and exactly these customers.
    pub fn agree(&mut self, migration: &MigrationView) {
        if !matches!(self.step(), CohortStep::Copy | CohortStep::Validate | CohortStep::Cutover) {
            return;
        }
        let selected = evidence_named(&self.status.evidence, CohortStep::Select.evidence());
        let Some(selection) = selected.and_then(|evidence| evidence.digest.as_deref()) else { return };
        let digest = digest::cohort_plan(&migration.spec, selection);
        if self.status.plan.as_ref().is_none_or(|plan| plan.digest != digest) {
            self.status.plan = Some(PlanStatus { digest, observed_generation: migration.object.generation });
        }
    }

    /// A step that was given up at its deadline. A cutover is not left there: customers may be waiting before closed fences.
    pub fn give_up_late(&mut self, current: CohortStep, migration: &MigrationView) {
        if current != CohortStep::Cutover {
            return;
        }
        self.doubt_ownership(current);
        self.give_up(current, migration);
        self.wake_at(self.now);
    }
}

/// The part of the spec that a step's result depends on.
pub(super) fn plan_of(step: CohortStep, migration: &MigrationView) -> String {
    match step {
        CohortStep::Validate => digest::validation(&migration.spec),
        _ => digest::data(&migration.spec),
    }
}

/// A reason of its own where all that is in the way has a name of its own.
fn reason_of(refusal: &Refusal) -> &'static str {
    let findings = refusal.report.iter().flat_map(|report| &report.findings);
    let mut blockers = findings.filter(|finding| finding.severity == Severity::Blocker).map(|finding| &*finding.code);
    let Some(first) = blockers.next() else { return refusal.reason };
    if refusal.reason != reason::DATA_DIFFERS || blockers.any(|other| other != first) {
        return refusal.reason;
    }
    match first {
        code::SELECTION_EMPTY => reason::NO_CUSTOMERS_SELECTED,
        code::COHORT_OVERLAP => reason::COHORTS_OVERLAP,
        code::KEYS_UNKNOWN => reason::CUSTOMERS_UNKNOWN,
        code::SEQUENCE_RESERVE_SPENT => reason::KEY_RANGE_SPENT,
        _ => refusal.reason,
    }
}

/// What a step's report says in one line.
fn summary(step: CohortStep, report: &Report) -> String {
    let number = |name: &str| report.counts.get(name).map(|count| format!("{count} {name}"));
    let mut parts: Vec<String> =
        ["customers", "rows", "differences", "setAside", "violations"].iter().filter_map(|name| number(name)).collect();
    if let Some(pause) = report.timings.get("pause") {
        parts.push(format!("writes paused {pause} ms"));
    }
    if parts.is_empty() { format!("{} done", step.as_str()) } else { parts.join(", ") }
}

fn refused_reason(step: CohortStep) -> &'static str {
    match step {
        CohortStep::Copy => "CopyFailed",
        CohortStep::Validate => "ValidationFailed",
        CohortStep::Cutover => "CutoverFailed",
        step if step.is_backward() => "RollbackFailed",
        _ => "StepFailed",
    }
}
