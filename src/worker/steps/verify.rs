//! Verify: proves that the source holds the cohort's rows as they were at cutover, before it serves them again.
//! Run by the operator after Return.
//! Must read the source anew and change nothing.

use std::time::Instant;

use super::cohort::{Cohort, RestoreState, Sides};
use super::evidence::Evidence;
use super::reporting::{blocker, milliseconds, signed};
use super::return_::portions;
use super::{resume, snapshot};
use crate::contract::{Finding, Report, ReportResult};
use crate::worker::postgres::closure;
use crate::worker::postgres::keys::KeyTable;
use crate::worker::postgres::restore_point::Manifest;
use crate::worker::postgres::sides::{Origin, Sides as Compared};
use crate::worker::{Error, Job};

pub async fn run(job: &Job) -> Result<Report, Error> {
    resume::run(job, attempt).await
}

async fn attempt(job: &Job) -> Result<Report, Error> {
    let started = Instant::now();
    let (cohort, mut sides) = Cohort::open(job).await?;
    let mut evidence = Evidence::new(job, &sides.target_token);
    let mut findings = Vec::new();
    let mut rows = 0;
    let handed_over = cohort.handed_over(&sides).await?;
    if let Some(state) = &handed_over {
        rows = compare(&cohort, &mut sides, state, (&mut evidence, &mut findings)).await?;
    }
    findings.extend(references(&cohort, &mut sides, &mut evidence).await?);
    let result = if findings.is_empty() { ReportResult::Pass } else { ReportResult::Fail };
    let mut report = cohort.report(&sides, result).await?;
    report.digest = handed_over.map(|state| state.manifest.digest);
    evidence.finish(&mut report).await?;
    report.counts.insert("rows".into(), signed(rows));
    report.counts.insert("differences".into(), signed(findings.len() as u64));
    report.findings = findings;
    report.timings.insert("verify".into(), milliseconds(started));
    Ok(report)
}

/// The source against the restore point, row by row; returns how many rows agree or not.
async fn compare(
    cohort: &Cohort<'_>,
    sides: &mut Sides,
    state: &RestoreState,
    (evidence, findings): (&mut Evidence<'_>, &mut Vec<Finding>),
) -> Result<u64, Error> {
    let storage = cohort.job.storage()?;
    let manifest = Manifest::load(&storage, &state.manifest).await?;
    let source = snapshot::of(&mut sides.source).await?;
    let copy = Origin::of_entry(&source, &cohort.scope, cohort.entry).await?;
    let mut compared = Compared { original: manifest.origin(&storage), copy };
    let mut rows = 0;
    for (number, portion) in portions(cohort, &manifest).iter().enumerate() {
        let digests = compared.compare(portion, None).await?;
        let found = digests.1.total();
        rows += found.rows;
        cohort.job.progress.advance(found.rows);
        let recorded = manifest.table(&portion.name()).map(|table| table.sum);
        if digests.0.agrees_with(&digests.1) && recorded == Some(found) {
            continue;
        }
        let keys = KeyTable::create(&source, portion.table, portion.shape, number).await?;
        let counts = compared.note(portion, &digests, &[(&source, &keys)]).await?;
        evidence.keys(&source, &keys).await?;
        findings.push(blocker(
            "RowsDiffer",
            &portion.name(),
            format!(
                "{} rows of the source are not as they were at cutover; the evidence file lists their keys.",
                counts.total()
            ),
        ));
    }
    Ok(rows)
}

async fn references(
    cohort: &Cohort<'_>,
    sides: &mut Sides,
    evidence: &mut Evidence<'_>,
) -> Result<Vec<Finding>, Error> {
    let source = snapshot::of(&mut sides.source).await?;
    let catalogue = (&cohort.scope, &cohort.source_catalog);
    let violations = closure::of_entry(&source, catalogue, cohort.entry, None).await?;
    for violation in &violations {
        evidence.violation(&source, violation).await?;
    }
    Ok(violations.iter().map(closure::Violation::finding).collect())
}
