//! What is left on the target once a cohort's rows are gone: the tables as Prepare found them, beside other cohorts' rows.
//! Asked by the removal of a cohort's rows before it commits, and before reference rows are brought.
//! Must not take live rows of others for a difference: cohorts that are there, and customers that were there before.

use std::collections::BTreeSet;

use tokio_postgres::{GenericClient, Transaction};

use super::baseline::Baseline;
use super::model::{CustomerJoin, OwnedTable, Scope, entry};
use super::relay::{Rows, Shape};
use super::row::Sum;
use crate::contract::{Finding, Owner, Severity, exit};
use crate::worker::error::Error;

/// The baseline that Prepare recorded.
async fn baseline(client: &impl GenericClient) -> Result<Baseline, Error> {
    Baseline::load(client)
        .await?
        .ok_or_else(|| Error::NotInLedger { what: "the target's baseline; Prepare comes first".into() })
}

/// Tables in which the target had rows of its own before the migration.
pub async fn tables_with_own_rows(client: &impl GenericClient) -> Result<BTreeSet<String>, Error> {
    let baseline = baseline(client).await?;
    let with_rows = baseline.tables.iter().filter(|(_, sum)| sum.rows > 0);
    Ok(with_rows.map(|(table, _)| table.to_string()).collect())
}

/// Proves that without the other cohorts' rows each table is what it was, or holds only rows of customers who live there.
pub async fn prove(transaction: &Transaction<'_>, scope: &Scope, gone: i32) -> Result<(), Error> {
    let baseline = baseline(transaction).await?;
    for owned in &scope.owned {
        let name = owned.table.name.to_string();
        let before = baseline.tables.get(&owned.table.name).copied().unwrap_or_default();
        let first = entry::FIRST_COHORT;
        let cohorts = format!("member.entry >= {first} and member.entry <> {gone}");
        let mut rest = sum(transaction, owned, &owned.table.select_all()).await?;
        let others = sum(transaction, owned, &select_where(owned, &cohorts)).await?;
        rest.take_off(others);
        if rest == before {
            continue;
        }
        // Customers that the target had before go on writing, also into tables that were empty; new ones only once they are born here.
        let native = entry::NATIVE;
        let living = if owner_of_new(transaction).await? {
            format!("member.entry is null or member.entry < {first}")
        } else {
            format!("member.entry = {native}")
        };
        if rest == sum(transaction, owned, &select_where(owned, &living)).await? {
            continue;
        }
        return Err(differs(name, rest.rows, before.rows));
    }
    Ok(())
}

/// Whether new customers are born on the target.
async fn owner_of_new(transaction: &Transaction<'_>) -> Result<bool, Error> {
    let unassigned = super::ledger::ownership(transaction, entry::UNASSIGNED).await?;
    Ok(unassigned.owner == Owner::Target)
}

fn select_where(owned: &OwnedTable, condition: &str) -> String {
    let CustomerJoin { joins, customer } = owned.customer_join("t", "p");
    format!(
        "select {} from {} as t{joins} left join godwit.member as member on member.customer = {customer} where {condition}",
        owned.table.select_list("t"),
        owned.table.name.sql()
    )
}

async fn sum(transaction: &Transaction<'_>, owned: &OwnedTable, select: &str) -> Result<Sum, Error> {
    let shape = Shape::from(owned);
    let name = owned.table.name.to_string();
    Rows::select(transaction, select, shape.format, &name).await?.sum(shape).await
}

fn differs(table: String, rows: u64, before: u64) -> Error {
    Error::refused(
        exit::DATA_DIFFERS,
        Finding {
            severity: Severity::Blocker,
            code: "BaselineDiffers".into(),
            object: table,
            message: format!(
                "Without the cohort's rows the target's table is not what it was: {rows} rows of nobody's cohort, {before} before the migration."
            ),
        },
    )
}
