//! Tables without their keys, indexes and foreign keys while they are filled from nothing: to build those afterwards is several times
//! faster, and the server's own check of each is the proof that the rows obey it.
//! Used by Copy for a large cohort on an empty target; Discard, Reset and Cleanup put back what waits.
//! Must not lay a table bare that anybody else could read or write, nor one whose keys would come back other than they were.

use serde::{Deserialize, Serialize};
use tokio_postgres::error::SqlState;
use tokio_postgres::{GenericClient, Transaction};

use super::bare_sql;
use super::baseline::Baseline;
use super::fence_sql::LOCK_CLASS;
use super::identifier::{TableName, quote_identifier};
use super::ledger;
use super::model::{Catalog, ForeignKey, Scope, TableKind};
use super::session::Session;
use super::token::{self, Token};
use crate::worker::error::Error;

/// The part under which a cohort's Copy records what waits.
const PART: &str = "bare";
/// The advisory lock that landings share; entries are never negative, and -1 is the fence's.
const LANDINGS: i32 = -2;
/// The advisory lock of the session that fills bare tables.
const FILLING: i32 = -3;
/// Nothing comes back in another place than it was. And a server that can, looks up from its work now and then: what a dead worker
/// began must not keep the next one waiting.
const BUILDING: &str = "set local default_tablespace = ''; select pg_catalog.set_config(name, '1s', true) \
    from pg_catalog.pg_settings where name = 'client_connection_check_interval'";

/// A key, an index or a foreign key that waits until the rows are in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Waiting {
    pub table: TableName,
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub foreign_key: Option<ForeignKey>,
    /// The statement that brings it back.
    pub create: String,
    drop: String,
    facts: String,
}

impl Waiting {
    /// Tables that the statement locks.
    pub fn tables(&self) -> impl Iterator<Item = &TableName> {
        std::iter::once(&self.table).chain(self.foreign_key.as_ref().map(|key| &key.referenced))
    }
}

/// What waits for this cohort's rows, if its Copy laid the tables bare.
pub async fn waiting(client: &impl GenericClient, subject: &str) -> Result<Option<Vec<Waiting>>, Error> {
    let state = ledger::checkpoint(client, (subject, "copy", PART)).await?;
    state.map(|state| serde_json::from_value(state).map_err(unreadable)).transpose()
}

fn unreadable(source: serde_json::Error) -> Error {
    Error::Json { what: "what waits for a copy", source }
}

/// Everything that waits in this ledger, whoever's.
async fn all_waiting(client: &impl GenericClient) -> Result<Vec<Waiting>, Error> {
    let rows = client
        .query("select state from godwit.checkpoint where step = 'copy' and part = $1", &[&PART])
        .await
        .map_err(Error::database("look for what waits for a copy"))?;
    let mut all = Vec::new();
    for row in rows {
        let waiting: Vec<Waiting> = serde_json::from_value(row.get(0)).map_err(unreadable)?;
        all.extend(waiting);
    }
    Ok(all)
}

/// What waits belongs to the catalogue all the same: shared rows that a copy's rows refer to are in use.
pub async fn complete(client: &impl GenericClient, subject: &str, catalog: &mut Catalog) -> Result<(), Error> {
    for key in waiting(client, subject).await?.unwrap_or_default().into_iter().filter_map(|one| one.foreign_key) {
        if !catalog.foreign_keys.contains(&key) {
            catalog.foreign_keys.push(key);
        }
    }
    Ok(())
}

/// The statement by which a landing says that it is under way: tables are laid bare only while there is none.
pub fn among_landings() -> String {
    format!("select pg_catalog.pg_advisory_xact_lock_shared({LOCK_CLASS}, {LANDINGS})")
}

/// Says that this session fills the tables, until it ends. Whoever says so already is an older attempt on its way out.
pub async fn fill(session: &Session) -> Result<(), Error> {
    let filling = format!("select pg_catalog.pg_try_advisory_lock({LOCK_CLASS}, {FILLING})");
    session.run("say that the tables are being filled", &filling).await
}

