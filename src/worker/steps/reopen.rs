//! Reopen: the source is the cohort's owner again, and then the target's rows go.
//! Run by the operator after Verify; the last step of the way back.
//! Must open first and clean up afterwards: customers wait for the one, nobody for the other.

use std::time::Instant;

use serde_json::json;

use super::cohort::{Cohort, Sides};
use super::removal::{self, Members};
use super::reporting::{blocker, milliseconds, signed};
use super::{references, resume};
use crate::contract::{Owner, Report, ReportResult, exit};
use crate::worker::{Error, Job};

pub async fn run(job: &Job) -> Result<Report, Error> {
    resume::run(job, attempt).await
}

async fn attempt(job: &Job) -> Result<Report, Error> {
    let started = Instant::now();
    let (cohort, mut sides) = Cohort::open(job).await?;
    open(&cohort, &mut sides).await?;
    let opened = milliseconds(started);
    let removed = removal::remove(&cohort, &mut sides, Members::Keep).await?;
    // Last: a shared row of the target's that the cohort's rows there used is used no more.
    let shared = references::bring(&cohort, &mut sides, None).await?;
    let mut report = cohort.report(&sides, ReportResult::Pass).await?;
    removal::counted(&mut report, removed);
    let difference = signed(shared.counts.total());
    report.counts.insert("referenceDifference".into(), difference);
    report.timings.insert("open".into(), opened);
    report.timings.insert("reopen".into(), milliseconds(started));
    Ok(report)
}

async fn open(cohort: &Cohort<'_>, sides: &mut Sides) -> Result<(), Error> {
    for entry in cohort.entries() {
        match sides.settle(entry).await?.owner {
            Owner::Source => {}
            Owner::None => {
                sides.open(entry, Owner::Source).await?;
                let detail = json!({"entry": entry, "owner": "Source"});
                cohort.note(sides, "reopened", detail).await?;
            }
            Owner::Target => {
                return Err(Error::refused(
                    exit::DATA_DIFFERS,
                    blocker(
                        "NotFrozen",
                        "godwit.ownership",
                        "The target is still the owner; Freeze, Return and Verify come first.",
                    ),
                ));
            }
        }
    }
    Ok(())
}
