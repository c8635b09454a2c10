//! What the rows themselves have against the migration: orphans, rows of no customer, keys on both sides, large groups.
//! Used by `assess`, and for the rows of no customer by Validate and Cutover of the remainder. Reads the source in one snapshot; counts only.
//! Must not write, and must not show a key.

use serde::Serialize;
use tokio_postgres::Transaction;

use super::reporting::{blocker, finding, signed};
use crate::contract::{Finding, Severity};
use crate::worker::Error;
use crate::worker::postgres::baseline::sum_of_table;
use crate::worker::postgres::closure::breaks_check;
use crate::worker::postgres::collision;
use crate::worker::postgres::group::{Customers, Groups, links_within, read_customers, read_links};
use crate::worker::postgres::identifier::quote_identifier;
use crate::worker::postgres::model::{Catalog, ForeignKey, OwnedTable, Scope};
use crate::worker::postgres::session::Session;

/// A group with a larger share of all customers (a tenth) is worth a word.
const LARGE_SHARE: usize = 10;

/// Sizes of what moves together.
#[derive(Clone, Debug, Default, Serialize)]
pub struct GroupSizes {
    pub customers: usize,
    pub groups: usize,
    pub linked_customers: usize,
    pub largest: usize,
    /// Constraints that hold the largest group together, with the pairs that each joins.
    pub largest_held_by: Vec<(String, u64)>,
}

/// Rows whose parent does not exist: possible under constraints that were not validated, or loaded with triggers off.
pub async fn orphans(snapshot: &Transaction<'_>, scope: &Scope) -> Result<Vec<Finding>, Error> {
    let paths = scope.owned.iter().filter_map(|owned| owned.path.first());
    let keys: Vec<&ForeignKey> = paths.chain(&scope.links).chain(&scope.reference_keys).collect();
    let mut findings = Vec::new();
    for key in keys {
        let set = key
            .columns
            .iter()
            .map(|column| format!("c.{} is not null", quote_identifier(column)))
            .collect::<Vec<_>>()
            .join(" and ");
        let sql = format!(
            "select count(*) from {} as c where {set} and not exists (select from {} as r where {})",
            key.table.sql(),
            key.referenced.sql(),
            key.condition("c", "r")
        );
        let orphans = count(snapshot, &format!("count the orphans of {}", key.table), &sql).await?;
        if orphans > 0 {
            findings.push(blocker(
                "OrphanRows",
                &key.table,
                format!("{orphans} rows violate {}; delete them or restore their parents.", key.name),
            ));
        }
        if !key.validated {
            findings.push(finding(
                Severity::Warning,
                "ConstraintNotValidated",
                &key.table,
                format!("{} was never validated; validate it.", key.name),
            ));
        }
    }
    Ok(findings)
}

/// Checks that were never validated: the target's server enforces them for each row that lands.
pub async fn checks(snapshot: &Transaction<'_>, scope: &Scope) -> Result<Vec<Finding>, Error> {
    let mut findings = Vec::new();
    for table in scope.tables() {
        for check in table.checks.iter().filter(|check| !check.validated) {
            findings.push(finding(
                Severity::Warning,
                "ConstraintNotValidated",
                &table.name,
                format!("{} was never validated; validate it.", check.name),
            ));
            let broken = breaks_check(table, check);
            let sql = format!("select count(*) from {} as t where {broken}", table.name.sql());
            let rows = count(snapshot, &format!("count the rows that break {}", check.name), &sql).await?;
            if rows > 0 {
                findings.push(blocker(
                    "CheckViolated",
                    &table.name,
                    format!("{rows} rows break the check {} and could not land; correct or delete them.", check.name),
                ));
            }
        }
    }
    Ok(findings)
}

/// Rows that the owner path leads to no customer.
pub async fn unowned(snapshot: &Transaction<'_>, scope: &Scope) -> Result<Vec<Finding>, Error> {
    let mut findings = Vec::new();
    for owned in scope.owned.iter().filter(|owned| may_be_unowned(owned, scope)) {
        let join = owned.customer_join("t", "p");
        let table = owned.table.name.sql();
        let sql = format!(
            "select (select count(*) from {table}) - (select count(*) from {table} as t{} where {} is not null)",
            join.joins, join.customer
        );
        let what = format!("count the rows of {} that have no customer", owned.table.name);
        let rows = count(snapshot, &what, &sql).await?;
        if rows > 0 {
            findings.push(blocker(
                "UnownedRows",
                &owned.table.name,
                format!(
                    "{rows} rows lead to no customer over {} and would stay behind; give them one, choose another foreign key in \
                     dataset.owners, or exclude the table.",
                    path(owned)
                ),
            ));
        }
    }
    Ok(findings)
}