/// Waits for the end of the session that fills the tables, if one does.
pub async fn wait_while_filled(session: &Session) -> Result<(), Error> {
    let wait = format!(
        "begin; set local lock_timeout = 0; \
         select pg_catalog.pg_advisory_xact_lock_shared({LOCK_CLASS}, {FILLING}); commit"
    );
    session.run("wait for another cohort's copy", &wait).await
}

/// Whether another cohort's Copy has the tables bare.
pub async fn are_bare_for_another(client: &impl GenericClient, subject: &str) -> Result<bool, Error> {
    client
        .query_one(
            "select exists (select from godwit.checkpoint where step = 'copy' and part = $1 and subject <> $2)",
            &[&PART, &subject],
        )
        .await
        .map(|row| row.get(0))
        .map_err(Error::database("look for a copy that has the tables to itself"))
}

/// While one cohort's Copy has the tables bare, nobody else may land a row in them, nor judge their catalogue.
pub async fn refuse_while_bare(client: &impl GenericClient, subject: &str) -> Result<(), Error> {
    if are_bare_for_another(client, subject).await? {
        return Err(Error::LockNotGranted {
            what: "the tables, which another cohort's copy fills from nothing".into(),
        });
    }
    Ok(())
}

/// Takes keys, indexes and foreign keys off the owned tables, if these are nobody's but ours: created by Prepare, empty, and nothing in
/// the ledger is the target's. `false`: they keep all they have.
pub async fn lay_bare(
    session: &mut Session,
    token: &Token,
    (scope, catalog): (&Scope, &Catalog),
) -> Result<bool, Error> {
    let failed = || Error::database("prepare the empty tables for a copy");
    let transaction = session.transaction().await.map_err(failed())?;
    token::hold(&transaction, token).await?;
    let tables: Vec<&TableName> = scope.owned.iter().map(|owned| &owned.table.name).collect();
    if !are_made_by_us(&transaction, (scope, catalog)).await? || !are_alone(&transaction, &tables).await? {
        return Ok(false);
    }
    refuse_while_bare(&transaction, &token.subject).await?;
    for objection in [bare_sql::is_in_use(&tables, &token.subject), bare_sql::is_special(&tables)] {
        if transaction.query_one(&objection, &[]).await.map_err(failed())?.get(0) {
            return Ok(false);
        }
    }
    let waiting = read_waiting(&transaction, &tables, catalog).await?;
    let Some(waiting) = waiting.filter(|waiting| lead_to_customers(scope, waiting)) else {
        return Ok(false);
    };
    if !comes_back(&transaction, &tables, &waiting).await? {
        return Ok(false);
    }
    let state = serde_json::to_value(&waiting).map_err(unreadable)?;
    ledger::set_checkpoint(&transaction, (&token.subject, "copy", PART), &state).await?;
    transaction.batch_execute(&drops(&waiting)).await.map_err(failed())?;
    transaction.commit().await.map_err(failed())?;
    Ok(true)
}

/// Ordinary tables with a key, which were not there before Prepare.
async fn are_made_by_us(client: &impl GenericClient, (scope, catalog): (&Scope, &Catalog)) -> Result<bool, Error> {
    let made = Baseline::load(client).await?.unwrap_or_default().created;
    Ok(scope.owned.iter().map(|owned| &owned.table).all(|table| {
        let there = catalog.tables.get(&table.name);
        made.contains(&table.name)
            && !table.primary_key.is_empty()
            && there
                .is_some_and(|it| it.kind == TableKind::Ordinary && !it.inherits && it.primary_key == table.primary_key)
    }))
}

/// No landing is under way, and nobody reads the tables; whoever does, though they are empty, is not made to wait for us.
async fn are_alone(transaction: &Transaction<'_>, tables: &[&TableName]) -> Result<bool, Error> {
    let failed = || Error::database("look for others in the empty tables");
    let alone = format!("select pg_catalog.pg_try_advisory_xact_lock({LOCK_CLASS}, {LANDINGS})");
    if !transaction.query_one(&alone, &[]).await.map_err(failed())?.get::<_, bool>(0) {
        return Ok(false);
    }
    let names: Vec<String> = tables.iter().map(|table| table.sql()).collect();
    let lock = format!("set local lock_timeout = '500ms'; lock table {} in access exclusive mode", names.join(", "));
    is_yes(transaction.batch_execute(&lock).await)
}

