//! The way back of a whole migration, and its deletion: cohorts first, newest cutover first, then the target's baseline.
//! Used by `migration.rs`. Must never bring two cohorts back out of order, and must end even when databases are gone.

use jiff::SignedDuration;

use crate::api::condition::reason;
use crate::api::status::MAX_RELEASED;

use super::admission::{is_stalled, is_under_way};
use super::cohort::step_of as cohort_step;
use super::conditions::{Situation, Why};
use super::decision::{FinalizerChange, Note};
use super::migration::{Migrations, closed, rollback};
use super::observed::CohortView;
use super::record::evidence_named;
use super::step::{CohortStep, MigrationStep};

/// How long a deletion waits for cohorts that are in the middle of a step.
const DELETION_PATIENCE: SignedDuration = SignedDuration::from_mins(10);

/// Records that the migration is to go back; a wish for the way back that is under way changes nothing.
pub(super) fn wish(pass: &mut Migrations<'_>, kind: &str, id: &str, cause: &str) {
    if pass.status.rollback.is_some() {
        return;
    }
    if closed(&pass.status) {
        let told = "Finalize has begun: there is no way back any more";
        pass.notes.push(Note::warning("CommandRefused", "Rollback", told));
        return;
    }
    pass.notes.push(Note::warning("RollbackTriggered", "Rollback", cause));
    pass.status.rollback = Some(rollback(kind, id, cause, pass.now));
}

/// Abort undoes what was not cut over; customers on the target need an explicit rollback.
pub(super) fn abort(pass: &mut Migrations<'_>, value: &str) {
    let cut_over = pass.seen.cohorts.iter().find(|cohort| cohort.status.cutover_time.is_some());
    if let Some(cohort) = cut_over {
        let told = format!(
            "abort undoes what was not cut over; cohort {} was: request a rollback instead",
            cohort.object.name
        );
        pass.notes.push(Note::warning("CommandRefused", "Abort", told));
        return;
    }
    wish(pass, "Abort", value, &format!("abort requested at {value}"));
}

/// Turns towards the source as soon as no forward Job of the migration runs any more.
pub(super) fn turn(pass: &mut Migrations<'_>) {
    let step = pass.step();
    if pass.status.rollback.is_none() || step.is_backward() {
        return;
    }
    if pass.forward_job_in_the_way(true) {
        return;
    }
    let cause = pass.status.rollback.as_ref().map_or_else(String::new, |rollback| rollback.cause.clone());
    pass.status.admitted.clear();
    pass.status.checks.clear();
    pass.enter(MigrationStep::Return, &cause);
}

/// Releases cohorts for their way back: what was not cut over at once, then the newest cutover first, one by one.
pub(super) fn return_cohorts(pass: &mut Migrations<'_>) -> Situation {
    let out: Vec<&CohortView> = pass.own_cohorts().filter(|cohort| is_out(cohort)).collect();
    if out.is_empty() {
        if prepared(pass) {
            pass.enter(MigrationStep::Reset, "every cohort is back");
            return pass.carry_out(MigrationStep::Reset);
        }
        pass.enter(MigrationStep::RolledBack, "nothing had been written");
        return rolled_back(pass);
    }
    let mut cut_over: Vec<&CohortView> =
        out.iter().copied().filter(|cohort| cohort.status.cutover_time.is_some()).collect();
    cut_over.sort_by_key(|cohort| cohort.status.cutover_time.clone().map(|time| time.0));
    let mut released: Vec<String> = out
        .iter()
        .filter(|cohort| cohort.status.cutover_time.is_none())
        .map(|cohort| cohort.object.name.clone())
        .collect();
    released.truncate(MAX_RELEASED);
    // A cutover in progress has no time yet, and it is the newest of all: the others wait for its end.
    if released.is_empty() {
        released.extend(cut_over.last().map(|cohort| cohort.object.name.clone()));
    }
    let stalled = out.iter().find(|cohort| is_stalled(cohort) && cohort_step(&cohort.status).is_backward());
    let situation = match stalled {
        Some(cohort) => Situation::Holding(Why::new(
            reason::COHORT_NEEDS_ATTENTION,
            format!("Cohort {} cannot go back by itself; see its status", cohort.object.name),
        )),
        None => Situation::Running(Why::new(
            reason::REVERTING,
            format!("{} cohorts are still to go back; now {}", out.len(), released.join(", ")),
        )),
    };
    if let Some(rollback) = &mut pass.status.rollback {
        rollback.released = released;
    }
    situation
}

