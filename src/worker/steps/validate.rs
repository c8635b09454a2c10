//! Validate: proves that the target holds what was copied, that its references hold, and that the users' checks agree.
//! Run by the operator after Copy, and again whenever evidence is too old.
//! Must read both sides anew by other code than Copy's, and must change nothing.

use std::collections::BTreeMap;
use std::time::Instant;

use super::cohort::{Cohort, NEWBORN_CHUNK, Sides, TOTAL_PART, merge_sum};
use super::copy::{chunks, finished};
use super::evidence::Evidence;
use super::reporting::{blocker, milliseconds, signed};
use super::{audit, pairs, resume, snapshot};
use crate::contract::{Finding, Owner, QueryPair, Report, ReportResult, Severity, exit};
use crate::worker::postgres::difference::Brought;
use crate::worker::postgres::keys::{Counts, KeyTable};
use crate::worker::postgres::ledger;
use crate::worker::postgres::model::entry;
use crate::worker::postgres::row::Sum;
use crate::worker::postgres::sides::{Portion, Sides as Compared};
use crate::worker::postgres::{closure, soundness};
use crate::worker::storage;
use crate::worker::{Error, Job};

pub async fn run(job: &Job, checks: &[QueryPair]) -> Result<Report, Error> {
    resume::run(job, async |job: &Job| attempt(job, checks).await).await
}

async fn attempt(job: &Job, checks: &[QueryPair]) -> Result<Report, Error> {
    let (cohort, mut sides) = Cohort::open(job).await?;
    judge(&cohort, &mut sides, checks).await
}

/// Everything but the opening of the sessions: reads both sides anew each time, the catalogues as they were when the cohort was opened.
pub async fn judge(cohort: &Cohort<'_>, sides: &mut Sides, checks: &[QueryPair]) -> Result<Report, Error> {
    let started = Instant::now();
    let expected = expected(cohort, sides).await?;
    let mut evidence = Evidence::new(cohort.job, &sides.target_token);
    let mut findings = soundness::missing_constraints(&cohort.scope, &cohort.source_catalog, &cohort.target_catalog);
    findings.extend(cohort.keys_about_to_meet(sides).await?);
    let rows = rows(cohort, sides, &expected, &mut evidence).await?;
    findings.extend(rows.findings);
    findings.extend(references(cohort, sides, &mut evidence).await?);
    findings.extend(left_behind(cohort, sides).await?);
    findings.extend(pairs_on_a_moving_source(cohort, sides, checks, (&expected, &rows.drift)).await?);
    let blockers = findings.iter().filter(|finding| finding.severity == Severity::Blocker).count();
    let result = if blockers == 0 { ReportResult::Pass } else { ReportResult::Fail };
    let mut report = cohort.report(sides, result).await?;
    report.digest = Some(digest_of(&expected)?);
    evidence.finish(&mut report).await?;
    for (name, count) in [
        ("rows", expected.values().map(|sum| sum.rows).sum()),
        ("tables", expected.len() as u64),
        ("checks", checks.len() as u64),
        ("differences", blockers as u64),
        // What the source wrote since the copy: expected while it keeps moving, and brought by Cutover.
        ("drift", rows.drift.total()),
    ] {
        report.counts.insert(name.into(), signed(count));
    }
    report.findings = findings;
    report.timings.insert("validate".into(), milliseconds(started));
    Ok(report)
}

/// A pair that differs while the source has moved on since the copy says nothing yet: Cutover compares again with the
/// writes stopped. Where the source has not moved, the difference is real and is found before anybody has to pause.
async fn pairs_on_a_moving_source(
    cohort: &Cohort<'_>,
    sides: &mut Sides,
    checks: &[QueryPair],
    (expected, drift): (&BTreeMap<String, Sum>, &Counts),
) -> Result<Vec<Finding>, Error> {
    let mut findings = pairs::compare(cohort, sides, checks).await?;
    if !findings.iter().any(|finding| finding.code == pairs::DIFFERS) {
        return Ok(findings);
    }
    // A write may have come between the rows and the pairs: what drifted is asked again.
    let mut evidence = Evidence::new(cohort.job, &sides.target_token);
    let moved = drift.total() > 0 || rows(cohort, sides, expected, &mut evidence).await?.drift.total() > 0;
    for finding in findings.iter_mut().filter(|finding| moved && finding.code == pairs::DIFFERS) {
        finding.severity = Severity::Warning;
        finding.message =
            "The two sides differ while the source keeps moving; Cutover compares again with writes stopped.".into();
    }
    Ok(findings)
}

fn digest_of(expected: &BTreeMap<String, Sum>) -> Result<String, Error> {
    let text = serde_json::to_vec(expected).map_err(|source| Error::Json { what: "the sums of the tables", source })?;
    Ok(storage::digest(&text))
}

