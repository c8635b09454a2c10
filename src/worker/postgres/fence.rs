//! The fence: makes a database refuse writes to rows that its side does not own.
//! Installed by Prepare, closed and opened by Cutover, Freeze and Reopen, removed by Finalize, Reset and Cleanup.
//! Must let Godwit's own sessions pass by epoch only, and must never wait long for a lock: the application queues behind it.

use std::fmt::Write;
use std::time::{Duration, Instant};

use tokio_postgres::error::SqlState;
use tokio_postgres::{GenericClient, Transaction};

use super::fence_sql::{Fenced, LOCK_CLASS, TRIGGERS, row_function, shared_functions};
use super::identifier::{TableName, quote_identifier, quote_literal};
use super::ledger::{self, owner_name};
use super::model::{Scope, Table};
use super::session::Session;
use super::token::{self, Token};
use crate::contract::{Owner, Side};
use crate::worker::error::{Error, Fault};

/// How long one try waits for a lock.
const LOCK_WAIT: Duration = Duration::from_millis(500);
/// Between two tries the application runs undisturbed.
const PAUSE: Duration = Duration::from_millis(300);
/// When to give up; the next attempt of the Job goes on.
const PATIENCE: Duration = Duration::from_secs(60);

/// A partition's clone of its parent's trigger cannot be dropped by itself, and goes with it.
const NOT_CLONED: &str = "and t.tgparentid = 0";

/// What closing an entry came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed {
    /// The entry's epoch from now on.
    pub epoch: i64,
    /// How long writers in flight were waited for.
    pub drain: Duration,
    /// It was closed already.
    pub already: bool,
}

/// Installs the fence on every table of the scope, or completes a half-installed one. Each table in its own short transaction.
pub async fn install(session: &mut Session, side: Side, scope: &Scope) -> Result<(), Error> {
    let mut functions = vec![shared_functions(side, &scope.root_key_type)];
    functions.extend(scope.owned.iter().map(|owned| row_function(owned, scope)));
    let transaction = session.transaction().await.map_err(Error::database("create the fence's functions"))?;
    transaction.batch_execute(&functions.join("\n")).await.map_err(Error::database("create the fence's functions"))?;
    transaction.commit().await.map_err(Error::database("create the fence's functions"))?;
    for owned in &scope.owned {
        install_table(session, Fenced::Owned(owned), &owned.table).await?;
    }
    for reference in &scope.reference {
        let fenced = Fenced::Reference(&reference.table.name);
        install_table(session, fenced, &reference.table).await?;
    }
    Ok(())
}

async fn install_table(session: &mut Session, fenced: Fenced<'_>, table: &Table) -> Result<(), Error> {
    let in_force = fenced_tables(&**session).await?;
    let relations: Vec<&TableName> = std::iter::once(&table.name).chain(&table.partitions).collect();
    let complete = |name: &TableName| in_force.iter().filter(|(at, _)| at == name).count() == TRIGGERS.len();
    if relations.iter().all(|name| complete(name)) {
        return Ok(());
    }
    let mut sql = String::new();
    for (name, trigger) in triggers(&**session, NOT_CLONED).await? {
        if relations.contains(&&name) {
            sql.push_str(&drop_trigger(&name, &trigger));
        }
    }
    sql.push_str(&fenced.row_triggers());
    for name in &relations {
        sql.push_str(&fenced.statement_triggers(name));
    }
    // `only`: servers differ in what they do with partitions here, so each is named.
    for (name, trigger) in relations.iter().flat_map(|name| TRIGGERS.map(|trigger| (name, trigger))) {
        let trigger = quote_identifier(trigger);
        let _ = write!(sql, "alter table only {} enable always trigger {trigger};", name.sql());
    }
    let what = format!("the triggers of {}", table.name);
    with_short_locks(session, &what, &sql).await
}

fn drop_trigger(table: &TableName, trigger: &str) -> String {
    format!("drop trigger if exists {} on {};", quote_identifier(trigger), table.sql())
}

