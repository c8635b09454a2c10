//! Freeze: the first step of the way back. The target stops writing the cohort.
//! Run by the operator when a cohort that was cut over, or whose cutover failed, has to go back.
//! Must leave a cohort alone that never changed hands: its source goes on writing.

use std::time::Instant;

use serde_json::json;

use super::cohort::Cohort;
use super::reporting::milliseconds;
use super::resume;
use crate::contract::{Owner, Report, ReportResult};
use crate::worker::{Error, Job};

pub async fn run(job: &Job) -> Result<Report, Error> {
    resume::run(job, attempt).await
}

async fn attempt(job: &Job) -> Result<Report, Error> {
    let started = Instant::now();
    let (cohort, mut sides) = Cohort::open(job).await?;
    let mut frozen = 0;
    for entry in cohort.entries() {
        if sides.settle(entry).await?.owner == Owner::Target {
            sides.close(entry).await?;
            frozen += 1;
        }
    }
    if frozen > 0 {
        let detail = json!({"entries": frozen});
        cohort.note(&sides, "frozen", detail).await?;
    }
    let mut report = cohort.report(&sides, ReportResult::Pass).await?;
    report.counts.insert("entriesFrozen".into(), frozen);
    report.timings.insert("freeze".into(), milliseconds(started));
    Ok(report)
}
