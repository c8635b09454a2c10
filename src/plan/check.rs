//! Checks: which are needed now, which are due, and how measurements enter the status.
//! `due_*` is asked by `controller/` before it measures; the rest is used by both decisions. Must not measure.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};

use crate::api::check::{Check, GatedStep, Trigger};
use crate::api::status::{CheckStatus, JobStatus, Verdict};
use crate::api::{CohortStatus, MigrationSpec, MigrationStatus};

use super::digest;
use super::names::job_name;
use super::observed::{JobState, Jobs, Measured, ObjectFacts, ObservedCohort, ObservedMigration, Outcome};
use super::step::{CohortStep, MigrationStep};
use super::verdict;
use super::{cohort, migration, task};

/// How long a measurement may take, from the moment when it is due.
const MEASURED_HERE: SignedDuration = SignedDuration::from_mins(2);
/// The same with a Job, which may have to be scheduled and its image pulled.
const MEASURED_BY_JOB: SignedDuration = SignedDuration::from_mins(20);

/// Checks that `controller/` is to measure itself in this pass for a cohort.
pub fn due_for_cohort(seen: &ObservedCohort, now: Timestamp) -> Vec<Check> {
    let Some(migration) = &seen.migration else {
        return Vec::new();
    };
    own_measurements(needed_by_cohort(&migration.spec, &seen.status, now), &seen.status.checks, now)
}

/// Checks that `controller/` is to measure itself in this pass for a migration.
pub fn due_for_migration(seen: &ObservedMigration, now: Timestamp) -> Vec<Check> {
    own_measurements(needed_by_migration(&seen.spec, &seen.status), &seen.status.checks, now)
}

fn own_measurements(needed: Vec<&Check>, statuses: &[CheckStatus], now: Timestamp) -> Vec<Check> {
    needed
        .into_iter()
        .filter(|check| task::of_check(check).is_none() && next_due(check, statuses).is_none_or(|due| due <= now))
        .cloned()
        .collect()
}

/// Checks that a cohort's next decision depends on: the gates of the step it waits for, and armed triggers.
pub fn needed_by_cohort<'a>(spec: &'a MigrationSpec, status: &CohortStatus, now: Timestamp) -> Vec<&'a Check> {
    let mut names: BTreeSet<&str> = armed(spec, status, now).map(|trigger| trigger.check.as_str()).collect();
    if status.step.as_ref().is_some_and(|step| step.job.is_none()) {
        let gated = match cohort::step_of(status) {
            CohortStep::Copy => Some(GatedStep::Copy),
            CohortStep::Cutover => Some(GatedStep::Cutover),
            _ => None,
        };
        names.extend(gated.into_iter().flat_map(|gated| gates_before(spec, gated)));
    }
    spec.checks.iter().filter(|check| names.contains(check.name.as_str())).collect()
}

/// Checks that a migration's next decision depends on: the gates before Finalize, while it waits for it.
pub fn needed_by_migration<'a>(spec: &'a MigrationSpec, status: &MigrationStatus) -> Vec<&'a Check> {
    let waits = migration::step_of(status) == MigrationStep::Finalize
        && status.step.as_ref().is_some_and(|step| step.job.is_none());
    if !waits {
        return Vec::new();
    }
    let names: BTreeSet<&str> = gates_before(spec, GatedStep::Finalize).collect();
    spec.checks.iter().filter(|check| names.contains(check.name.as_str())).collect()
}

/// Names of the checks that must pass before a step.
pub fn gates_before(spec: &MigrationSpec, step: GatedStep) -> impl Iterator<Item = &str> {
    spec.gates.iter().filter(move |gate| gate.before.contains(&step)).map(|gate| gate.check.as_str())
}

