//! From a step and the spec to the task that a worker is given.
//! Used when an attempt starts. Must refuse what cannot be expressed, naming the field.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::api::check::{Check, Side as ApiSide};
use crate::api::cohort::Select;
use crate::api::migration::QueryPair as ApiQueryPair;
use crate::api::status::Evidence;
use crate::api::{CohortSpec, DurationString, MigrationSpec};
use crate::contract::{EvidenceRef, QueryPair, Selection, Side, Task};

use super::decision::Work;
use super::digest;
use super::record::evidence_for;
use super::step::{CohortStep, MigrationStep};

/// The task of a migration's step; `Err` says which field is unusable.
pub fn of_migration(step: MigrationStep, spec: &MigrationSpec, evidence: &[Evidence]) -> Result<Task, String> {
    match step {
        MigrationStep::Assess => Ok(Task::Assess {}),
        MigrationStep::Backup => {
            Ok(Task::Backup { includes: spec.backup.include.iter().map(|include| include.name.clone()).collect() })
        }
        MigrationStep::VerifyBackup => backup_ref(spec, evidence).map(|backup| Task::VerifyBackup { backup }),
        MigrationStep::Prepare => Ok(Task::Prepare {}),
        MigrationStep::Finalize => Ok(Task::Finalize {}),
        MigrationStep::Reset => Ok(Task::Reset {}),
        MigrationStep::Cleanup => Ok(Task::Cleanup {}),
        MigrationStep::Move | MigrationStep::Completed | MigrationStep::Return | MigrationStep::RolledBack => {
            Err(format!("step {} has no Job", step.as_str()))
        }
    }
}

fn backup_ref(spec: &MigrationSpec, evidence: &[Evidence]) -> Result<EvidenceRef, String> {
    let backup = evidence_for(evidence, MigrationStep::Backup.evidence(), &digest::data(spec));
    let found = backup.and_then(|backup| Some((backup.uri.clone()?, backup.digest.clone()?)));
    let (uri, digest) = found.ok_or("the backup's report named no manifest; request a retry to take another backup")?;
    Ok(EvidenceRef { uri, digest })
}

/// The task of a cohort's step; `Err` says which field is unusable.
pub fn of_cohort(step: CohortStep, cohort: &CohortSpec, migration: &MigrationSpec) -> Result<Task, String> {
    match step {
        CohortStep::Select => selection(&cohort.select).map(|selection| Task::Select { selection }),
        CohortStep::Copy => Ok(Task::Copy {}),
        CohortStep::Validate => Ok(Task::Validate { checks: pairs(&migration.validation.checks) }),
        CohortStep::Cutover => Ok(Task::Cutover { checks: pairs(&migration.validation.checks) }),
        CohortStep::Discard => Ok(Task::Discard {}),
        CohortStep::Freeze => Ok(Task::Freeze {}),
        CohortStep::Return => Ok(Task::Return {}),
        CohortStep::Verify => Ok(Task::Verify {}),
        CohortStep::Reopen => Ok(Task::Reopen {}),
        CohortStep::Pending | CohortStep::Soak | CohortStep::Done | CohortStep::RolledBack => {
            Err(format!("step {} has no Job", step.as_str()))
        }
    }
}

/// The work of a check that needs a Job; `None` for checks that the operator measures itself.
pub fn of_check(check: &Check) -> Option<Work> {
    if let Some(sql) = &check.sql {
        let timeout = check.timeout.as_ref().and_then(DurationString::parse);
        return Some(Work::Worker(Task::SqlCheck {
            side: match sql.side {
                ApiSide::Source => Side::Source,
                ApiSide::Target => Side::Target,
            },
            query: sql.query.clone(),
            timeout_seconds: timeout.and_then(|limit| limit.as_secs().clamp(1, 30).try_into().ok()).unwrap_or(10),
        }));
    }
    if check.validation.is_some() {
        return Some(Work::Worker(Task::IntegrityCheck {}));
    }
    check.job.as_ref().map(|_| Work::Container { check: check.name.clone() })
}

fn pairs(checks: &[ApiQueryPair]) -> Vec<QueryPair> {
    checks
        .iter()
        .map(|pair| QueryPair {
            name: pair.name.clone(),
            source: pair.source.clone(),
            target: pair.target.clone(),
            tolerance: pair.tolerance.clone(),
        })
        .collect()
}

fn selection(select: &Select) -> Result<Selection, String> {
    if let Some(percent) = &select.percent {
        let percent = percent_of(percent)?;
        return Ok(Selection::Percent { percent, risk_by: select.risk_by.clone() });
    }
    if let Some(condition) = &select.where_ {
        return Ok(Selection::Where(condition.clone()));
    }
    if let Some(query) = &select.keys_from {
        return Ok(Selection::KeysFrom(query.clone()));
    }
    if select.remainder.is_some() {
        return Ok(Selection::Remainder {});
    }
    Err("spec.select names no customers: set one of percent, where, keysFrom, remainder".to_owned())
}

fn percent_of(percent: &IntOrString) -> Result<f64, String> {
    let number = match percent {
        IntOrString::Int(whole) => f64::from(*whole),
        IntOrString::String(text) => {
            let digits = text.strip_suffix('%').unwrap_or(text);
            digits.parse::<f64>().map_err(|_| format!("spec.select.percent {text:?} is not a percentage"))?
        }
    };
    if number > 0.0 && number <= 100.0 {
        Ok(number)
    } else {
        Err(format!("spec.select.percent must be above 0 and at most 100, not {number}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentage_is_a_whole_number_or_a_string_with_a_sign() {
        assert_eq!(percent_of(&IntOrString::Int(20)), Ok(20.0));
        assert_eq!(percent_of(&IntOrString::String("0.1%".into())), Ok(0.1));
        for bad in [IntOrString::Int(0), IntOrString::Int(101), IntOrString::String("NaN%".into())] {
            assert!(percent_of(&bad).is_err(), "{bad:?}");
        }
    }
}
