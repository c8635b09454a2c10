//! The users' query pairs: one number a side, which must agree within a tolerance.
//! Called by Validate and by Cutover inside the pause.
//! Must not let a user's query write or run for ever; what could not be compared is no pass.

use tokio_postgres::{SimpleQueryMessage, Transaction};

use super::cohort::{Cohort, Sides};
use super::reporting::blocker;
use crate::contract::{Finding, QueryPair, Side};
use crate::worker::Error;
use crate::worker::error::Fault;
use crate::worker::postgres::identifier::quote_literal;
use crate::worker::postgres::session::{Session, side_name};

/// A pair runs inside the pause: whoever waits for it are the customers.
const TIMEOUT: &str = "30s";

/// Code of the finding for a pair whose numbers do not agree.
pub const DIFFERS: &str = "CheckDiffers";

/// Runs every pair; a finding for each that does not agree.
pub async fn compare(cohort: &Cohort<'_>, sides: &mut Sides, pairs: &[QueryPair]) -> Result<Vec<Finding>, Error> {
    let mut findings = Vec::new();
    for pair in pairs {
        let on_source = (Side::Source, pair.source.as_str());
        let on_target = (Side::Target, pair.target.as_str());
        let (source, target) = futures::try_join!(
            number(cohort, &mut sides.source, on_source, &pair.name),
            number(cohort, &mut sides.target, on_target, &pair.name)
        )?;
        let (Some(source), Some(target)) = (source, target) else {
            findings.push(blocker(
                "CheckWithoutNumber",
                &pair.name,
                "A query of the check returned no row or NULL, so nothing was compared; let it return a number, with coalesce where \
                 there may be no rows.",
            ));
            continue;
        };
        if !agree(&sides.target, (&source, &target), pair).await? {
            findings.push(blocker(DIFFERS, &pair.name, "The two sides differ by more than the tolerance."));
        }
    }
    Ok(findings)
}

/// The first column of the first row, as text: an exact decimal must not pass through a float.
async fn number(
    cohort: &Cohort<'_>,
    session: &mut Session,
    (side, query): (Side, &str),
    name: &str,
) -> Result<Option<String>, Error> {
    let attempted = || format!("run the check {name} on the {}", side_name(side));
    let transaction =
        session.build_transaction().read_only(true).start().await.map_err(Error::database(attempted()))?;
    let settings = format!(
        "set local statement_timeout = '{TIMEOUT}'; set local godwit.cohort = {}; set local godwit.entry = {}",
        quote_literal(&cohort.identity.name),
        quote_literal(&cohort.entry.to_string())
    );
    transaction.batch_execute(&settings).await.map_err(Error::database(attempted()))?;
    let answer = first_value(&transaction, query).await.map_err(Error::database(attempted()))?;
    // Never committed: whatever the query opened or locked ends here.
    transaction.rollback().await.map_err(Error::database(attempted()))?;
    Ok(answer)
}

async fn first_value(transaction: &Transaction<'_>, query: &str) -> Result<Option<String>, tokio_postgres::Error> {
    // Prepared first: the extended protocol takes one statement only, so no COMMIT can follow a semicolon.
    transaction.prepare(query).await?;
    let wrapped = format!("select * from ({}\n) as answer limit 1", query.trim_end().trim_end_matches(';'));
    for message in transaction.simple_query(&wrapped).await? {
        if let SimpleQueryMessage::Row(row) = message {
            return Ok(row.get(0).map(ToOwned::to_owned));
        }
    }
    Ok(None)
}

async fn agree(session: &Session, (source, target): (&str, &str), pair: &QueryPair) -> Result<bool, Error> {
    session
        .query_one(
            "select pg_catalog.abs($1::text::numeric - $2::text::numeric) <= $3::text::numeric",
            &[&source, &target, &pair.tolerance],
        )
        .await
        .and_then(|row| row.try_get(0))
        .map_err(|error| Error::Input {
            reason: format!("the check {} cannot be compared as decimal numbers: {}", pair.name, Fault::from(error)),
        })
}
