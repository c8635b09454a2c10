//! Why a cohort's next step may not start. The first answer wins, so the order of the list is the product's promise.
//! Used by `cohort.rs` for forward steps only: going back ignores suspension, waves, gates and approvals.

use jiff::Timestamp;

use crate::api::approval::{ApprovedStep, SubjectKind};
use crate::api::check::GatedStep;
use crate::api::condition::{kind, reason};
use crate::api::status::{CheckStatus, Verdict};
use crate::api::{CohortStatus, MigrationSpec};

use super::approval::{self, Question};
use super::check;
use super::conditions::Why;
use super::observed::{Jobs, MigrationView, ObservedCohort};
use super::step::{CohortStep, MigrationStep};
use super::verdict::worst;

/// A hold, and whether it is the stop cord.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hold {
    Paused(Why),
    Waiting(Why),
}

/// What a hold is judged from: what was seen, and the status as this pass has it by now.
pub struct Ask<'a> {
    pub seen: &'a ObservedCohort,
    pub migration: &'a MigrationView,
    pub status: &'a CohortStatus,
    pub step: CohortStep,
    pub now: Timestamp,
}

const HOLDS: &[fn(&Ask<'_>) -> Option<Hold>] = &[
    hold_while_suspended, // the stop cord is asked first
    hold_while_the_migration_is_not_ready,
    hold_for_earlier_waves,
    hold_for_gate,
    hold_for_approval, // last: a person is asked only when the machines agree
];

/// The first reason to wait, if any.
pub fn first(ask: &Ask<'_>) -> Option<Hold> {
    HOLDS.iter().find_map(|hold| hold(ask))
}

/// Whether the stop cord is pulled, and by what.
pub fn hold_while_suspended(ask: &Ask<'_>) -> Option<Hold> {
    let migration = &ask.migration;
    let who = if ask.seen.spec.suspend {
        "spec.suspend of this Cohort"
    } else if ask.seen.object.paused() {
        "annotation godwit.dev/paused of this Cohort"
    } else if migration.spec.suspend {
        "spec.suspend of the Migration"
    } else if migration.object.paused() {
        "annotation godwit.dev/paused of the Migration"
    } else if paused_by_trigger(migration) {
        "the Migration, because a trigger fired"
    } else {
        return None;
    };
    let before = if ask.step == CohortStep::Pending { "its start" } else { ask.step.as_str() };
    let message = format!("Before {before}: paused by {who}");
    Some(Hold::Paused(Why::new(reason::PAUSED, message)))
}

fn paused_by_trigger(migration: &MigrationView) -> bool {
    let conditions = &migration.status.conditions;
    conditions
        .iter()
        .any(|one| one.type_ == kind::PAUSED && one.status == "True" && one.reason == reason::PAUSED_BY_TRIGGER)
}

fn hold_while_the_migration_is_not_ready(ask: &Ask<'_>) -> Option<Hold> {
    let at_move = ask.migration.status.step.as_ref().is_some_and(|step| step.name == MigrationStep::Move.as_str());
    // Where a cutover gave no answer users may be waiting: it is brought to its end whatever became of the Migration.
    let between = ask.step == CohortStep::Cutover && ask.status.owner.as_deref() == Some("None");
    // The step's name stays out of the message: a waiting cohort's status would be rewritten with each of them.
    (!at_move && !between).then(|| {
        let what = if ask.step == CohortStep::Pending { "Cohorts start" } else { "Cohorts go on" };
        let message = format!("{what} when Migration {} reaches Move", ask.migration.object.name);
        Hold::Waiting(Why::new(reason::MIGRATION_NOT_READY, message))
    })
}

fn hold_for_earlier_waves(ask: &Ask<'_>) -> Option<Hold> {
    let admitted = ask.migration.status.admitted.contains(&ask.seen.object.name);
    (ask.step == CohortStep::Pending && !admitted).then(|| {
        let message = format!("Wave {} waits for earlier cohorts or for a free place", ask.seen.spec.wave);
        Hold::Waiting(Why::new(reason::WAVE_NOT_REACHED, message))
    })
}

fn hold_for_gate(ask: &Ask<'_>) -> Option<Hold> {
    let gated = match ask.step {
        CohortStep::Copy => GatedStep::Copy,
        CohortStep::Cutover => GatedStep::Cutover,
        _ => return None,
    };
    closed_gate(&ask.migration.spec, gated, (&ask.status.checks, &ask.seen.jobs), ask.now).map(Hold::Waiting)
}

/// Why the gates before a step do not open, and what keeps a measurement from being taken; `None` when all pass.
pub fn closed_gate(
    spec: &MigrationSpec,
    step: GatedStep,
    (statuses, jobs): (&[CheckStatus], &Jobs),
    now: Timestamp,
) -> Option<Why> {
    let verdicts = check::fresh_verdicts(check::gates_before(spec, step), spec, statuses, now);
    let worst = worst(verdicts.iter().map(|(_, verdict, _)| *verdict));
    let reason = match worst {
        Verdict::Pass => return None,
        Verdict::Fail => reason::GATE_FAILED,
        Verdict::Inconclusive | Verdict::Error => reason::GATE_INCONCLUSIVE,
    };
    let evidence = verdicts.iter().find(|(_, verdict, _)| *verdict == worst).map_or("", |(_, _, evidence)| evidence);
    let kept = check::kept(check::gates_before(spec, step), statuses, jobs);
    let kept = kept.map_or_else(String::new, |kept| format!("; {kept}"));
    Some(Why::new(reason, format!("Before {step:?}: {evidence}{kept}")))
}

fn hold_for_approval(ask: &Ask<'_>) -> Option<Hold> {
    if ask.step != CohortStep::Cutover {
        return None;
    }
    let digest = ask.status.plan.as_ref().map_or("", |plan| plan.digest.as_str());
    let question =
        Question { kind: SubjectKind::Cohort, name: &ask.seen.object.name, before: ApprovedStep::Cutover, digest };
    approval::missing(&ask.migration.spec.approvals, &ask.seen.approvals, question).map(Hold::Waiting)
}
