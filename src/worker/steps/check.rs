//! Measurements: a user's query (`SqlCheck`), and the violations among a cohort's rows (`IntegrityCheck`).
//! Run by the Jobs of gates and triggers; the operator judges the values.
//! Must not change anything, and must not let a user's query do so or run for ever.

use std::time::Instant;

use tokio_postgres::error::SqlState;
use tokio_postgres::{SimpleQueryMessage, Transaction};

use super::reporting::{blocker, milliseconds, signed};
use crate::contract::{Owner, Report, ReportResult, Severity, Side, exit};
use crate::worker::postgres::identifier::quote_literal;
use crate::worker::postgres::{closure, ledger};
use crate::worker::{Error, Job};

/// More values tell the operator nothing and would not fit its report.
const MAX_VALUES: usize = 100;

/// The first column of the query's rows, as numbers; NULL is no value.
pub async fn sql(job: &Job, side: Side, query: &str, timeout_seconds: u32) -> Result<Report, Error> {
    let started = Instant::now();
    let mut session = job.reader(side).await?;
    let failed = || Error::database("run the check's query");
    let transaction = session.build_transaction().read_only(true).start().await.map_err(failed())?;
    let cohort = job.input.cohort.as_ref().map_or("", |cohort| &cohort.name);
    let settings = format!(
        "set local statement_timeout = '{}s'; set local godwit.cohort = {}",
        // 0 would mean no bound.
        timeout_seconds.max(1),
        quote_literal(cohort)
    );
    transaction.batch_execute(&settings).await.map_err(failed())?;
    let texts = first_column(&transaction, query).await.map_err(refused_write)?;
    // Never committed: whatever the query opened or locked ends here.
    transaction.rollback().await.map_err(failed())?;
    let mut report = Report::new(ReportResult::Pass);
    for text in texts.iter().flatten() {
        report.values.push(number(text)?);
    }
    report.counts.insert("rows".into(), signed(texts.len() as u64));
    report.timings.insert("query".into(), milliseconds(started));
    Ok(report)
}

/// A function in the query may try to write, which the server refuses: no repetition makes that better.
fn refused_write(error: tokio_postgres::Error) -> Error {
    if error.code() != Some(&SqlState::READ_ONLY_SQL_TRANSACTION) {
        return Error::database("run the check's query")(error);
    }
    let told = "The check's query writes, by a function that it calls, and a check may only read; ask for the value without that function.";
    Error::refused(exit::MISCONFIGURED, blocker("CheckWrites", "spec.checks", told))
}

async fn first_column(
    transaction: &Transaction<'_>,
    query: &str,
) -> Result<Vec<Option<String>>, tokio_postgres::Error> {
    // Prepared first: the extended protocol takes one statement only, so no COMMIT can follow a semicolon.
    transaction.prepare(query).await?;
    let query = query.trim_end().trim_end_matches(';');
    let bounded = format!("select * from ({query}\n) as answer limit {MAX_VALUES}");
    let messages = transaction.simple_query(&bounded).await?;
    Ok(messages
        .iter()
        .filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row.try_get(0).ok().flatten().map(ToOwned::to_owned)),
            _ => None,
        })
        .collect())
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
