//! The way back of a cohort: when it is wished, when it can begin, by which road, and of which class it is.
//! Used by `cohort.rs`. Suspension, waves, gates and approvals never block it.

use crate::api::CohortStatus;
use crate::api::status::ReversibilityClass;

use super::cohort::{Cohorts, step_of};
use super::decision::Note;
use super::migration;
use super::observed::MigrationView;
use super::step::CohortStep;

/// Prefix of the ids of rollbacks that the migration ordered.
const ORDERED: &str = "migration-";

/// Records that the cohort is to go back; a wish for the way back that is under way changes nothing.
pub(super) fn wish(pass: &mut Cohorts<'_>, kind: &str, id: &str, cause: &str) {
    if pass.status.rollback.is_some() {
        return;
    }
    if pass.seen.migration.as_ref().is_some_and(migration::is_closed) {
        let told = "Finalize has begun: there is no way back any more";
        pass.notes.push(Note::warning("CommandRefused", "Rollback", told));
        return;
    }
    pass.status.rollback = Some(migration::rollback(kind, id, cause, pass.now));
}

/// Whether the way back that is recorded was ordered by the migration.
pub(super) fn was_ordered(status: &CohortStatus) -> bool {
    status.rollback.as_ref().is_some_and(|rollback| rollback.id.starts_with(ORDERED))
}

/// A migration-wide way back releases its cohorts one after the other; its end lets them start over.
pub(super) fn follow(pass: &mut Cohorts<'_>, migration: &MigrationView) {
    let ordered_before = was_ordered(&pass.status);
    match &migration.status.rollback {
        Some(order) if order.released.contains(&pass.seen.object.name) => {
            // A new order reaches a cohort that already went back by an earlier one as well: it is back, nothing to do.
            let id = format!("{ORDERED}{}", order.id);
            let cause = order.cause.clone();
            let order_kind = order.kind.clone();
            wish(pass, &order_kind, &id, &cause);
        }
        None if ordered_before && pass.step() == CohortStep::RolledBack => {
            pass.start_over("the migration starts over");
        }
        _ => {}
    }
}

/// Turns towards the source as soon as nothing moves forward any more.
pub(super) fn turn(pass: &mut Cohorts<'_>) {
    let step = pass.step();
    if pass.status.rollback.is_none() || step.is_backward() {
        return;
    }
    // A cutover in progress is not torn apart: it ends by itself, one way or the other, and then goes back.
    if pass.forward_job_in_the_way(step != CohortStep::Cutover) {
        return;
    }
    let cause = pass.status.rollback.as_ref().map_or_else(String::new, |rollback| rollback.cause.clone());
    pass.status.checks.iter_mut().for_each(|check| check.job = None);
    let next = road(&pass.status);
    pass.enter(next, &cause);
}

/// By which road a cohort goes back from where it stands.
pub fn road(status: &CohortStatus) -> CohortStep {
    match step_of(status) {
        // Nothing was written for it.
        CohortStep::Pending => CohortStep::RolledBack,
        // A ledger that knows of a cutover which this status does not (it was edited or lost) is asked, not overruled.
        CohortStep::Select | CohortStep::Copy | CohortStep::Validate if !source_owns(status) => CohortStep::Freeze,
        CohortStep::Select | CohortStep::Copy | CohortStep::Validate => CohortStep::Discard,
        // A cutover that answered and left the source in charge wrote nothing that the target's users saw. One that gave
        // no answer may have got anywhere: only the road that asks both ledgers is safe.
        CohortStep::Cutover if status.owner.as_deref() == Some("Source") => CohortStep::Discard,
        CohortStep::Cutover | CohortStep::Soak | CohortStep::Done => CohortStep::Freeze,
        back => back,
    }
}

/// What going back would cost now.
pub fn class(status: &CohortStatus, closed: bool) -> ReversibilityClass {
    let step = step_of(status);
    let cut_over = matches!(step, CohortStep::Soak | CohortStep::Done)
        || (status.cutover_time.is_some() && step != CohortStep::RolledBack);
    match (closed, cut_over) {
        (true, _) => ReversibilityClass::Closed,
        (false, true) => ReversibilityClass::Lossy,
        (false, false) => ReversibilityClass::Lossless,
    }
}

/// Whether nothing says otherwise: neither a ledger, nor a cutover that gave no answer.
pub(super) fn source_owns(status: &CohortStatus) -> bool {
    matches!(status.owner.as_deref(), None | Some("Source"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::attempt::begin;
    use jiff::Timestamp;

    fn at(step: CohortStep, owner: &str) -> CohortStatus {
        let mut status = CohortStatus { owner: Some(owner.into()), ..CohortStatus::default() };
        status.step = Some(begin(step.as_str(), Timestamp::UNIX_EPOCH));
        status
    }

    #[test]
    fn before_cutover_the_way_back_removes_what_was_copied() {
        for step in [CohortStep::Select, CohortStep::Copy, CohortStep::Validate] {
            assert_eq!(road(&at(step, "Source")), CohortStep::Discard);
        }
        assert_eq!(road(&at(CohortStep::Pending, "Source")), CohortStep::RolledBack);
    }

    #[test]
    fn a_cohort_that_the_ledger_gives_to_the_target_is_never_discarded_whatever_its_step_says() {
        for step in [CohortStep::Select, CohortStep::Copy, CohortStep::Validate] {
            assert_eq!(road(&at(step, "Target")), CohortStep::Freeze);
            assert_eq!(road(&at(step, "None")), CohortStep::Freeze);
        }
    }

    #[test]
    fn after_cutover_the_way_back_freezes_the_target_first() {
        for step in [CohortStep::Soak, CohortStep::Done] {
            assert_eq!(road(&at(step, "Target")), CohortStep::Freeze);
        }
    }

    #[test]
    fn a_cutover_without_an_answer_goes_back_by_the_road_that_asks_both_ledgers() {
        assert_eq!(road(&at(CohortStep::Cutover, "None")), CohortStep::Freeze);
        assert_eq!(road(&at(CohortStep::Cutover, "Target")), CohortStep::Freeze);
        assert_eq!(road(&at(CohortStep::Cutover, "Source")), CohortStep::Discard);
    }

    #[test]
    fn every_forward_step_has_a_way_back() {
        for step in CohortStep::ALL {
            assert!(road(&at(step, "Source")).is_backward(), "{}", step.as_str());
        }
    }
}
