//! The users' query pairs: one number a side, which must agree within a tolerance.
//! Called by Validate and by Cutover inside the pause.
//! Must not let a user's query write or run for ever; what could not be compared is no pass.

use super::cohort::{Cohort, Sides};
use super::reporting::blocker;
use super::user_query::UserQuery;
use crate::contract::{Finding, QueryPair, Side};
use crate::worker::Error;
use crate::worker::error::Fault;
use crate::worker::postgres::session::{Session, side_name};

/// A pair runs inside the pause: whoever waits for it are the customers.
const TIMEOUT_SECONDS: u32 = 30;

/// Code of the finding for a pair whose numbers do not agree.
pub const DIFFERS: &str = "CheckDiffers";

/// Runs every pair; a finding for each that does not agree.
pub async fn compare(cohort: &Cohort<'_>, sides: &mut Sides, pairs: &[QueryPair]) -> Result<Vec<Finding>, Error> {
    let mut findings = Vec::new();
    for pair in pairs {
        let on_source = (Side::Source, pair.source.as_str());
        let on_target = (Side::Target, pair.target.as_str());
        let numbers = futures::try_join!(
            number(cohort, &mut sides.source, on_source, &pair.name),
            number(cohort, &mut sides.target, on_target, &pair.name)
        );
        let (source, target) = match numbers {
            // A pair's refusal is told beside the others', and with the cohort's owner.
            Err(Error::Refused { findings: refused, .. }) => {
                findings.extend(refused);
                continue;
            }
            numbers => numbers?,
        };
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

/// The first column of the first row.
async fn number(
    cohort: &Cohort<'_>,
    session: &mut Session,
    (side, query): (Side, &str),
    name: &str,
) -> Result<Option<String>, Error> {
    let query = UserQuery {
        sql: query,
        attempted: format!("run the check {name} on the {}", side_name(side)),
        object: name,
        cohort: &cohort.identity.name,
        entry: Some(cohort.entry),
        timeout_seconds: TIMEOUT_SECONDS,
        max_rows: 1,
    };
    Ok(query.first_column(session).await?.pop().flatten())
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
