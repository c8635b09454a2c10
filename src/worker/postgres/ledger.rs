//! The ledger: Godwit's tables (schema `godwit`) in both databases.
//! Prepare creates it, cohort steps read and write it, Finalize archives and drops it.
//! Must hold no customer data but the customers' keys in `godwit.member`; the journal and reports hold none at all.

use serde_json::Value;
use tokio_postgres::GenericClient;

use super::model::entry;
use super::session::Session;
use crate::contract::{Identity, Owner, Report, Side};
use crate::worker::error::Error;

/// One row of `godwit.ownership`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ownership {
    pub entry: i32,
    pub name: String,
    /// The cohort's Kubernetes uid; empty for the fixed entries.
    pub uid: String,
    pub owner: Owner,
    pub epoch: i64,
}

pub fn owner_name(owner: Owner) -> &'static str {
    match owner {
        Owner::Source => "Source",
        Owner::Target => "Target",
        Owner::None => "None",
    }
}

pub fn side_column(side: Side) -> &'static str {
    match side {
        Side::Source => "Source",
        Side::Target => "Target",
    }
}

fn owner_from(text: &str) -> Owner {
    match text {
        "Source" => Owner::Source,
        "Target" => Owner::Target,
        _ => Owner::None,
    }
}

/// Statements that create the ledger where it is absent; `root_key_type` comes from the catalogue.
fn ddl(root_key_type: &str) -> String {
    format!(
        "create schema if not exists godwit;
         revoke all on schema godwit from public;
         create table if not exists godwit.migration (
           uid text primary key, namespace text not null, name text not null, side text not null,
           prepared_at timestamptz, baseline jsonb);
         create unique index if not exists migration_is_one on godwit.migration ((true));
         create table if not exists godwit.ownership (
           entry int primary key, name text not null unique, uid text not null default '',
           owner text not null check (owner in ('Source', 'Target', 'None')),
           epoch bigint not null default 0, updated_at timestamptz not null default pg_catalog.clock_timestamp());
         create table if not exists godwit.member (
           customer {root_key_type} primary key, entry int not null references godwit.ownership,
           customer_group bigint not null default 0, chunk int not null default 0);
         create index if not exists member_entry_chunk on godwit.member (entry, chunk);
         create table if not exists godwit.fencing_token (
           subject text primary key, attempt bigint not null, turn bigint not null,
           taken_at timestamptz not null default pg_catalog.clock_timestamp());
         create table if not exists godwit.checkpoint (
           subject text not null, step text not null, part text not null, state jsonb not null,
           at timestamptz not null default pg_catalog.clock_timestamp(), primary key (subject, step, part));
         create table if not exists godwit.report (
           subject text not null, step text not null, attempt bigint not null, exit_code int not null, report jsonb not null,
           primary key (subject, step, attempt));
         create table if not exists godwit.journal (
           id bigserial primary key, at timestamptz not null default pg_catalog.clock_timestamp(),
           subject text not null, step text not null, attempt bigint not null, event text not null,
           detail jsonb not null default '{{}}');"
    )
}

/// Creates what is missing of the ledger, in one transaction, and makes sure that it is this migration's.
pub async fn create(session: &mut Session, side: Side, migration: &Identity, root_key_type: &str) -> Result<(), Error> {
    refuse_foreign(session, migration).await?;
    let failed = || Error::database("create the ledger");
    let transaction = session.transaction().await.map_err(failed())?;
    transaction.batch_execute(&ddl(root_key_type)).await.map_err(failed())?;
    transaction
        .execute(
            "insert into godwit.migration (uid, namespace, name, side) values ($1, $2, $3, $4) on conflict do nothing",
            &[&migration.uid, &migration.namespace, &migration.name, &side_column(side)],
        )
        .await
        .map_err(failed())?;
    for (entry, name, owner) in [
        (entry::UNASSIGNED, "unassigned", Owner::Source),
        (entry::REFERENCE, "reference", Owner::Source),
        (entry::NATIVE, "native", Owner::Target),
    ] {
        transaction
            .execute(
                "insert into godwit.ownership (entry, name, owner) values ($1, $2, $3) on conflict do nothing",
                &[&entry, &name, &owner_name(owner)],
            )
            .await
            .map_err(failed())?;
    }
    transaction.commit().await.map_err(failed())?;
    refuse_foreign(session, migration).await
}

/// Whether the database has a ledger at all.
pub async fn exists(session: &Session) -> Result<bool, Error> {
    session
        .query_one("select pg_catalog.to_regclass('godwit.migration') is not null", &[])
        .await
        .map(|row| row.get(0))
        .map_err(Error::database("look for the ledger"))
}

/// The migration that the ledger belongs to, if there is one.
pub async fn owner_of(session: &Session) -> Result<Option<Identity>, Error> {
    if !exists(session).await? {
        return Ok(None);
    }
    let row = session
        .query_opt("select namespace, name, uid from godwit.migration", &[])
        .await
        .map_err(Error::database("read whose ledger it is"))?;
    Ok(row.map(|row| Identity { namespace: row.get(0), name: row.get(1), uid: row.get(2) }))
}

/// A ledger of another migration stops the step.
pub async fn refuse_foreign(session: &Session, migration: &Identity) -> Result<(), Error> {
    match owner_of(session).await? {
        Some(found) if found.uid != migration.uid => Err(Error::ForeignLedger {
            side: session.side(),
            owner: format!("{}/{} (uid {})", found.namespace, found.name, found.uid),
        }),
        _ => Ok(()),
    }
}

/// The ledger must exist and be this migration's.
pub async fn require(session: &Session, migration: &Identity) -> Result<(), Error> {
    match owner_of(session).await? {
        Some(found) if found.uid == migration.uid => Ok(()),
        Some(_) => refuse_foreign(session, migration).await,
        None => Err(Error::LedgerMissing { side: session.side() }),
    }
}