/// Tables that carry triggers of the fence in force, with the trigger's name.
pub async fn fenced_tables(client: &impl GenericClient) -> Result<Vec<(TableName, String)>, Error> {
    triggers(client, "and t.tgenabled = 'A'").await
}

async fn triggers(client: &impl GenericClient, condition: &str) -> Result<Vec<(TableName, String)>, Error> {
    let names = TRIGGERS.map(quote_literal).join(", ");
    let sql = format!(
        "select n.nspname::text, c.relname::text, t.tgname::text from pg_catalog.pg_trigger t \
         join pg_catalog.pg_class c on c.oid = t.tgrelid join pg_catalog.pg_namespace n on n.oid = c.relnamespace \
         where t.tgname in ({names}) {condition} order by 1, 2, 3"
    );
    let rows = client.query(&sql, &[]).await.map_err(Error::database("look for the fence's triggers"))?;
    let found = rows
        .iter()
        .map(|row| {
            let table = TableName::new(row.get::<_, String>(0), row.get::<_, String>(1));
            (table, row.get(2))
        })
        .collect();
    Ok(found)
}

/// Removes every trigger of the fence from the database; the functions go with the ledger's schema.
pub async fn remove(session: &mut Session) -> Result<(), Error> {
    loop {
        let found = triggers(&**session, NOT_CLONED).await?;
        let Some((table, _)) = found.first() else {
            return Ok(());
        };
        let sql: String =
            found.iter().filter(|(name, _)| name == table).map(|(name, trigger)| drop_trigger(name, trigger)).collect();
        let what = format!("the triggers of {table}");
        with_short_locks(session, &what, &sql).await?;
    }
}

/// Runs DDL in one transaction that waits for locks only briefly, again and again.
pub async fn with_short_locks(session: &mut Session, what: &str, sql: &str) -> Result<(), Error> {
    let started = Instant::now();
    loop {
        let transaction = session.transaction().await.map_err(Error::database(format!("change {what}")))?;
        let outcome = async {
            transaction.batch_execute(&format!("{}{sql}", set_lock_wait())).await?;
            transaction.commit().await
        }
        .await;
        match outcome {
            Ok(()) => return Ok(()),
            Err(error) if is_lock_failure(&error) && started.elapsed() < PATIENCE => {
                tokio::time::sleep(PAUSE).await;
            }
            Err(error) => return Err(lock_error(&error, what)),
        }
    }
}

fn set_lock_wait() -> String {
    format!("set local lock_timeout = '{}ms';", LOCK_WAIT.as_millis())
}

fn is_lock_failure(error: &tokio_postgres::Error) -> bool {
    let retried = [&SqlState::LOCK_NOT_AVAILABLE, &SqlState::T_R_DEADLOCK_DETECTED];
    error.code().is_some_and(|code| retried.contains(&code))
}

fn lock_error(error: &tokio_postgres::Error, what: &str) -> Error {
    if is_lock_failure(error) {
        return Error::LockNotGranted { what: what.to_owned() };
    }
    Error::Database { attempted: format!("change {what}"), source: Fault::from(error) }
}

/// Closes an entry: no side may write it. Returns when the last writer in flight has ended.
///
/// Closing a closed entry changes nothing and returns its epoch.
pub async fn close(session: &mut Session, token: &Token, entry: i32) -> Result<Closed, Error> {
    let started = Instant::now();
    let transaction = begin(session, token).await?;
    lock_out_writers(&transaction, &[entry]).await?;
    let closed = close_locked(&transaction, entry).await?;
    transaction.commit().await.map_err(Error::database("close the fence"))?;
    Ok(Closed { drain: started.elapsed(), ..closed })
}

async fn begin<'a>(session: &'a mut Session, token: &Token) -> Result<Transaction<'a>, Error> {
    let transaction = session.transaction().await.map_err(Error::database("begin a transaction"))?;
    token::hold(&transaction, token).await?;
    Ok(transaction)
}