/// A server that says no, for whatever reason, leaves the tables as they are; one that says nothing is an error.
fn is_yes(answer: Result<(), tokio_postgres::Error>) -> Result<bool, Error> {
    match answer.map_err(Error::database("try whether tables can be laid bare")) {
        Ok(()) => Ok(true),
        Err(error) if error.is_connection_lost() => Err(error),
        Err(error) => {
            tracing::info!(%error, "the tables keep their keys and indexes while rows land");
            Ok(false)
        }
    }
}

/// Each hop from a row to its customer will be checked by the server: without its foreign key nobody would.
fn lead_to_customers(scope: &Scope, waiting: &[Waiting]) -> bool {
    let keys: Vec<&ForeignKey> = waiting.iter().filter_map(|one| one.foreign_key.as_ref()).collect();
    let same = |one: &ForeignKey, other: &ForeignKey| {
        (&one.table, &one.columns, &one.referenced, &one.referenced_columns)
            == (&other.table, &other.columns, &other.referenced, &other.referenced_columns)
    };
    scope.owned.iter().flat_map(|owned| &owned.path).all(|hop| keys.iter().any(|key| same(key, hop)))
}

/// In the opposite order of creation: foreign keys first, then what they refer to.
fn drops(waiting: &[Waiting]) -> String {
    waiting.iter().rev().map(|one| format!("{};", one.drop)).collect()
}

/// Takes everything off and brings it back, over empty tables, and then as if nothing had been: what this role, this server or whatever
/// hangs on the tables does not allow, or what comes back other than it was, shows before a single row has landed.
async fn comes_back(transaction: &Transaction<'_>, tables: &[&TableName], waiting: &[Waiting]) -> Result<bool, Error> {
    let failed = || Error::database("try whether tables can be laid bare");
    let creates: String = waiting.iter().map(|one| format!("{};", one.create)).collect();
    let attempt = format!("savepoint trial; {BUILDING}; {}{creates}", drops(waiting));
    if !is_yes(transaction.batch_execute(&attempt).await)? {
        return Ok(false);
    }
    let left = missing(transaction, tables, waiting).await?;
    transaction.batch_execute("rollback to savepoint trial").await.map_err(failed())?;
    Ok(left.is_empty())
}

/// Keys, then indexes, then foreign keys; `None` where a foreign key is not one that the catalogue tells of.
async fn read_waiting(
    client: &impl GenericClient,
    tables: &[&TableName],
    catalog: &Catalog,
) -> Result<Option<Vec<Waiting>>, Error> {
    let failed = Error::database("read the keys and indexes of the target's tables");
    let rows = client.query(&bare_sql::waiting(tables), &[]).await.map_err(failed)?;
    Ok(rows.iter().map(|row| waiting_of(row, catalog)).collect())
}

fn waiting_of(row: &tokio_postgres::Row, catalog: &Catalog) -> Option<Waiting> {
    let table = TableName::new(row.get::<_, String>(0), row.get::<_, String>(1));
    let (name, definition, turn): (String, String, i32) = (row.get(2), row.get(3), row.get(4));
    let foreign_key = match turn {
        2 => Some(catalog.foreign_keys.iter().find(|key| key.table == table && key.name == name)?.clone()),
        _ => None,
    };
    let quoted = quote_identifier(&name);
    let (create, drop) = if turn == 1 {
        let index = TableName::new(table.schema.clone(), name.clone());
        (definition, format!("drop index {}", index.sql()))
    } else {
        let alter = format!("alter table {}", table.sql());
        (format!("{alter} add constraint {quoted} {definition}"), format!("{alter} drop constraint {quoted}"))
    };
    Some(Waiting { table, name, foreign_key, create, drop, facts: row.get(5) })
}

/// What of it the tables do not have as it was.
async fn missing<'w>(
    client: &impl GenericClient,
    tables: &[&TableName],
    waiting: &'w [Waiting],
) -> Result<Vec<&'w Waiting>, Error> {
    let rows = client
        .query(&bare_sql::waiting(tables), &[])
        .await
        .map_err(Error::database("read the keys and indexes of the target's tables"))?;
    let there = |one: &&Waiting| {
        rows.iter().any(|row| {
            let (schema, table, name): (String, String, String) = (row.get(0), row.get(1), row.get(2));
            one.table == TableName::new(schema, table) && one.name == name && one.facts == row.get::<_, String>(5)
        })
    };
    Ok(waiting.iter().filter(|one| !there(one)).collect())
}

