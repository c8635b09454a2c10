//! Discard: the way back before cutover. The copied rows leave the target, the customers are free again.
//! Run by the operator when a cohort is given up before it changed hands.
//! Must refuse a cohort that went over: what the target wrote would be lost without having been set aside.

use std::time::Instant;

use super::cohort::{Cohort, Sides};
use super::removal::{self, Members};
use super::reporting::{blocker, milliseconds};
use super::{fill, resume, select};
use crate::contract::{Owner, Report, ReportResult, exit};
use crate::worker::postgres::ledger;
use crate::worker::{Error, Job};

pub async fn run(job: &Job) -> Result<Report, Error> {
    resume::run(job, attempt).await
}

async fn attempt(job: &Job) -> Result<Report, Error> {
    let started = Instant::now();
    let Some((cohort, mut sides)) = Cohort::find(job).await? else {
        return Ok(nothing_there());
    };
    select::complete_registration(&cohort, &mut sides).await?;
    give_back(&cohort, &mut sides).await?;
    fill::undo(&cohort, &mut sides).await?;
    let removed = removal::remove(&cohort, &mut sides, Members::Release).await?;
    let mut report = cohort.report(&sides, ReportResult::Pass).await?;
    removal::counted(&mut report, removed);
    report.timings.insert("discard".into(), milliseconds(started));
    Ok(report)
}

/// Select ended before it recorded anything: there is nothing to take back.
fn nothing_there() -> Report {
    let mut report = Report::new(ReportResult::Pass);
    report.owner = Some(Owner::Source);
    report.epoch = Some(0);
    report.counts.insert("customers".into(), 0);
    removal::counted(&mut report, 0);
    report
}

/// A cutover that was given up before its decision may have left the fence closed.
async fn give_back(cohort: &Cohort<'_>, sides: &mut Sides) -> Result<(), Error> {
    let mut closed = Vec::new();
    for entry in cohort.entries() {
        if sides.settle(entry).await?.owner == Owner::None {
            closed.push(entry);
        }
    }
    let ownership = ledger::ownership(&*sides.target, cohort.entry).await?;
    if ownership.owner == Owner::Target || cohort.handed_over(sides).await?.is_some() {
        return Err(Error::refused(
            exit::DATA_DIFFERS,
            blocker(
                "CutOverAlready",
                "godwit.ownership",
                "The target was the cohort's owner; it can only go back by Freeze, Return, Verify and Reopen.",
            ),
        ));
    }
    if !closed.is_empty() {
        super::cutover::forget_restore_point(cohort, sides).await?;
    }
    for entry in closed {
        sides.open(entry, Owner::Source).await?;
    }
    Ok(())
}