/// Triggers that watch this cohort now: from its cutover on, for as long as each says.
pub fn armed<'a>(
    spec: &'a MigrationSpec,
    status: &CohortStatus,
    now: Timestamp,
) -> impl Iterator<Item = &'a Trigger> + use<'a> {
    let step = cohort::step_of(status);
    let cutover = status.cutover_time.as_ref().map(|time| time.0);
    spec.triggers.iter().filter(move |trigger| {
        let during = trigger.during.as_ref().map(|during| during.or(SignedDuration::ZERO));
        match (step, cutover, during) {
            // While the cohort soaks every trigger watches; a longer `during` goes on after that.
            (CohortStep::Soak, Some(_), _) => true,
            (CohortStep::Done, Some(cutover), Some(during)) => {
                cutover.saturating_add(during).is_ok_and(|until| now < until)
            }
            _ => false,
        }
    })
}

/// When the check is to be measured next; `None`: at once.
pub fn next_due(check: &Check, statuses: &[CheckStatus]) -> Option<Timestamp> {
    let status = statuses.iter().find(|status| status.name == check.name)?;
    let last = status.measurements.last()?;
    let interval = check.interval.or(SignedDuration::from_mins(1));
    last.time.0.saturating_add(interval).ok()
}

/// A verdict that changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turned {
    pub check: String,
    pub before: Verdict,
    pub after: Verdict,
}

/// Enters this pass's measurements and returns the verdicts that changed.
pub fn enter(
    statuses: &mut Vec<CheckStatus>,
    spec: &MigrationSpec,
    measured: &[Measured],
    now: Timestamp,
) -> Vec<Turned> {
    let begun_anew = begin_changed_anew(statuses, spec);
    let mut turned = Vec::new();
    for one in measured {
        let Some(check) = spec.checks.iter().find(|check| check.name == one.check) else {
            continue;
        };
        if begun_anew.contains(&check.name) && task::of_check(check).is_some() {
            continue; // a Job began it, when the check was another
        }
        let status = entry(statuses, check);
        let before = status.verdict;
        status.job = None;
        let measurement = verdict::judge(check, &one.outcome, now);
        verdict::add(status, check, measurement);
        if status.verdict != before {
            turned.push(Turned { check: check.name.clone(), before, after: status.verdict });
        }
    }
    turned
}

/// Forgets checks that are gone, and what was measured before a check was changed; returns the names of these. A Job that still
/// measures what was asked before is then named by no record, and stopped.
fn begin_changed_anew(statuses: &mut Vec<CheckStatus>, spec: &MigrationSpec) -> BTreeSet<String> {
    let mut begun_anew = BTreeSet::new();
    statuses.retain_mut(|status| {
        let Some(check) = spec.checks.iter().find(|check| check.name == status.name) else { return false };
        let digest = digest::of(check);
        if status.digest.as_ref().is_some_and(|before| *before != digest) {
            *status = unmeasured(check);
            begun_anew.insert(check.name.clone());
        }
        status.digest = Some(digest);
        true
    });
    begun_anew
}

fn unmeasured(check: &Check) -> CheckStatus {
    CheckStatus {
        name: check.name.clone(),
        digest: Some(digest::of(check)),
        verdict: Verdict::Inconclusive,
        measurements: Vec::new(),
        job: None,
    }
}

fn entry<'a>(statuses: &'a mut Vec<CheckStatus>, check: &Check) -> &'a mut CheckStatus {
    let position = statuses.iter().position(|status| status.name == check.name).unwrap_or_else(|| {
        statuses.push(unmeasured(check));
        statuses.len() - 1
    });
    &mut statuses[position]
}

/// Marks Jobs of checks that are there as seen, and forgets those that vanished: their names are used up, another attempt follows.
pub fn settle_jobs(statuses: &mut [CheckStatus], jobs: &Jobs) {
    for status in statuses {
        let Some(job) = &mut status.job else { continue };
        match (jobs.contains_key(&job.name), job.seen) {
            (true, _) => job.seen = true,
            (false, true) => status.job = None,
            (false, false) => {}
        }
    }
}

