//! What came of a demo, out of the objects' status and the search for confirmed writes. Pure.
//! Judged by `promises.rs`, shown by `summary.rs`. Must take Godwit's figures and the users' apart.

use std::collections::BTreeMap;
use std::time::Duration;

use godwit::api::Cohort;
use godwit::api::status::{Evidence, HistoryEntry};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use serde::Serialize;

use super::view::{View, cohort_conditions, find};
use crate::verify::Findings;

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Facts {
    pub elapsed_seconds: u64,
    /// Phase of the Migration.
    pub phase: String,
    pub succeeded: bool,
    pub backup_verified: bool,
    pub backup_rows: Option<i64>,
    pub steps: Vec<StepTime>,
    pub cohorts: Vec<CohortFacts>,
    pub findings: Findings,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CohortFacts {
    pub name: String,
    pub phase: String,
    /// Reason of the condition Succeeded.
    pub outcome: String,
    pub owner: String,
    pub customers: Option<i64>,
    pub rows: Option<i64>,
    /// As the ledger of the cutover has it.
    pub pause_millis: Option<i64>,
    pub steps: Vec<StepTime>,
    pub checks: BTreeMap<String, String>,
    pub rollback_cause: Option<String>,
    /// What the way back counted, by name.
    pub set_aside: BTreeMap<String, i64>,
}

#[derive(Debug, Default, PartialEq, Serialize)]
pub struct StepTime {
    pub step: String,
    pub seconds: f64,
}

impl Facts {
    pub fn new(view: &View, findings: Findings, elapsed: Duration) -> Self {
        let status = view.migration.status.clone().unwrap_or_default();
        let backup = find(&status.conditions, "BackupVerified").is_some_and(|c| c.status == "True");
        Self {
            elapsed_seconds: elapsed.as_secs(),
            phase: status.phase.clone().unwrap_or_default(),
            succeeded: view.succeeded(),
            backup_verified: backup,
            backup_rows: count(&status.evidence, "RestoreTest", "rows").or(count(&status.evidence, "Backup", "rows")),
            steps: step_times(&status.history, status.start_time.as_ref()),
            cohorts: view.cohorts.iter().map(CohortFacts::new).collect(),
            findings,
        }
    }

    pub fn cohort(&self, name: &str) -> Option<&CohortFacts> {
        self.cohorts.iter().find(|cohort| cohort.name == name)
    }
}

impl CohortFacts {
    fn new(cohort: &Cohort) -> Self {
        let status = cohort.status.clone().unwrap_or_default();
        let cutover = status.evidence.iter().find(|evidence| evidence.name == "Cutover");
        let pause = cutover.and_then(|evidence| evidence.millis.iter().find(|millis| millis.name == "pause"));
        let returned = status.evidence.iter().find(|evidence| evidence.name == "Return");
        let set_aside = returned.into_iter().flat_map(|evidence| &evidence.counts);
        let verdicts = status.checks.iter().map(|check| (check.name.clone(), format!("{:?}", check.verdict)));
        Self {
            name: cohort.name_any(),
            phase: status.phase.clone().unwrap_or_default(),
            outcome: find(cohort_conditions(cohort), "Succeeded").map(|c| c.reason.clone()).unwrap_or_default(),
            owner: status.owner.clone().unwrap_or_default(),
            customers: status.customers,
            rows: count(&status.evidence, "Cutover", "rows").or(count(&status.evidence, "Copy", "rows")),
            pause_millis: pause.map(|pause| pause.value),
            steps: step_times(&status.history, status.start_time.as_ref()),
            checks: verdicts.collect(),
            rollback_cause: status.rollback.map(|rollback| rollback.cause),
            set_aside: set_aside.map(|count| (count.name.clone(), count.value)).collect(),
        }
    }
}

fn count(evidence: &[Evidence], name: &str, what: &str) -> Option<i64> {
    let evidence = evidence.iter().find(|evidence| evidence.name == name)?;
    evidence.counts.iter().find(|count| count.name == what).map(|count| count.value)
}

/// How long each step lasted: history says when steps began, the first one with the object's start.
fn step_times(history: &[HistoryEntry], start: Option<&Time>) -> Vec<StepTime> {
    let began = |entry: &HistoryEntry| entry.time.0;
    let first = match (history.first(), start) {
        (Some(first), Some(start)) if start.0 > began(first) => Some(start.0),
        _ => None,
    };
    let pairs = history.iter().zip(history.iter().skip(1));
    pairs
        .enumerate()
        .map(|(index, (entry, next))| {
            let from = first.filter(|_| index == 0).unwrap_or(began(entry));
            StepTime { step: entry.step.clone(), seconds: began(next).duration_since(from).as_secs_f64() }
        })
        .collect()
}
