//! Cleanup: the migration is deleted; fences and ledgers go from both databases, split sequences are joined.
//! Run by the finalizer's plan, whatever state the migration is in.
//! Must not touch a customer's row, must not need a valid dataset, and must tolerate everything half done or absent.

use std::time::Instant;

use super::ending;
use super::reporting::{finding, milliseconds, signed};
use crate::contract::{Finding, Report, ReportResult, Severity, Side};
use crate::worker::postgres::bare;
use crate::worker::postgres::session::Session;
use crate::worker::{Error, Job};

pub async fn run(job: &Job) -> Result<Report, Error> {
    let started = Instant::now();
    let mut report = Report::new(ReportResult::Pass);
    // One side's trouble must not keep the other one fenced: each is left as far as it goes, and the first error is the answer.
    let (mut source, source_error) = ours(job, Side::Source, &mut report.findings).await;
    let (mut target, target_error) = ours(job, Side::Target, &mut report.findings).await;
    let joined = ending::join_sequences(source.as_mut(), target.as_mut(), job.subject()).await;
    let mut left = 0;
    let mut first_error = source_error.or(target_error);
    for session in [&mut source, &mut target].into_iter().flatten() {
        match ending::leave(session).await {
            Ok(()) => left += 1,
            Err(error) => first_error = first_error.or(Some(error)),
        }
        job.progress.advance(1);
    }
    if let Some(error) = first_error {
        return Err(error);
    }
    report.counts.insert("databasesLeft".into(), left);
    report.counts.insert("sequencesJoined".into(), signed(joined?));
    report.timings.insert("cleanup".into(), milliseconds(started));
    Ok(report)
}

/// A session on a side where this migration has something to leave.
async fn ours(job: &Job, side: Side, notes: &mut Vec<Finding>) -> (Option<Session>, Option<Error>) {
    match open(job, side, notes).await {
        Ok(session) => (session, None),
        Err(Error::ForeignLedger { side, owner }) => {
            notes.push(finding(
                Severity::Info,
                "ForeignLedger",
                side,
                format!("The ledger there belongs to another migration, {owner}, and is left alone."),
            ));
            (None, None)
        }
        Err(error) => (None, Some(error)),
    }
}

async fn open(job: &Job, side: Side, notes: &mut Vec<Finding>) -> Result<Option<Session>, Error> {
    let mut session = match side {
        Side::Source => job.source().await?,
        Side::Target => job.target().await?,
    };
    if !ending::has_ledger(&session, &job.input.migration).await? {
        return Ok(None);
    }
    let token = ending::take_over(&session, job.subject(), job.input.attempt).await?;
    // A copy that was under way may have laid tables bare; its rows stay, so some of it may not come back.
    for waiting in bare::put_back(&mut session, &token).await? {
        notes.push(finding(
            Severity::Warning,
            "ConstraintNotRebuilt",
            &waiting.table,
            format!(
                "{} could not be built over the rows that an unfinished copy left; remove those rows, then: {}",
                waiting.name, waiting.create
            ),
        ));
    }
    Ok(Some(session))
}
