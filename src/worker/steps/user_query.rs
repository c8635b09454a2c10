//! A user's query, run where it can neither write, nor leave its transaction, nor run for ever.
//! Used by `check` for gates and triggers, and by `pairs` for Validate and Cutover.
//! Must not tell what it read but as its answer.

use tokio_postgres::error::SqlState;
use tokio_postgres::{SimpleQueryMessage, Transaction};

use super::reporting::blocker;
use crate::contract::exit;
use crate::worker::Error;
use crate::worker::postgres::identifier::quote_literal;
use crate::worker::postgres::session::Session;

pub struct UserQuery<'a> {
    pub sql: &'a str,
    /// Completes "failed to …".
    pub attempted: String,
    /// What a finding about it names.
    pub object: &'a str,
    /// What it may ask for as `godwit.cohort`; empty for the migration's own.
    pub cohort: &'a str,
    /// As `godwit.entry`, where the ledger knows the cohort.
    pub entry: Option<i32>,
    pub timeout_seconds: u32,
    pub max_rows: usize,
}

impl UserQuery<'_> {
    /// The first column of the first rows, as text: an exact decimal must not pass through a float.
    pub async fn first_column(&self, session: &mut Session) -> Result<Vec<Option<String>>, Error> {
        let failed = || Error::database(self.attempted.clone());
        let transaction = session.build_transaction().read_only(true).start().await.map_err(failed())?;
        transaction.batch_execute(&self.settings()).await.map_err(failed())?;
        let texts = self.ask(&transaction).await.map_err(|error| self.refused_write(error))?;
        // Never committed: whatever the query opened or locked ends here.
        transaction.rollback().await.map_err(failed())?;
        Ok(texts)
    }

    fn settings(&self) -> String {
        let entry = self.entry.map_or_else(String::new, |entry| format!("; set local godwit.entry = '{entry}'"));
        format!(
            "set local statement_timeout = '{}s'; set local godwit.cohort = {}{entry}",
            // 0 would mean no bound.
            self.timeout_seconds.max(1),
            quote_literal(self.cohort)
        )
    }

    async fn ask(&self, transaction: &Transaction<'_>) -> Result<Vec<Option<String>>, tokio_postgres::Error> {
        // Prepared first: the extended protocol takes one statement only, so no COMMIT can follow a semicolon.
        transaction.prepare(self.sql).await?;
        let query = self.sql.trim_end().trim_end_matches(';');
        let bounded = format!("select * from ({query}\n) as answer limit {}", self.max_rows);
        let messages = transaction.simple_query(&bounded).await?;
        Ok(messages
            .iter()
            .filter_map(|message| match message {
                SimpleQueryMessage::Row(row) => Some(row.try_get(0).ok().flatten().map(ToOwned::to_owned)),
                _ => None,
            })
            .collect())
    }

    /// A function in the query may try to write, which the server refuses: no repetition makes that better.
    fn refused_write(&self, error: tokio_postgres::Error) -> Error {
        if error.code() != Some(&SqlState::READ_ONLY_SQL_TRANSACTION) {
            return Error::database(self.attempted.clone())(error);
        }
        let told = "The check's query writes, by a function that it calls, and a check may only read; ask for the value without that function.";
        Error::refused(exit::MISCONFIGURED, blocker("CheckWrites", self.object, told))
    }
}
