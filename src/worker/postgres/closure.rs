//! The set-based proof that references hold: with foreign-key triggers off it is the only one.
//! Called before a landing commits, by Validate, Verify and the integrity check.
//! Must look at the tables as they are, never at what a constraint claims.

use tokio_postgres::Transaction;

use super::compare::Class;
use super::identifier::{TableName, quote_identifier, quote_literal};
use super::keys::{KeyTable, write_lines};
use super::model::{Catalog, Check, Chunks, ForeignKey, OwnedTable, Scope, Table};
use crate::contract::{Finding, Severity, exit};
use crate::worker::error::Error;
use crate::worker::storage::Writer;

/// Rows that break a constraint, with the query that lists their keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub table: TableName,
    pub constraint: String,
    pub rows: u64,
    code: &'static str,
    keys: String,
}

impl Violation {
    pub fn finding(&self) -> Finding {
        let message = match self.code {
            "OrphanRows" => format!("{} rows refer by {} to rows that do not exist.", self.rows, self.constraint),
            "ReferredByOthers" => format!(
                "{} rows of other customers refer to the cohort's rows by {}; remove those links, then retry.",
                self.rows, self.constraint
            ),
            "CheckViolated" => format!("{} rows break the check {}, which claims to hold.", self.rows, self.constraint),
            "RowsOfNobody" => format!(
                "{} customers are on the target that no cohort brought and that were not there before; find out who writes past \
                 the fence, and remove them.",
                self.rows
            ),
            _ => format!("{} rows are doubles under {}.", self.rows, self.constraint),
        };
        Finding { severity: Severity::Blocker, code: self.code.to_owned(), object: self.table.to_string(), message }
    }

    /// Appends the keys of the rows to an evidence file.
    pub async fn write_evidence(&self, transaction: &Transaction<'_>, writer: &mut Writer) -> Result<(), Error> {
        write_lines(transaction, &self.keys, writer).await
    }
}

/// Which rows of a table to prove: the `from … where …` of a query whose alias for the table is `t`.
struct Extent<'a> {
    table: &'a Table,
    from: String,
}

/// Every reference out of the customers' rows, and every deferrable unique constraint among them.
///
/// The first hop of an owner path is proven by counting: a row without its parent belongs to no customer.
pub async fn of_entry(
    transaction: &Transaction<'_>,
    (scope, catalog): (&Scope, &Catalog),
    entry: i32,
    chunks: Chunks,
) -> Result<Vec<Violation>, Error> {
    let mut found = Vec::new();
    for owned in &scope.owned {
        let extent = Extent { table: &owned.table, from: owned.from_entry(entry, chunks) };
        for key in references(catalog, owned) {
            found.extend(orphans(transaction, key, &extent).await?);
        }
        found.extend(doubles(transaction, catalog, &extent).await?);
    }
    Ok(found)
}

/// Holds what the cohort's rows refer to outside the customers' own tables, until the landing ends; before the proof.
pub async fn hold_parents(
    transaction: &Transaction<'_>,
    (scope, catalog): (&Scope, &Catalog),
    entry: i32,
    chunks: Chunks,
) -> Result<(), Error> {
    for owned in &scope.owned {
        for key in references(catalog, owned) {
            let from = owned.from_entry(entry, chunks);
            lock_parents(transaction, scope, key, &from).await?;
        }
    }
    Ok(())
}

/// The same proof for the rows that a difference brought, and for what referred to the rows that it took away.
pub async fn of_difference(
    transaction: &Transaction<'_>,
    (scope, catalog): (&Scope, &Catalog),
    keys: &KeyTable,
) -> Result<Vec<Violation>, Error> {
    let extent = Extent { table: keys.table(), from: keys.from(&[Class::Missing, Class::Different]) };
    let mut found = Vec::new();
    for key in of_table(catalog, &keys.table().name) {
        lock_parents(transaction, scope, key, &extent.from).await?;
        found.extend(orphans(transaction, key, &extent).await?);
    }
    found.extend(doubles(transaction, catalog, &extent).await?);
    for key in referring_to(catalog, &keys.table().name) {
        let join = keys.join_referencing(key, "t").unwrap_or_default();
        let Some(child) = catalog.tables.get(&key.table) else {
            continue;
        };
        let extent = Extent { table: child, from: format!("from {} as t{join} where true", key.table.sql()) };
        found.extend(orphans(transaction, key, &extent).await?);
    }
    Ok(found)
}

