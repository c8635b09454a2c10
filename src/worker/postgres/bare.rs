//! Tables without their keys, indexes and foreign keys while they are filled from nothing: to build those afterwards is several times
//! faster, and the server's own check of each is the proof that the rows obey it.
//! Used by Copy for a large cohort on an empty target; Discard and Cleanup put back what waits.
//! Must not lay a table bare that anybody else could read or write: what is dropped is first written down in the same transaction.

use serde::{Deserialize, Serialize};
use tokio_postgres::error::SqlState;
use tokio_postgres::{GenericClient, Transaction};

use super::baseline::Baseline;
use super::fence_sql::LOCK_CLASS;
use super::identifier::{TableName, quote_identifier, quote_literal};
use super::ledger;
use super::model::{Catalog, Scope, TableKind};
use super::session::Session;
use super::token::{self, Token};
use crate::worker::error::Error;

/// The part under which a cohort's Copy records what waits.
pub const PART: &str = "bare";
/// The advisory lock that landings share; entries are never negative.
const LANDINGS: i32 = -2;

/// A key, an index or a foreign key that waits until the rows are in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    pub table: TableName,
    pub name: String,
    /// Of a foreign key: the other table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub referenced: Option<TableName>,
    /// The statement that brings it back.
    pub create: String,
    drop: String,
}

impl Waiting {
    /// Tables that the statement locks.
    pub fn tables(&self) -> impl Iterator<Item = &TableName> {
        std::iter::once(&self.table).chain(&self.referenced)
    }
}

/// What waits for this cohort's rows, if its Copy laid the tables bare.
pub async fn waiting(client: &impl GenericClient, subject: &str) -> Result<Option<Vec<Waiting>>, Error> {
    let Some(state) = ledger::checkpoint(client, (subject, "copy", PART)).await? else {
        return Ok(None);
    };
    serde_json::from_value(state).map(Some).map_err(|source| Error::Json { what: "what waits for a copy", source })
}

/// Everything that waits in this ledger, whoever's.
pub async fn all_waiting(client: &impl GenericClient) -> Result<Vec<Waiting>, Error> {
    let rows = client
        .query("select state from godwit.checkpoint where step = 'copy' and part = $1", &[&PART])
        .await
        .map_err(Error::database("look for what waits for a copy"))?;
    let mut all = Vec::new();
    for row in rows {
        let waiting: Vec<Waiting> = serde_json::from_value(row.get(0))
            .map_err(|source| Error::Json { what: "what waits for a copy", source })?;
        all.extend(waiting);
    }
    Ok(all)
}

/// The statement by which a landing says that it is under way: tables are laid bare only while there is none.
pub fn among_landings() -> String {
    format!("select pg_catalog.pg_advisory_xact_lock_shared({LOCK_CLASS}, {LANDINGS})")
}

/// While one cohort's Copy has the tables bare, nobody else may land a row in them.
pub async fn refuse_while_bare(transaction: &Transaction<'_>, subject: &str) -> Result<(), Error> {
    let row = transaction
        .query_one(
            "select exists (select from godwit.checkpoint where step = 'copy' and part = $1 and subject <> $2)",
            &[&PART, &subject],
        )
        .await
        .map_err(Error::database("look for a copy that has the tables to itself"))?;
    if row.get(0) {
        return Err(Error::LockNotGranted {
            what: "the tables, which another cohort's copy fills from nothing".into(),
        });
    }
    Ok(())
}