/// Something of this cohort may be on the target.
fn is_out(cohort: &CohortView) -> bool {
    !matches!(cohort_step(&cohort.status), CohortStep::Pending | CohortStep::RolledBack)
}

/// Whether Prepare was ever started: only then is there something to reset.
pub(super) fn prepared(pass: &Migrations<'_>) -> bool {
    pass.status.history.iter().any(|entry| entry.step == MigrationStep::Prepare.as_str())
        || evidence_named(&pass.status.evidence, MigrationStep::Prepare.evidence()).is_some()
}

pub(super) fn rolled_back(pass: &Migrations<'_>) -> Situation {
    let rollback = pass.status.rollback.as_ref();
    let cause = rollback.map_or("", |rollback| rollback.cause.as_str());
    let reason = match rollback {
        Some(rollback) if rollback.kind == "Abort" => reason::ABORTED,
        _ => reason::ROLLED_BACK,
    };
    Situation::RolledBack(Why::new(reason, format!("The source owns every customer; {cause}")))
}

/// Deletion: fences and ledger go, customer rows stay where they are. Bounded in time, saying why it waits.
pub(super) fn leave(pass: &mut Migrations<'_>) -> Situation {
    if !pass.seen.object.has_finalizer {
        return Situation::Running(Why::new(reason::CLEANING_UP, "Deleted"));
    }
    let step = pass.step();
    let nothing_there = matches!(step, MigrationStep::Completed | MigrationStep::RolledBack) || !prepared(pass);
    if pass.seen.namespace_terminating && !nothing_there {
        return let_go(pass, "the namespace is being deleted, so no Job can remove fences and ledger");
    }
    if step == MigrationStep::Cleanup {
        return clean_up(pass);
    }
    let running = pass.forward_job_in_the_way(true);
    let waiting_for = pass.seen.cohorts.iter().find(|cohort| is_under_way(cohort) && has_job(cohort));
    let deleted_at = pass.seen.object.deleted_at.unwrap_or(pass.now);
    let patient = deleted_at.saturating_add(DELETION_PATIENCE).is_ok_and(|until| pass.now < until);
    match waiting_for {
        _ if running => Situation::Running(Why::new(reason::CLEANING_UP, "Waiting for the running Job to end")),
        Some(cohort) if patient => {
            let told = format!("Waiting for cohort {} to end its step", cohort.object.name);
            Situation::Running(Why::new(reason::CLEANING_UP, told))
        }
        _ if nothing_there => gone(pass, "Nothing is left in the databases"),
        _ => {
            pass.enter(MigrationStep::Cleanup, "the Migration is being deleted");
            pass.carry_out(MigrationStep::Cleanup)
        }
    }
}

fn has_job(cohort: &CohortView) -> bool {
    cohort.status.step.as_ref().is_some_and(|step| step.job.is_some())
}

fn clean_up(pass: &mut Migrations<'_>) -> Situation {
    pass.take_up();
    let step = MigrationStep::Cleanup;
    if evidence_named(&pass.status.evidence, step.evidence()).is_some() {
        return gone(pass, "Fences and ledger are removed");
    }
    let began = pass.status.step.as_ref().map_or(pass.now, |step| step.start_time.0);
    // From its turn on, whether or not an attempt could be started.
    let patience = step.limits().map_or(SignedDuration::ZERO, |limits| limits.deadline);
    let late = began.saturating_add(patience).is_ok_and(|end| end <= pass.now);
    let stalled = pass.status.step.as_ref().and_then(|step| step.stalled.clone());
    if let Some(stalled) = stalled {
        return let_go(pass, &stalled.message);
    }
    if late {
        return let_go(pass, "the databases could not be reached in time");
    }
    pass.carry_out(step)
}

/// Nothing keeps the object any more. That is the end of a move only for one that had come to its end.
fn gone(pass: &mut Migrations<'_>, told: &str) -> Situation {
    pass.effects.finalizer = Some(FinalizerChange::Remove);
    if pass.step() == MigrationStep::Completed {
        return Situation::Complete(Why::new(reason::COMPLETED, told));
    }
    Situation::Running(Why::new(reason::CLEANING_UP, told))
}

fn let_go(pass: &mut Migrations<'_>, why: &str) -> Situation {
    let told = format!("Schema godwit and its triggers may remain in both databases: {why}");
    pass.notes.push(Note::warning("CleanupIncomplete", "Delete", told.clone()));
    pass.effects.finalizer = Some(FinalizerChange::Remove);
    Situation::NeedsHuman(Why::new(reason::CLEANING_UP, told))
}
