//! Measurements: a user's query (`SqlCheck`), and the violations among a cohort's rows (`IntegrityCheck`).
//! Run by the Jobs of gates and triggers; the operator judges the values.
//! Must not change anything, and must not let a user's query do so or run for ever.

use std::time::Instant;

use super::reporting::{milliseconds, signed};
use super::user_query::UserQuery;
use crate::contract::{Identity, Owner, Report, ReportResult, Severity, Side};
use crate::worker::postgres::session::Session;
use crate::worker::postgres::{closure, ledger};
use crate::worker::{Error, Job};

/// More values tell the operator nothing and would not fit its report.
const MAX_VALUES: usize = 100;

/// The first column of the query's rows, as numbers; NULL is no value.
pub async fn sql(job: &Job, side: Side, query: &str, timeout_seconds: u32) -> Result<Report, Error> {
    let started = Instant::now();
    let mut session = job.reader(side).await?;
    let identity = job.input.cohort.as_ref();
    let query = UserQuery {
        sql: query,
        attempted: "run the check's query".into(),
        object: "spec.checks",
        cohort: identity.map_or("", |cohort| &cohort.name),
        entry: entry_of(&session, identity).await?,
        timeout_seconds,
        max_rows: MAX_VALUES,
    };
    let texts = query.first_column(&mut session).await?;
    let mut report = Report::new(ReportResult::Pass);
    for text in texts.iter().flatten() {
        report.values.push(number(text)?);
    }
    report.counts.insert("rows".into(), signed(texts.len() as u64));
    report.timings.insert("query".into(), milliseconds(started));
    Ok(report)
}

/// A gate may ask before Prepare made the ledger, and before Select entered the cohort.
async fn entry_of(session: &Session, cohort: Option<&Identity>) -> Result<Option<i32>, Error> {
    match cohort {
        Some(cohort) if ledger::exists(session).await? => {
            Ok(ledger::cohort(&**session, cohort).await?.map(|ownership| ownership.entry))
        }
        _ => Ok(None),
    }
}

/// Not told which text it was: it may be a customer's.
fn number(text: &str) -> Result<f64, Error> {
    let number = match text {
        "t" => Some(1.0),
        "f" => Some(0.0),
        text => text.parse::<f64>().ok().filter(|number| number.is_finite()),
    };
    number.ok_or_else(|| Error::Input { reason: "the first column of the check's query is not a number".into() })
}

/// How many rows of the cohort break a reference or a deferrable unique constraint on the side that owns them.
pub async fn integrity(job: &Job) -> Result<Report, Error> {
    let started = Instant::now();
    let identity = job.cohort()?;
    let target = job.target().await?;
    ledger::require(&target, &job.input.migration).await?;
    let ownership = ledger::require_cohort(&*target, identity).await?;
    let mut session = match ownership.owner {
        Owner::Source => job.source().await?,
        Owner::Target => target,
        Owner::None => {
            return Err(Error::LockNotGranted { what: format!("cohort {}, which is switching sides", identity.name) });
        }
    };
    let (catalog, scope) = job.scope(&session).await?;
    let transaction = session.transaction().await.map_err(Error::database("begin the integrity check"))?;
    let violations = closure::of_entry(&transaction, (&scope, &catalog), ownership.entry, None).await?;
    // Locks that a landing would need are given back; nothing was written.
    transaction.rollback().await.map_err(Error::database("end the integrity check"))?;
    let rows: u64 = violations.iter().map(|violation| violation.rows).sum();
    let mut report = Report::new(ReportResult::Pass);
    #[expect(clippy::cast_precision_loss, reason = "a count of violations far below 2^52")]
    report.values.push(rows as f64);
    report.counts.insert("violations".into(), signed(rows));
    // The operator's trigger judges; as findings of a measurement they only inform.
    report.findings = violations
        .iter()
        .map(|violation| crate::contract::Finding { severity: Severity::Warning, ..violation.finding() })
        .collect();
    report.owner = Some(ownership.owner);
    report.epoch = Some(ownership.epoch);
    report.timings.insert("integrity".into(), milliseconds(started));
    Ok(report)
}