/// All entries, in their order.
pub async fn ownerships(client: &impl GenericClient) -> Result<Vec<Ownership>, Error> {
    let rows = client
        .query("select entry, name, uid, owner, epoch from godwit.ownership order by entry", &[])
        .await
        .map_err(Error::database("read who owns what"))?;
    let ownerships = rows
        .iter()
        .map(|row| Ownership {
            entry: row.get(0),
            name: row.get(1),
            uid: row.get(2),
            owner: owner_from(row.get(3)),
            epoch: row.get(4),
        })
        .collect();
    Ok(ownerships)
}

/// One entry.
pub async fn ownership(client: &impl GenericClient, entry: i32) -> Result<Ownership, Error> {
    ownerships(client)
        .await?
        .into_iter()
        .find(|ownership| ownership.entry == entry)
        .ok_or_else(|| Error::NotInLedger { what: format!("entry {entry}") })
}

/// The entry of a cohort, found by its uid: a cohort of the same name but another uid is another cohort.
pub async fn cohort(client: &impl GenericClient, cohort: &Identity) -> Result<Option<Ownership>, Error> {
    Ok(ownerships(client)
        .await?
        .into_iter()
        .find(|ownership| ownership.uid == cohort.uid && ownership.entry >= entry::FIRST_COHORT))
}

/// The entry of a cohort that Select must have registered.
pub async fn require_cohort(client: &impl GenericClient, identity: &Identity) -> Result<Ownership, Error> {
    cohort(client, identity).await?.ok_or_else(|| unknown_cohort(identity))
}

/// What to say of a cohort that should have an entry.
pub fn unknown_cohort(identity: &Identity) -> Error {
    Error::NotInLedger { what: format!("cohort {} (uid {}); Select comes first", identity.name, identity.uid) }
}

/// Reads what a step recorded about a part of its work.
pub async fn checkpoint(
    client: &impl GenericClient,
    (subject, step, part): (&str, &str, &str),
) -> Result<Option<Value>, Error> {
    client
        .query_opt(
            "select state from godwit.checkpoint where subject = $1 and step = $2 and part = $3",
            &[&subject, &step, &part],
        )
        .await
        .map(|row| row.map(|row| row.get(0)))
        .map_err(Error::database("read a checkpoint"))
}

/// All parts of a step, by name.
pub async fn checkpoints(
    client: &impl GenericClient,
    (subject, step): (&str, &str),
) -> Result<Vec<(String, Value)>, Error> {
    client
        .query(
            "select part, state from godwit.checkpoint where subject = $1 and step = $2 order by part",
            &[&subject, &step],
        )
        .await
        .map(|rows| rows.iter().map(|row| (row.get(0), row.get(1))).collect())
        .map_err(Error::database("read checkpoints"))
}

/// Records a part of a step's work; belongs into the transaction that did it.
pub async fn set_checkpoint(
    client: &impl GenericClient,
    (subject, step, part): (&str, &str, &str),
    state: &Value,
) -> Result<(), Error> {
    client
        .execute(
            "insert into godwit.checkpoint (subject, step, part, state) values ($1, $2, $3, $4) \
             on conflict (subject, step, part) do update set state = excluded.state, at = pg_catalog.clock_timestamp()",
            &[&subject, &step, &part, state],
        )
        .await
        .map(drop)
        .map_err(Error::database("write a checkpoint"))
}

/// Forgets a step's checkpoints.
pub async fn clear_checkpoints(client: &impl GenericClient, (subject, step): (&str, &str)) -> Result<(), Error> {
    client
        .execute("delete from godwit.checkpoint where subject = $1 and step = $2", &[&subject, &step])
        .await
        .map(drop)
        .map_err(Error::database("clear checkpoints"))
}

/// A bounded fact for the final report; numbers and names of schema objects only.
pub async fn note(
    client: &impl GenericClient,
    (subject, step, attempt): (&str, &str, i64),
    event: &str,
    detail: &Value,
) -> Result<(), Error> {
    client
        .execute(
            "insert into godwit.journal (subject, step, attempt, event, detail) values ($1, $2, $3, $4, $5)",
            &[&subject, &step, &attempt, &event, detail],
        )
        .await
        .map(drop)
        .map_err(Error::database("write the journal"))
}

/// The stored report of an attempt, with its exit code.
pub async fn report(
    client: &impl GenericClient,
    (subject, step, attempt): (&str, &str, i64),
) -> Result<Option<(i32, Report)>, Error> {
    let row = client
        .query_opt(
            "select exit_code, report from godwit.report where subject = $1 and step = $2 and attempt = $3",
            &[&subject, &step, &attempt],
        )
        .await
        .map_err(Error::database("read a stored report"))?;
    row.map(|row| {
        let report =
            serde_json::from_value(row.get(1)).map_err(|source| Error::Json { what: "a stored report", source })?;
        Ok((row.get(0), report))
    })
    .transpose()
}

/// Stores an attempt's report; the first one stays.
pub async fn store_report(
    client: &impl GenericClient,
    (subject, step, attempt): (&str, &str, i64),
    exit_code: i32,
    report: &Report,
) -> Result<(), Error> {
    let report = serde_json::to_value(report).map_err(|source| Error::Json { what: "a report", source })?;
    client
        .execute(
            "insert into godwit.report (subject, step, attempt, exit_code, report) values ($1, $2, $3, $4, $5) on conflict do nothing",
            &[&subject, &step, &attempt, &exit_code, &report],
        )
        .await
        .map(drop)
        .map_err(Error::database("store the report"))
}
