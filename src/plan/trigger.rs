//! Triggers: what a failed check does to a cohort that was cut over. Signed in advance by standing in the spec.
//! Used by `cohort.rs` after measurements were entered. Must return the evidence with every action.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::api::check::{Trigger, TriggerAction, TriggerMode};
use crate::api::cohort::Alarm;
use crate::api::status::Verdict;
use crate::api::{CohortStatus, MigrationSpec};

use super::check::{self, Turned};
use super::decision::Note;

/// The gravest enforced trigger whose check fails now, as an alarm with its evidence.
pub fn fired(spec: &MigrationSpec, status: &CohortStatus, now: Timestamp) -> Option<Alarm> {
    let failing = |trigger: &&Trigger| trigger.mode == TriggerMode::Enforce && trigger.action != TriggerAction::Alert;
    check::armed(spec, status, now)
        .filter(failing)
        .filter_map(|trigger| {
            let (_, verdict, evidence) = check::verdicts([trigger.check.as_str()], spec, &status.checks).pop()?;
            (verdict == Verdict::Fail).then_some((trigger, evidence))
        })
        .max_by_key(|(trigger, _)| trigger.action)
        .map(|(trigger, evidence)| Alarm {
            check: trigger.check.clone(),
            category: trigger.category,
            action: trigger.action,
            evidence,
            time: Time(now),
        })
}

/// Armed, enforced triggers whose check has no passing verdict: the soak does not end on hope.
pub fn undecided(spec: &MigrationSpec, status: &CohortStatus, now: Timestamp) -> Option<String> {
    let enforced = check::armed(spec, status, now)
        .filter(|trigger| trigger.mode == TriggerMode::Enforce && trigger.action != TriggerAction::Alert)
        .map(|trigger| trigger.check.as_str());
    check::fresh_verdicts(enforced, spec, &status.checks, now)
        .into_iter()
        .find(|(_, verdict, _)| *verdict != Verdict::Pass)
        .map(|(_, _, evidence)| evidence)
}

/// What is told when a verdict turned to Fail: alerts, and what an observed trigger would have done.
pub fn notes(spec: &MigrationSpec, status: &CohortStatus, turned: &[Turned], now: Timestamp) -> Vec<Note> {
    let failed = |trigger: &&Trigger| turned.iter().any(|one| one.check == trigger.check && one.after == Verdict::Fail);
    check::armed(spec, status, now)
        .filter(failed)
        .filter_map(|trigger| {
            let (_, _, evidence) = check::verdicts([trigger.check.as_str()], spec, &status.checks).pop()?;
            let told = match (trigger.mode, trigger.action) {
                (TriggerMode::Observe, action) => {
                    format!("only observed, would have been {action:?}: {evidence}")
                }
                (TriggerMode::Enforce, TriggerAction::Alert) => evidence,
                (TriggerMode::Enforce, _) => return None,
            };
            Some(Note::warning("GateFailed", "Watch", format!("{:?}: {told}", trigger.category)))
        })
        .collect()
}
