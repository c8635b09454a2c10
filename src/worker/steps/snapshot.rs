//! One snapshot of a database for all reads of a part of a step.
//! Called wherever rows of several tables must belong to the same moment.
//! Must stay short: a snapshot holds back vacuum on the whole server.

use tokio_postgres::{IsolationLevel, Transaction};

use crate::worker::Error;
use crate::worker::postgres::session::Session;

/// Not read-only: keys of differing rows are noted in a temporary table of the same transaction.
pub async fn of(session: &mut Session) -> Result<Transaction<'_>, Error> {
    let attempted = format!("take a snapshot of the {}", session.side());
    session
        .build_transaction()
        .isolation_level(IsolationLevel::RepeatableRead)
        .start()
        .await
        .map_err(Error::database(attempted))
}