/// Takes keys, indexes and foreign keys off the owned tables, if these are nobody's but ours: created by Prepare, empty, and nothing in
/// the ledger is the target's.
pub async fn lay_bare(
    session: &mut Session,
    token: &Token,
    (scope, catalog): (&Scope, &Catalog),
) -> Result<Option<Vec<Waiting>>, Error> {
    let failed = || Error::database("prepare the empty tables for a copy");
    let transaction = session.transaction().await.map_err(failed())?;
    token::hold(&transaction, token).await?;
    let ours = Baseline::load(&transaction).await?.unwrap_or_default().created;
    let plain = scope.owned.iter().all(|owned| {
        let there = catalog.tables.get(&owned.table.name);
        ours.contains(&owned.table.name) && there.is_some_and(|it| it.kind == TableKind::Ordinary && !it.inherits)
    });
    let owned = |name: &TableName| scope.owned_table(name).is_some();
    let referred = catalog.foreign_keys.iter().any(|key| owned(&key.referenced) && !owned(&key.table));
    if !plain || referred {
        return Ok(None);
    }
    let alone = format!("select pg_catalog.pg_try_advisory_xact_lock({LOCK_CLASS}, {LANDINGS})");
    if !transaction.query_one(&alone, &[]).await.map_err(failed())?.get::<_, bool>(0) {
        return Ok(None);
    }
    let names: Vec<String> = scope.owned.iter().map(|owned| owned.table.name.sql()).collect();
    // Whoever reads them, though they are empty, is not made to wait for us.
    let lock = format!("set local lock_timeout = '500ms'; lock table {} in access exclusive mode", names.join(", "));
    match transaction.batch_execute(&lock).await {
        Ok(()) => {}
        Err(error) if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => return Ok(None),
        Err(error) => return Err(failed()(error)),
    }
    refuse_while_bare(&transaction, &token.subject).await?;
    if in_use(&transaction, &names).await? {
        return Ok(None);
    }
    let Some(waiting) = read_waiting(&transaction, &names).await? else {
        return Ok(None);
    };
    let state =
        serde_json::to_value(&waiting).map_err(|source| Error::Json { what: "what waits for a copy", source })?;
    ledger::set_checkpoint(&transaction, (&token.subject, "copy", PART), &state).await?;
    // In the opposite order of creation: foreign keys first, then what they refer to.
    let drops: String = waiting.iter().rev().map(|one| format!("{};", one.drop)).collect();
    match transaction.batch_execute(&drops).await {
        Ok(()) => {}
        // A view or the like needs a key: the tables keep what they have.
        Err(error) if error.code() == Some(&SqlState::DEPENDENT_OBJECTS_STILL_EXIST) => return Ok(None),
        Err(error) => return Err(failed()(error)),
    }
    transaction.commit().await.map_err(failed())?;
    Ok(Some(waiting))
}

/// Rows, or customers that the target owns: then an application may use the tables.
async fn in_use(transaction: &Transaction<'_>, names: &[String]) -> Result<bool, Error> {
    let rows: Vec<String> = names.iter().map(|name| format!("exists (select from {name})")).collect();
    let select = format!(
        "select {} or exists (select from godwit.member m join godwit.ownership o on o.entry = m.entry where o.owner <> 'Source') \
           or exists (select from godwit.ownership where entry = 0 and owner <> 'Source')",
        rows.join(" or ")
    );
    let row = transaction.query_one(&select, &[]).await.map_err(Error::database("look for rows on the target"))?;
    Ok(row.get(0))
}

