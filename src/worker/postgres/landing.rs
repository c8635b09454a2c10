//! A landing: one transaction on the receiving side that holds data, checkpoint and fencing token together.
//! Called by every step that writes customers' rows; the caller proves closure before it commits.
//! Must not fire a trigger of the users, and must not write past the fence without the pass of the entry's epoch.

use std::ops::Deref;

use bytes::Bytes;
use tokio_postgres::error::SqlState;
use tokio_postgres::{CopyInSink, IsolationLevel, Transaction};

use super::bare;
use super::fence;
use super::fence_sql::LOCK_CLASS;
use super::identifier::{TableName, quote_identifier, quote_literal};
use super::ledger::Ownership;
use super::model::{Identity, Table};
use super::relay::{Rows, Shape, relay};
use super::row::Sum;
use super::session::Session;
use super::token::{self, Token};
use crate::worker::error::Error;

/// The advisory lock of the landing that brings shared rows; entries are never negative, -1 is the fence's, -2 and -3 are `bare`'s.
const SHARED_ROWS: i32 = -4;
/// How long a landing waits for another one that reads and brings the same tables.
const PATIENCE: &str = "60s";

/// An open landing; dropped without [`Landing::commit`] it never happened.
pub struct Landing<'s> {
    transaction: Transaction<'s>,
}

impl<'s> Deref for Landing<'s> {
    type Target = Transaction<'s>;

    fn deref(&self) -> &Self::Target {
        &self.transaction
    }
}

impl<'s> Landing<'s> {
    /// Begins and takes hold of the token: a newer attempt waits for this landing's end, an older one fails here.
    pub async fn begin(session: &'s mut Session, token: &Token) -> Result<Self, Error> {
        Self::start(session, token, IsolationLevel::ReadCommitted).await
    }

    /// The same, with one snapshot for all its reads.
    pub async fn begin_in_snapshot(session: &'s mut Session, token: &Token) -> Result<Self, Error> {
        Self::start(session, token, IsolationLevel::RepeatableRead).await
    }

    async fn start(session: &'s mut Session, token: &Token, isolation: IsolationLevel) -> Result<Self, Error> {
        let transaction = session
            .build_transaction()
            .isolation_level(isolation)
            .start()
            .await
            .map_err(Error::database("begin a landing"))?;
        token::hold(&transaction, token).await?;
        // Switches off foreign-key checks, cascades and the users' triggers, for this transaction only.
        let among = bare::among_landings();
        transaction
            .batch_execute(&format!("{among}; set local session_replication_role = replica"))
            .await
            .map_err(Error::database("switch off the users' triggers for a landing"))?;
        bare::refuse_while_bare(&transaction, &token.subject).await?;
        Ok(Self { transaction })
    }

    /// From here on the landing writes rows of this entry; the fence compares the epoch.
    pub async fn pass(&self, ownership: &Ownership) -> Result<(), Error> {
        fence::pass(&self.transaction, ownership.entry, ownership.epoch).await
    }

    /// Shared rows are everybody's: one landing after the other brings them, or two would land the same new row twice.
    pub async fn take_turn(&self) -> Result<(), Error> {
        let failed = || Error::database("wait for another landing that brings shared rows");
        let row = self.query_one("select pg_catalog.current_setting('lock_timeout')", &[]).await.map_err(failed())?;
        let wait = format!(
            "set local lock_timeout = '{PATIENCE}'; select pg_catalog.pg_advisory_xact_lock({LOCK_CLASS}, {SHARED_ROWS}); \
             set local lock_timeout = {}",
            quote_literal(row.get(0))
        );
        self.batch_execute(&wait).await.map_err(failed())
    }

    /// Lands rows as they come.
    pub async fn receive(&self, rows: &mut Rows, (table, shape): (&Table, Shape)) -> Result<Sum, Error> {
        self.receive_into(&table.name.sql(), rows, (table, shape)).await
    }

    /// Opens a table for rows as they come.
    pub async fn open(&self, (table, shape): (&Table, Shape)) -> Result<CopyInSink<Bytes>, Error> {
        self.open_relation(&table.name.sql(), (table, shape)).await
    }

    async fn open_relation(&self, relation: &str, (table, shape): (&Table, Shape)) -> Result<CopyInSink<Bytes>, Error> {
        let copy = format!("copy {relation} ({}) from stdin {}", table.column_list(), shape.format.copy_options());
        self.transaction.copy_in(&copy).await.map_err(Error::database(format!("write {}", table.name)))
    }