async fn close_locked(transaction: &Transaction<'_>, entry: i32) -> Result<Closed, Error> {
    let before = ledger::ownership(transaction, entry).await?;
    let already = before.owner == Owner::None;
    if !already {
        set_owner(transaction, entry, Owner::None, before.epoch + 1).await?;
    }
    Ok(Closed { epoch: before.epoch + i64::from(!already), drain: Duration::ZERO, already })
}

/// Waits for writers of the entries in flight and keeps new ones out until the transaction ends.
///
/// A waiting lock keeps every later writer of the entry waiting too, so each try is short, and the application runs in between.
async fn lock_out_writers(transaction: &Transaction<'_>, entries: &[i32]) -> Result<(), Error> {
    let started = Instant::now();
    let mut entries = entries.to_vec();
    // One order for everybody, or two closers would wait for each other.
    entries.sort_unstable();
    entries.dedup();
    let locks: String = entries
        .iter()
        .map(|entry| format!("select pg_catalog.pg_advisory_xact_lock({LOCK_CLASS}, {entry});"))
        .collect();
    let try_once = format!("savepoint writers; {}{locks}", set_lock_wait());
    loop {
        match transaction.batch_execute(&try_once).await {
            Ok(()) => return Ok(()),
            Err(error) if is_lock_failure(&error) && started.elapsed() < PATIENCE => {
                transaction
                    .batch_execute("rollback to savepoint writers")
                    .await
                    .map_err(Error::database("wait for writers"))?;
                tokio::time::sleep(PAUSE).await;
            }
            Err(error) => return Err(lock_error(&error, "the writers in flight")),
        }
    }
}

async fn set_owner(client: &impl GenericClient, entry: i32, owner: Owner, epoch: i64) -> Result<(), Error> {
    client
        .execute(
            "update godwit.ownership set owner = $2, epoch = $3, updated_at = pg_catalog.clock_timestamp() where entry = $1",
            &[&entry, &owner_name(owner), &epoch],
        )
        .await
        .map(drop)
        .map_err(Error::database("change an owner"))
}

/// Hands a closed entry to `owner` at `epoch`, one more than it was closed at. Repeating it changes nothing.
pub async fn open(session: &mut Session, token: &Token, entry: i32, (owner, epoch): (Owner, i64)) -> Result<(), Error> {
    let transaction = begin(session, token).await?;
    let before = ledger::ownership(&transaction, entry).await?;
    if (before.owner, before.epoch) == (owner, epoch) {
        return Ok(());
    }
    if before.owner != Owner::None || before.epoch + 1 != epoch {
        return Err(Error::EpochMoved { entry, expected: epoch - 1, found: before.epoch });
    }
    set_owner(&transaction, entry, owner, epoch).await?;
    transaction.commit().await.map_err(Error::database("open the fence"))
}

/// Lets the rest of a transaction pass the fence for an entry at its current epoch, and keeps the epoch until the end.
///
/// The server checks it at each statement; a stale epoch fails there.
pub async fn pass(client: &impl GenericClient, entry: i32, epoch: i64) -> Result<(), Error> {
    client
        .execute("select pg_catalog.set_config('godwit.pass', $1, true)", &[&format!("{entry}:{epoch}")])
        .await
        .map(drop)
        .map_err(Error::database("show the fence's pass"))
}

/// Opens a transaction in which membership may change: writers of the entries have ended, and none can begin.
///
/// The entries' rows are touched, so that a writer with an older snapshot fails to serialize instead of going by the old membership.
pub async fn change_members<'a>(
    session: &'a mut Session,
    token: &Token,
    entries: &[i32],
) -> Result<Transaction<'a>, Error> {
    let transaction = begin(session, token).await?;
    lock_out_writers(&transaction, entries).await?;
    transaction
        .execute(
            "update godwit.ownership set updated_at = pg_catalog.clock_timestamp() where entry = any($1)",
            &[&entries],
        )
        .await
        .map_err(Error::database("prepare a change of membership"))?;
    Ok(transaction)
}