/// What landed, by table: the sums of all chunks, or of the last difference brought, which covers them all.
///
/// A cohort that is not copied whole is refused: Cutover would have to bring it inside the pause.
pub async fn expected(cohort: &Cohort<'_>, sides: &Sides) -> Result<BTreeMap<String, Sum>, Error> {
    let key = (cohort.subject(), "copy", TOTAL_PART);
    if let Some(state) = ledger::checkpoint(&*sides.target, key).await? {
        let brought: Brought =
            serde_json::from_value(state).map_err(|source| Error::Json { what: "the sums of the cohort", source })?;
        return Ok(brought.tables);
    }
    let landed = finished(cohort, sides).await?;
    if let Some(chunk) =
        chunks(cohort, sides).await?.iter().find(|chunk| **chunk != NEWBORN_CHUNK && !landed.contains_key(*chunk))
    {
        return Err(Error::NotInLedger { what: format!("a copy of chunk {chunk}; Copy comes first") });
    }
    let mut sums = BTreeMap::new();
    for owned in &cohort.scope.owned {
        sums.insert(owned.table.name.to_string(), Sum::default());
    }
    for (table, sum) in landed.into_values().flat_map(|chunk| chunk.tables) {
        merge_sum(&mut sums, table, sum);
    }
    Ok(sums)
}

#[derive(Default)]
struct RowsCompared {
    findings: Vec<Finding>,
    drift: Counts,
}

/// Both sides read at once: the target against what landed (strict), the source against the target (drift).
async fn rows(
    cohort: &Cohort<'_>,
    sides: &mut Sides,
    expected: &BTreeMap<String, Sum>,
    evidence: &mut Evidence<'_>,
) -> Result<RowsCompared, Error> {
    let source = snapshot::of(&mut sides.source).await?;
    let target = snapshot::of(&mut sides.target).await?;
    let mut compared = Compared::of_entry((&source, &target), &cohort.scope, cohort.entry).await?;
    let mut outcome = RowsCompared::default();
    for (number, portion) in Portion::of_entry(&cohort.scope, cohort.entry).iter().enumerate() {
        let digests = compared.compare(portion, None).await?;
        let copied = digests.1.total();
        cohort.job.progress.advance(copied.rows);
        let differs = expected.get(&portion.name()) != Some(&copied);
        if digests.0.agrees_with(&digests.1) && !differs {
            continue;
        }
        let keys = KeyTable::create(&target, portion.table, portion.shape, number).await?;
        let counts = compared.note(portion, &digests, &[(&target, &keys)]).await?;
        if differs {
            evidence.keys(&target, &keys).await?;
            outcome.findings.push(blocker(
                "RowsDiffer",
                &portion.name(),
                format!(
                    "The target does not hold the rows that were copied; the evidence file lists the {} keys that differ from the source.",
                    counts.total()
                ),
            ));
        } else {
            outcome.drift.merge(counts);
        }
    }
    Ok(outcome)
}

/// Closure of the cohort's rows and of whole tables, checks, constraints out of force, sequences behind, the fences.
async fn references(
    cohort: &Cohort<'_>,
    sides: &mut Sides,
    evidence: &mut Evidence<'_>,
) -> Result<Vec<Finding>, Error> {
    let target = snapshot::of(&mut sides.target).await?;
    let catalogue = (&cohort.scope, &cohort.target_catalog);
    let mut violations = closure::of_entry(&target, catalogue, cohort.entry, None).await?;
    violations.extend(closure::of_whole_tables(&target, catalogue).await?);
    violations.extend(closure::of_checks(&target, catalogue, cohort.entry).await?);
    if ledger::ownership(&target, entry::UNASSIGNED).await?.owner == Owner::Source {
        violations.extend(closure::of_nobody(&target, &cohort.scope).await?);
    }
    let mut findings = Vec::new();
    for violation in &violations {
        evidence.violation(&target, violation).await?;
        let finding = violation.finding();
        if !findings.contains(&finding) {
            findings.push(finding);
        }
    }
    let source = &cohort.source_catalog;
    findings.extend(soundness::out_of_force(&target, (&cohort.scope, source)).await?);
    findings.extend(soundness::sequences_behind(&target, catalogue, source).await?);
    findings.extend(soundness::fence_down(&target, catalogue, "target").await?);
    findings.extend(soundness::fence_down(&*sides.source, (&cohort.scope, source), "source").await?);
    Ok(findings)
}

/// Rows of the source that go with no cohort. Assess found none, but an application may take a row from its customer at any time,
/// and after the remainder nobody comes for it.
pub async fn left_behind(cohort: &Cohort<'_>, sides: &mut Sides) -> Result<Vec<Finding>, Error> {
    if !cohort.remainder {
        return Ok(Vec::new());
    }
    let source = snapshot::of(&mut sides.source).await?;
    audit::unowned(&source, &cohort.scope).await
}

/// Ends a step with what was found, if anything was.
pub fn refuse(findings: Vec<Finding>) -> Result<(), Error> {
    if findings.is_empty() {
        return Ok(());
    }
    Err(Error::Refused { exit: exit::DATA_DIFFERS, findings })
}