    async fn receive_into(
        &self,
        relation: &str,
        rows: &mut Rows,
        (table, shape): (&Table, Shape),
    ) -> Result<Sum, Error> {
        let sink = self.open_relation(relation, (table, shape)).await?;
        relay(rows, shape, sink, table).await
    }

    /// Lands rows in the place of whatever has their keys: rows that hang on another customer by now, or on none.
    pub async fn replace(&self, rows: &mut Rows, (table, shape): (&Table, Shape)) -> Result<Sum, Error> {
        let failed = || Error::database(format!("replace rows of {}", table.name));
        let (name, columns) = (table.name.sql(), table.column_list());
        let sum = self.receive_beside(rows, (table, shape)).await?;
        let replace = format!(
            "delete from {name} as t using pg_temp.godwit_replacing as r where {};
             insert into {name} ({columns}) overriding system value select {columns} from pg_temp.godwit_replacing;
             drop table pg_temp.godwit_replacing",
            table.same_key("t", "r")
        );
        self.transaction.batch_execute(&replace).await.map_err(failed())?;
        Ok(sum)
    }

    /// Lands rows as changes of those that have their keys, which nobody who refers to them notices. `false`, and nothing is changed,
    /// where the table has a column that cannot be set, or where a row takes a unique value before another one gives it up.
    pub async fn change(&self, rows: &mut Rows, (table, shape): (&Table, Shape)) -> Result<bool, Error> {
        let Some(assignments) = assignments(table) else {
            return Ok(false);
        };
        let failed = || Error::database(format!("change rows of {}", table.name));
        self.receive_beside(rows, (table, shape)).await?;
        let change = format!(
            "savepoint changing; update {} as t set {assignments} from pg_temp.godwit_replacing as r where {}",
            table.name.sql(),
            table.same_key("t", "r")
        );
        let changed = match self.transaction.batch_execute(&change).await {
            Ok(()) => true,
            Err(error) if is_doubled(&error) => {
                self.transaction.batch_execute("rollback to savepoint changing").await.map_err(failed())?;
                false
            }
            Err(error) => return Err(failed()(error)),
        };
        self.transaction.batch_execute("drop table pg_temp.godwit_replacing").await.map_err(failed())?;
        Ok(changed)
    }

    /// Rows as they come, in a temporary table.
    async fn receive_beside(&self, rows: &mut Rows, (table, shape): (&Table, Shape)) -> Result<Sum, Error> {
        let failed = || Error::database(format!("replace rows of {}", table.name));
        let create = format!(
            "create temporary table godwit_replacing on commit drop as select {} from {} with no data",
            table.column_list(),
            table.name.sql()
        );
        self.transaction.batch_execute(&create).await.map_err(failed())?;
        let sum = self.receive_into("pg_temp.godwit_replacing", rows, (table, shape)).await?;
        self.transaction.batch_execute("analyze pg_temp.godwit_replacing").await.map_err(failed())?;
        Ok(sum)
    }

    /// Runs a statement that removes rows, and returns how many.
    pub async fn remove(&self, table: &TableName, delete: &str) -> Result<u64, Error> {
        self.transaction.execute(delete, &[]).await.map_err(Error::database(format!("remove rows of {table}")))
    }

    /// Makes it last. When the answer is lost the outcome is unknown: the step begins anew, and taking the token waits until the
    /// old transaction has ended one way or the other, before any checkpoint is read.
    pub async fn commit(self) -> Result<(), Error> {
        self.transaction.commit().await.map_err(Error::database("commit a landing"))
    }
}

/// Every column but the key's, from the row `r`; none where the server alone may choose one, or where there is nothing but the key.
fn assignments(table: &Table) -> Option<String> {
    let columns: Vec<_> =
        table.copied_columns().into_iter().filter(|column| !table.primary_key.contains(&column.name)).collect();
    if columns.is_empty() || columns.iter().any(|column| column.identity == Some(Identity::Always)) {
        return None;
    }
    let assignment = |name: &str| format!("{0} = r.{0}", quote_identifier(name));
    Some(columns.iter().map(|column| assignment(&column.name)).collect::<Vec<_>>().join(", "))
}

fn is_doubled(error: &tokio_postgres::Error) -> bool {
    let doubled = [&SqlState::UNIQUE_VIOLATION, &SqlState::EXCLUSION_VIOLATION];
    error.code().is_some_and(|code| doubled.contains(&code))
}