/// Along not-null foreign keys nothing can be unowned that is no orphan.
fn may_be_unowned(owned: &OwnedTable, scope: &Scope) -> bool {
    owned.path.iter().any(|key| {
        let table = scope.owned_table(&key.table);
        key.columns
            .iter()
            .any(|name| table.and_then(|owned| owned.table.column(name)).is_none_or(|column| !column.not_null))
    })
}

fn path(owned: &OwnedTable) -> String {
    owned.path.iter().map(|key| key.columns.join("+")).collect::<Vec<_>>().join(", then ")
}

/// Rows of the target that cannot live beside the source's.
pub async fn collisions(
    (source, snapshot): (&Session, &Transaction<'_>),
    target: &mut Session,
    (scope, existing): (&Scope, &Catalog),
) -> Result<Vec<Finding>, Error> {
    let mut findings = Vec::new();
    for owned in &scope.owned {
        let table = &owned.table;
        let Some(there) = existing.tables.get(&table.name) else {
            continue;
        };
        let mut keys = vec![("KeyCollision", &table.primary_key)];
        keys.extend(there.uniques.iter().map(|unique| ("UniqueCollision", &unique.columns)));
        for (code, columns) in keys {
            if columns.iter().any(|column| table.column(column).is_none()) {
                continue;
            }
            let rows = collision::count(source, target, (table, columns)).await?;
            if rows > 0 {
                findings.push(blocker(
                    code,
                    &table.name,
                    format!(
                        "{rows} rows of the target have values in ({}) that rows of the source have too; change them on one side.",
                        columns.join(", ")
                    ),
                ));
            }
        }
    }
    for reference in &scope.reference {
        let table = &reference.table;
        if existing.tables.contains_key(&table.name) {
            findings.extend(reference_differs(snapshot, target, table).await?);
        }
    }
    Ok(findings)
}

async fn reference_differs(
    snapshot: &Transaction<'_>,
    target: &mut Session,
    table: &crate::worker::postgres::model::Table,
) -> Result<Option<Finding>, Error> {
    let reading = target.transaction().await.map_err(Error::database("read the target"))?;
    let there = sum_of_table(&reading, table).await?;
    if there.rows == 0 || sum_of_table(snapshot, table).await? == there {
        return Ok(None);
    }
    Ok(Some(blocker(
        "ReferenceRowsDiffer",
        &table.name,
        format!(
            "The target has {} rows of this shared table that are not the source's; empty the target's table or make them equal.",
            there.rows
        ),
    )))
}

/// Groups, and a word about one that is large.
pub async fn groups(snapshot: &Transaction<'_>, scope: &Scope) -> Result<(GroupSizes, Vec<Finding>), Error> {
    let customers = read_customers(snapshot, scope, None).await?;
    let mut groups = read_links(snapshot, scope, &customers).await?;
    let collected = groups.collect();
    let largest = collected.iter().max_by_key(|group| group.len());
    let mut sizes = GroupSizes {
        customers: customers.len(),
        groups: collected.len(),
        linked_customers: collected.iter().map(Vec::len).filter(|size| *size > 1).sum(),
        largest: largest.map_or(0, Vec::len),
        largest_held_by: Vec::new(),
    };
    let is_large = sizes.largest > 1 && sizes.largest * LARGE_SHARE >= customers.len();
    let Some(first) = largest.and_then(|group| group.first()).filter(|_| is_large) else {
        return Ok((sizes, Vec::new()));
    };
    sizes.largest_held_by = held_by(snapshot, scope, (&customers, &mut groups), *first).await?;
    let names: Vec<&str> = sizes.largest_held_by.iter().map(|(name, _)| name.as_str()).collect();
    let message = format!(
        "{} of {} customers are linked to one group by {} and can only move together; a smaller cohort cannot hold them.",
        sizes.largest,
        sizes.customers,
        names.join(", ")
    );
    let warning = finding(Severity::Warning, "GroupLarge", &scope.root, message);
    Ok((sizes, vec![warning]))
}

async fn held_by(
    snapshot: &Transaction<'_>,
    scope: &Scope,
    (customers, groups): (&Customers, &mut Groups),
    first: u32,
) -> Result<Vec<(String, u64)>, Error> {
    let root = groups.root(first as usize);
    links_within(snapshot, (scope, customers), groups, root).await
}

/// The number of rows of every table, counted.
pub async fn rows(snapshot: &Transaction<'_>, scope: &Scope) -> Result<Vec<(String, i64)>, Error> {
    let mut counted = Vec::new();
    for table in scope.tables() {
        let sql = format!("select count(*) from {}", table.name.sql());
        let rows = count(snapshot, &format!("count the rows of {}", table.name), &sql).await?;
        counted.push((table.name.to_string(), signed(rows)));
    }
    Ok(counted)
}

async fn count(snapshot: &Transaction<'_>, attempted: &str, sql: &str) -> Result<i64, Error> {
    snapshot.query_one(sql, &[]).await.map(|row| row.get(0)).map_err(Error::database(attempted))
}