/// Rows of others that refer to the cohort's rows: taking those away would leave them without a parent.
pub async fn from_others(
    transaction: &Transaction<'_>,
    (scope, catalog): (&Scope, &Catalog),
    entry: i32,
    chunks: Chunks,
) -> Result<Vec<Violation>, Error> {
    let chunks =
        chunks.map_or_else(String::new, |(first, last)| format!(" and of_parent.chunk between {first} and {last}"));
    let mut found = Vec::new();
    for owned in &scope.owned {
        for key in referring_to(catalog, &owned.table.name) {
            let Some(child) = catalog.tables.get(&key.table) else {
                continue;
            };
            let parent = owned.customer_join("parent", "q");
            let from = format!(
                "from {} as t join {} as parent on {}{} join godwit.member as of_parent on of_parent.customer = {} \
                 where of_parent.entry = {entry}{chunks}",
                key.table.sql(),
                key.referenced.sql(),
                key.condition("t", "parent"),
                parent.joins,
                parent.customer
            );
            let foreign = scope.owned_table(&key.table).map_or_else(
                || "true".to_owned(),
                |child| {
                    let own = child.customer_join("same", "o");
                    format!(
                        "not exists (select from {} as same{} join godwit.member as own on own.customer = {} where {} and own.entry = {entry})",
                        child.table.name.sql(),
                        own.joins,
                        own.customer,
                        child.table.same_key("same", "t")
                    )
                },
            );
            let extent = Extent { table: child, from };
            found.extend(count(transaction, &extent, &foreign, ("ReferredByOthers", &key.name)).await?);
        }
    }
    Ok(found)
}

/// Rows that break a check which the target claims to keep: marked valid over them, or meaning something else by now.
///
/// Only Validate asks: while rows land the server enforces checks itself.
pub async fn of_checks(
    transaction: &Transaction<'_>,
    (scope, catalog): (&Scope, &Catalog),
    entry: i32,
) -> Result<Vec<Violation>, Error> {
    let mut found = Vec::new();
    for owned in &scope.owned {
        let table = catalog.tables.get(&owned.table.name).unwrap_or(&owned.table);
        for check in table.checks.iter().filter(|check| check.validated) {
            let extent = Extent { table: &owned.table, from: owned.from_entry(entry, None) };
            let code = ("CheckViolated", check.name.as_str());
            found.extend(count(transaction, &extent, &breaks_check(table, check), code).await?);
        }
    }
    Ok(found)
}

/// A condition on the row `t`: it breaks the check. Like the server's own test it lets NULL pass.
pub fn breaks_check(table: &Table, check: &Check) -> String {
    // The expression names columns alone; in a query of its own they can only be this row's.
    format!(
        "(select ({}) is false from (select t.*, t.tableoid) as {})",
        check.expression,
        quote_identifier(&table.name.name)
    )
}

/// Customers on the target that are in no entry of its ledger, while new ones are born on the source.
pub async fn of_nobody(transaction: &Transaction<'_>, scope: &Scope) -> Result<Option<Violation>, Error> {
    let Some(root) = scope.root_table() else {
        return Ok(None);
    };
    let extent = Extent { table: &root.table, from: format!("from {} as t where true", root.table.name.sql()) };
    let nobodys = format!(
        "not exists (select from godwit.member as member where member.customer = t.{})",
        quote_identifier(&scope.root_key)
    );
    count(transaction, &extent, &nobodys, ("RowsOfNobody", "the ledger")).await
}

/// Every reference in and into the dataset, over whole tables: sees rows that belong to no customer any more.
pub async fn of_whole_tables(
    transaction: &Transaction<'_>,
    (scope, catalog): (&Scope, &Catalog),
) -> Result<Vec<Violation>, Error> {
    let mut found = Vec::new();
    let concerned = catalog
        .foreign_keys
        .iter()
        // Where the database itself never vouched for all rows, only our own can be judged, by `of_entry`.
        .filter(|key| key.validated)
        .filter(|key| scope.contains(&key.table) || scope.contains(&key.referenced));
    for key in concerned {
        let Some(child) = catalog.tables.get(&key.table) else {
            continue;
        };
        let extent = Extent { table: child, from: format!("from {} as t where true", key.table.sql()) };
        found.extend(orphans(transaction, key, &extent).await?);
    }
    Ok(found)
}

/// One reference, over the whole table.
pub async fn of_key(
    transaction: &Transaction<'_>,
    (key, child): (&ForeignKey, &Table),
) -> Result<Option<Violation>, Error> {
    let extent = Extent { table: child, from: format!("from {} as t where true", key.table.sql()) };
    orphans(transaction, key, &extent).await
}

/// Any violation ends the step: the landing is not committed.
pub fn refuse(violations: &[Violation]) -> Result<(), Error> {
    if violations.is_empty() {
        return Ok(());
    }
    Err(Error::Refused { exit: exit::DATA_DIFFERS, findings: violations.iter().map(Violation::finding).collect() })
}

/// A condition on the row `t` of a table: nothing refers to it.
pub fn unreferenced(catalog: &Catalog, table: &TableName) -> String {
    let conditions: Vec<_> = referring_to(catalog, table)
        .map(|key| {
            format!("not exists (select from {} as child where {})", key.table.sql(), key.condition("child", "t"))
        })
        .collect();
    if conditions.is_empty() {
        return "true".to_owned();
    }
    conditions.join(" and ")
}

fn references<'a>(catalog: &'a Catalog, owned: &'a OwnedTable) -> impl Iterator<Item = &'a ForeignKey> {
    of_table(catalog, &owned.table.name).filter(|key| {
        owned.path.first().is_none_or(|hop| hop.columns != key.columns || hop.referenced != key.referenced)
    })
}