/// Keys, then indexes, then foreign keys; `None` where something hangs on them that a definition does not tell (a comment, a storage
/// parameter, the identity for replication): such tables keep what they have.
async fn read_waiting(transaction: &Transaction<'_>, names: &[String]) -> Result<Option<Vec<Waiting>>, Error> {
    let failed = || Error::database("read the keys and indexes of the target's tables");
    let tables = names.iter().map(|name| quote_literal(name)).collect::<Vec<_>>().join(", ");
    let special = format!(
        "select exists (select from pg_catalog.pg_index x join pg_catalog.pg_class i on i.oid = x.indexrelid \
             where x.indrelid in (select t::regclass from unnest(array[{tables}]) t) \
               and (i.reloptions is not null or i.reltablespace <> 0 or x.indisreplident or x.indisclustered or not x.indisvalid \
                 or exists (select from pg_catalog.pg_attribute a where a.attrelid = i.oid and a.attstattarget >= 0) \
                 or exists (select from pg_catalog.pg_description d where d.objoid = i.oid))) \
           or exists (select from pg_catalog.pg_constraint k join pg_catalog.pg_description d on d.objoid = k.oid \
             where k.conrelid in (select t::regclass from unnest(array[{tables}]) t))"
    );
    if transaction.query_one(&special, &[]).await.map_err(failed())?.get(0) {
        return Ok(None);
    }
    let select = format!(
        "with ours as (select t::regclass::oid as oid from unnest(array[{tables}]) t) \
         select n.nspname::text, c.relname::text, k.conname::text, rn.nspname::text, rc.relname::text, \
             pg_catalog.pg_get_constraintdef(k.oid), case k.contype when 'f' then 2 else 0 end as turn \
           from pg_catalog.pg_constraint k join ours on ours.oid = k.conrelid \
           join pg_catalog.pg_class c on c.oid = k.conrelid join pg_catalog.pg_namespace n on n.oid = c.relnamespace \
           left join pg_catalog.pg_class rc on k.contype = 'f' and rc.oid = k.confrelid \
           left join pg_catalog.pg_namespace rn on rn.oid = rc.relnamespace where k.contype in ('p', 'u', 'f') \
         union all \
         select n.nspname::text, c.relname::text, i.relname::text, null, null, pg_catalog.pg_get_indexdef(x.indexrelid), 1 \
           from pg_catalog.pg_index x join ours on ours.oid = x.indrelid join pg_catalog.pg_class c on c.oid = x.indrelid \
           join pg_catalog.pg_class i on i.oid = x.indexrelid join pg_catalog.pg_namespace n on n.oid = c.relnamespace \
           where not exists (select from pg_catalog.pg_constraint k where k.conindid = x.indexrelid and k.contype in ('p', 'u', 'x')) \
         order by 7, 1, 2, 3"
    );
    let rows = transaction.query(&select, &[]).await.map_err(failed())?;
    Ok(Some(rows.iter().map(waiting_of).collect()))
}

fn waiting_of(row: &tokio_postgres::Row) -> Waiting {
    let table = TableName::new(row.get::<_, String>(0), row.get::<_, String>(1));
    let (name, definition, turn): (String, String, i32) = (row.get(2), row.get(5), row.get(6));
    let referenced = row
        .get::<_, Option<String>>(3)
        .zip(row.get::<_, Option<String>>(4))
        .map(|(schema, name)| TableName::new(schema, name));
    let quoted = quote_identifier(&name);
    let (create, drop) = if turn == 1 {
        let index = TableName::new(table.schema.clone(), name.clone());
        (definition, format!("drop index {}", index.sql()))
    } else {
        let alter = format!("alter table {}", table.sql());
        (format!("{alter} add constraint {quoted} {definition}"), format!("{alter} drop constraint {quoted}"))
    };
    Waiting { table, name, referenced, create, drop }
}

/// Brings one back, unless it is there already. Returns the server's refusal as it is: rows that do not obey it are no accident.
pub async fn build(session: &mut Session, token: &Token, waiting: &Waiting) -> Result<(), Error> {
    let failed = || Error::database(format!("build {} of {}", waiting.name, waiting.table));
    let transaction = session.transaction().await.map_err(failed())?;
    token::hold(&transaction, token).await?;
    // Two builders of one Copy may want the same table: the second waits for the first, however long that builds.
    transaction.batch_execute("set local lock_timeout = 0").await.map_err(failed())?;
    if is_there(&transaction, waiting).await? {
        return Ok(());
    }
    transaction.batch_execute(&waiting.create).await.map_err(failed())?;
    transaction.commit().await.map_err(failed())
}

async fn is_there(client: &impl GenericClient, waiting: &Waiting) -> Result<bool, Error> {
    client
        .query_one(
            "select exists (select from pg_catalog.pg_constraint k where k.conrelid = $1::text::regclass and k.conname = $2) \
               or exists (select from pg_catalog.pg_class i join pg_catalog.pg_index x on x.indexrelid = i.oid \
                 where x.indrelid = $1::text::regclass and i.relname = $2)",
            &[&waiting.table.sql(), &waiting.name],
        )
        .await
        .map(|row| row.get(0))
        .map_err(Error::database(format!("look for {} of {}", waiting.name, waiting.table)))
}
