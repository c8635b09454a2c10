//! The fencing token: of two attempts of one subject only the newer may change data.
//! Taken first thing by each step that writes, in each database it writes to; every data transaction holds it.
//! Must not be taken twice by one process: a second take would make the first one's transactions fail.

use tokio_postgres::GenericClient;

use super::session::Session;
use crate::worker::error::Error;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    pub subject: String,
    pub attempt: i64,
    holder: String,
}

/// Takes the token unless a newer attempt has it. Waits for a transaction of the old holder in flight.
pub async fn take(session: &Session, subject: &str, attempt: i64) -> Result<Token, Error> {
    let taken = session
        .query_opt(
            "insert into godwit.fencing_token as token (subject, attempt, holder) \
             values ($1, $2, pg_catalog.gen_random_uuid()::text) \
             on conflict (subject) do update set attempt = excluded.attempt, holder = excluded.holder, taken_at = pg_catalog.now() \
             where token.attempt <= excluded.attempt returning holder",
            &[&subject, &attempt],
        )
        .await
        .map_err(Error::database("take the fencing token"))?;
    let row = taken.ok_or_else(|| Error::NewerAttempt { subject: subject.to_owned() })?;
    Ok(Token { subject: subject.to_owned(), attempt, holder: row.get(0) })
}

/// First statement of a data transaction: the token stays ours until its end, or the transaction fails.
///
/// A shared lock, so that lanes of one step work side by side, while a newer attempt waits for all of them.
pub async fn hold(transaction: &impl GenericClient, token: &Token) -> Result<(), Error> {
    let held = transaction
        .query_opt(
            "select 1 from godwit.fencing_token where subject = $1 and attempt = $2 and holder = $3 for share",
            &[&token.subject, &token.attempt, &token.holder],
        )
        .await
        .map_err(Error::database("hold the fencing token"))?;
    held.map(drop).ok_or_else(|| Error::NewerAttempt { subject: token.subject.clone() })
}
