//! The fencing token: of two attempts of one subject only the newer may change data, and of two workers of one attempt only the later.
//! Taken by each step that writes, before it writes any data, in each database; every data transaction holds it.
//! Must not be taken twice by one process: a second take would make the first one's transactions fail.

use tokio_postgres::GenericClient;

use super::session::Session;
use crate::worker::error::Error;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    pub subject: String,
    pub attempt: i64,
    /// Which worker of the attempt, from 1: its Job may run more than one.
    turn: i64,
}

impl Token {
    /// What no other worker of the subject is called: a part of the paths of this one's files.
    pub fn worker(&self) -> String {
        format!("{}-{}", self.attempt, self.turn)
    }
}

/// Takes the token unless a newer attempt has it. Waits for a transaction of the old holder in flight.
pub async fn take(session: &Session, subject: &str, attempt: i64) -> Result<Token, Error> {
    let taken = session
        .query_opt(
            "insert into godwit.fencing_token as token (subject, attempt, turn) values ($1, $2, 1) \
             on conflict (subject) do update set attempt = excluded.attempt, taken_at = pg_catalog.now(), \
               turn = case when token.attempt = excluded.attempt then token.turn + 1 else 1 end \
             where token.attempt <= excluded.attempt returning turn",
            &[&subject, &attempt],
        )
        .await
        .map_err(Error::database("take the fencing token"))?;
    let row = taken.ok_or_else(|| Error::NewerAttempt { subject: subject.to_owned() })?;
    Ok(Token { subject: subject.to_owned(), attempt, turn: row.get(0) })
}

/// Takes in a step's other database what it took in the first, unless a later worker was here before.
///
/// The first database alone says whose turn it is. Were it asked in both, two workers could each lose one of them to the other, and
/// neither would come to its end.
pub async fn follow(session: &Session, first: &Token) -> Result<Token, Error> {
    let followed = session
        .execute(
            "insert into godwit.fencing_token as token (subject, attempt, turn) values ($1, $2, $3) \
             on conflict (subject) do update set attempt = excluded.attempt, turn = excluded.turn, taken_at = pg_catalog.now() \
             where (token.attempt, token.turn) < (excluded.attempt, excluded.turn)",
            &[&first.subject, &first.attempt, &first.turn],
        )
        .await
        .map_err(Error::database("take the other fencing token"))?;
    if followed == 0 {
        return Err(Error::NewerAttempt { subject: first.subject.clone() });
    }
    Ok(first.clone())
}

/// First statement of a data transaction: the token stays ours until its end, or the transaction fails.
///
/// A shared lock, so that lanes of one step work side by side, while a newer attempt waits for all of them.
pub async fn hold(transaction: &impl GenericClient, token: &Token) -> Result<(), Error> {
    let held = transaction
        .query_opt(
            "select 1 from godwit.fencing_token where subject = $1 and attempt = $2 and turn = $3 for share",
            &[&token.subject, &token.attempt, &token.turn],
        )
        .await
        .map_err(Error::database("hold the fencing token"))?;
    held.map(drop).ok_or_else(|| Error::NewerAttempt { subject: token.subject.clone() })
}