/// Brings one back, unless something of its name is there already. The server's refusal comes back as it is: rows that do not obey are
/// no accident.
pub async fn build(session: &mut Session, token: &Token, waiting: &Waiting) -> Result<(), Error> {
    let failed = || Error::database(format!("build {} of {}", waiting.name, waiting.table));
    let transaction = session.transaction().await.map_err(failed())?;
    token::hold(&transaction, token).await?;
    // Two builders of one Copy may want the same table: the second waits for the first, however long that builds.
    transaction.batch_execute(&format!("set local lock_timeout = 0; {BUILDING}")).await.map_err(failed())?;
    if is_there(&transaction, waiting).await? {
        return Ok(());
    }
    transaction.batch_execute(&waiting.create).await.map_err(failed())?;
    transaction.commit().await.map_err(failed())
}

async fn is_there(client: &impl GenericClient, waiting: &Waiting) -> Result<bool, Error> {
    client
        .query_one(
            "select exists (select from pg_catalog.pg_constraint k where k.conrelid = pg_catalog.to_regclass($1) and k.conname = $2) \
               or exists (select from pg_catalog.pg_class i join pg_catalog.pg_index x on x.indexrelid = i.oid \
                 where x.indrelid = pg_catalog.to_regclass($1) and i.relname = $2)",
            &[&waiting.table.sql(), &waiting.name],
        )
        .await
        .map(|row| row.get(0))
        .map_err(Error::database(format!("look for {} of {}", waiting.name, waiting.table)))
}

/// Ends the time in which the tables were bare, in a transaction of the caller's; everything must be back as it was.
pub async fn forget(client: &impl GenericClient, subject: &str, waiting: &[Waiting]) -> Result<(), Error> {
    let mut tables: Vec<&TableName> = waiting.iter().map(|one| &one.table).collect();
    tables.sort();
    tables.dedup();
    if let Some(one) = missing(client, &tables, waiting).await?.first() {
        return Err(Error::NotInForce { what: format!("{} of {}", one.name, one.table) });
    }
    client
        .execute("delete from godwit.checkpoint where subject = $1 and step = 'copy' and part = $2", &[&subject, &PART])
        .await
        .map(drop)
        .map_err(Error::database("forget what waited for a copy"))
}

/// Brings everything back that waits in this ledger, whoever's; returns what the server refused over the rows that are there.
pub async fn put_back(session: &mut Session, token: &Token) -> Result<Vec<Waiting>, Error> {
    let mut refused = Vec::new();
    for waiting in all_waiting(&**session).await? {
        match build(session, token, &waiting).await {
            Err(error) if is_answer(&error) => refused.push(waiting),
            outcome => outcome?,
        }
    }
    if refused.is_empty() {
        let failed = || Error::database("forget what waited for a copy");
        let transaction = session.transaction().await.map_err(failed())?;
        token::hold(&transaction, token).await?;
        let forget = "delete from godwit.checkpoint where step = 'copy' and part = $1";
        transaction.execute(forget, &[&PART]).await.map_err(failed())?;
        transaction.commit().await.map_err(failed())?;
    }
    Ok(refused)
}

/// Whether the server would say the same again: it is about rows and definitions, not about locks, resources or the connection.
fn is_answer(error: &Error) -> bool {
    let Error::Database { source, .. } = error else {
        return false;
    };
    let passing = ["08", "40", "53", "55", "57", "58"];
    source.sqlstate.as_deref().is_some_and(|state| !passing.iter().any(|class| state.starts_with(class)))
}

/// Whether rows of the table stand against a unique key.
pub fn are_doubles(error: &Error) -> bool {
    matches!(error, Error::Database { source, .. } if source.is(&SqlState::UNIQUE_VIOLATION))
}

/// Whether a row refers to one that is not there.
pub fn are_orphans(error: &Error) -> bool {
    matches!(error, Error::Database { source, .. } if source.is(&SqlState::FOREIGN_KEY_VIOLATION))
}