/// Starts a Job for each needed check that is due and measures by Job; returns when to look again.
pub fn start_jobs(
    needed: &[&Check],
    statuses: &mut Vec<CheckStatus>,
    attempts: &mut i64,
    owner: &ObjectFacts,
    now: Timestamp,
) -> Option<Timestamp> {
    let mut wake: Option<Timestamp> = None;
    for check in needed {
        let by_job = task::of_check(check).is_some();
        let running = statuses.iter().any(|status| status.name == check.name && status.job.is_some());
        match next_due(check, statuses) {
            _ if by_job && running => {}
            Some(due) if due > now => wake = Some(wake.map_or(due, |wake: Timestamp| wake.min(due))),
            _ if by_job => {
                *attempts += 1;
                let name = job_name(&owner.uid, &owner.name, &check.name, *attempts);
                entry(statuses, check).job = Some(JobStatus { name, attempt: *attempts, plan: None, seen: false });
            }
            // Due, and the operator's to measure: the next pass does.
            _ => wake = Some(now),
        }
    }
    wake
}

/// The latest verdict and its evidence, for checks of these names.
pub fn verdicts<'a>(
    names: impl IntoIterator<Item = &'a str>,
    spec: &MigrationSpec,
    statuses: &[CheckStatus],
) -> Vec<(String, Verdict, String)> {
    names
        .into_iter()
        .filter_map(|name| spec.checks.iter().find(|check| check.name == name))
        .map(|check| match statuses.iter().find(|status| status.name == check.name) {
            Some(status) if !status.measurements.is_empty() => {
                (check.name.clone(), status.verdict, verdict::describe(check, status))
            }
            _ => (check.name.clone(), Verdict::Inconclusive, format!("check {} was not measured yet", check.name)),
        })
        .collect()
}

/// The same, for decisions that must rest on how things are: what was measured too long ago says nothing.
pub fn fresh_verdicts<'a>(
    names: impl IntoIterator<Item = &'a str>,
    spec: &MigrationSpec,
    statuses: &[CheckStatus],
    now: Timestamp,
) -> Vec<(String, Verdict, String)> {
    let mut verdicts = verdicts(names, spec, statuses);
    for (name, verdict, evidence) in &mut verdicts {
        let check = spec.checks.iter().find(|check| check.name == *name);
        if let Some(last) = check.and_then(|check| outdated(check, statuses, now)) {
            *verdict = Verdict::Inconclusive;
            *evidence = format!("check {name} was last measured at {last}");
        }
    }
    verdicts
}

/// When the check was last measured, if it ought to have been measured again since.
fn outdated(check: &Check, statuses: &[CheckStatus], now: Timestamp) -> Option<Timestamp> {
    let last = statuses.iter().find(|status| status.name == check.name)?.measurements.last()?.time.0;
    let takes = if task::of_check(check).is_some() { MEASURED_BY_JOB } else { MEASURED_HERE };
    let due = last.saturating_add(check.interval.or(SignedDuration::from_mins(1))).unwrap_or(Timestamp::MAX);
    due.saturating_add(takes).is_ok_and(|end| end < now).then_some(last)
}

/// Why one of these checks has no measurement yet: its Job's pod does not start.
pub fn kept<'a>(names: impl IntoIterator<Item = &'a str>, statuses: &[CheckStatus], jobs: &Jobs) -> Option<String> {
    names.into_iter().find_map(|name| {
        let status = statuses.iter().find(|status| status.name == name)?;
        let JobState::Running { trouble: Some(trouble), .. } = jobs.get(&status.job.as_ref()?.name)? else {
            return None;
        };
        Some(format!("the Job of check {name} waits: {}", trouble.message))
    })
}

/// Checks whose Job's name is taken by somebody else: an Error measurement, and another attempt later.
pub fn foreign_jobs(statuses: &[CheckStatus], jobs: &Jobs) -> Vec<Measured> {
    statuses
        .iter()
        .filter_map(|status| {
            let job = status.job.as_ref()?;
            let foreign = matches!(jobs.get(&job.name), Some(JobState::Foreign));
            foreign.then(|| Measured {
                check: status.name.clone(),
                outcome: Outcome::Error { message: format!("Job {} belongs to somebody else", job.name) },
            })
        })
        .collect()
}