fn of_table<'a>(catalog: &'a Catalog, table: &'a TableName) -> impl Iterator<Item = &'a ForeignKey> {
    catalog.foreign_keys.iter().filter(move |key| key.table == *table)
}

fn referring_to<'a>(catalog: &'a Catalog, table: &'a TableName) -> impl Iterator<Item = &'a ForeignKey> {
    catalog.foreign_keys.iter().filter(move |key| key.referenced == *table)
}

/// Holds the referenced rows that another writer could delete between this proof and the commit, as the trigger would.
///
/// Parents inside the dataset's own customers are behind the same fence as the rows themselves.
async fn lock_parents(transaction: &Transaction<'_>, scope: &Scope, key: &ForeignKey, from: &str) -> Result<(), Error> {
    if scope.owned_table(&key.referenced).is_some() {
        return Ok(());
    }
    // Distinct values first: a few reference rows are found once, not once for each row that refers to them.
    let columns: Vec<_> = key.columns.iter().map(|column| format!("t.{}", quote_identifier(column))).collect();
    let lock = format!(
        "select count(*) from (select 1 from {parent} as parent join (select distinct {columns} {from}) as wanted on {same} \
         for key share of parent) as locked",
        parent = key.referenced.sql(),
        columns = columns.join(", "),
        same = key.condition("wanted", "parent"),
    );
    transaction
        .batch_execute(&lock)
        .await
        .map_err(Error::database(format!("lock the rows that {} refers to", key.name)))
}

fn are(key: &ForeignKey, wanted: &str) -> Vec<String> {
    key.columns.iter().map(|column| format!("t.{} is {wanted}", quote_identifier(column))).collect()
}

/// A condition on the row `t`: it refers to a row that is not there.
pub fn is_orphan(key: &ForeignKey) -> String {
    format!(
        "({} and not exists (select from {} as parent where {}))",
        are(key, "not null").join(" and "),
        key.referenced.sql(),
        key.condition("t", "parent")
    )
}

async fn orphans(
    transaction: &Transaction<'_>,
    key: &ForeignKey,
    extent: &Extent<'_>,
) -> Result<Option<Violation>, Error> {
    let mut broken = is_orphan(key);
    if key.match_full {
        let (any_null, any_given) = (are(key, "null").join(" or "), are(key, "not null").join(" or "));
        broken = format!("({broken} or (({any_null}) and ({any_given})))");
    }
    count(transaction, extent, &broken, ("OrphanRows", &key.name)).await
}

async fn doubles(
    transaction: &Transaction<'_>,
    catalog: &Catalog,
    extent: &Extent<'_>,
) -> Result<Vec<Violation>, Error> {
    // What the target enforces counts, and that is in the target's catalogue.
    let table = catalog.tables.get(&extent.table.name).unwrap_or(extent.table);
    let key = table.primary_key_deferrable.then_some(("primary key", &table.primary_key, false));
    let uniques = table
        .uniques
        .iter()
        .filter(|unique| unique.deferrable)
        .map(|unique| (unique.name.as_str(), &unique.columns, unique.nulls_equal));
    let mut found = Vec::new();
    for (name, columns, nulls_equal) in key.into_iter().chain(uniques) {
        let same: Vec<_> = columns
            .iter()
            .map(|column| {
                let equal = table.equal(column, ("other", "t"));
                let column = quote_identifier(column);
                if nulls_equal {
                    format!("({equal} or (other.{column} is null and t.{column} is null))")
                } else {
                    equal
                }
            })
            .collect();
        let broken = format!(
            "exists (select from {} as other where {} and (other.tableoid, other.ctid) <> (t.tableoid, t.ctid))",
            table.name.sql(),
            same.join(" and ")
        );
        found.extend(count(transaction, extent, &broken, ("DoubleRows", name)).await?);
    }
    Ok(found)
}

async fn count(
    transaction: &Transaction<'_>,
    extent: &Extent<'_>,
    broken: &str,
    (code, constraint): (&'static str, &str),
) -> Result<Option<Violation>, Error> {
    let table = &extent.table.name;
    let rows: i64 = transaction
        .query_one(&format!("select count(*) {} and {broken}", extent.from), &[])
        .await
        .and_then(|row| row.try_get(0))
        .map_err(Error::database(format!("prove {constraint} of {table}")))?;
    let key: Vec<_> =
        extent.table.primary_key.iter().map(|column| format!("t.{}::text", quote_identifier(column))).collect();
    let keys = format!(
        "select pg_catalog.json_build_object('table', {}, 'class', {}, 'constraint', {}, 'key', \
         pg_catalog.json_build_array({}))::text {} and {broken}",
        quote_literal(&table.to_string()),
        quote_literal(code),
        quote_literal(constraint),
        key.join(", "),
        extent.from
    );
    Ok((rows > 0).then(|| Violation {
        table: table.clone(),
        constraint: constraint.to_owned(),
        rows: u64::try_from(rows).unwrap_or(0),
        code,
        keys,
    }))
}
