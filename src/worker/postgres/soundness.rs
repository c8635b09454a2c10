//! What no comparison of rows can see: constraints that are absent or not in force, indexes that are broken, sequences behind, a
//! fence that is down.
//! Called by Validate on the target, and by Cutover for the sequences.
//! Must read the catalogue as it is now; reads no row but the largest key of a column that draws from a sequence.

use tokio_postgres::{GenericClient, Transaction};

use super::fence;
use super::fence_sql::{INSERT_TRIGGER, ROW_TRIGGER, TRIGGERS};
use super::identifier::{TableName, quote_identifier};
use super::model::{Catalog, ForeignKey, Scope, Sequence};
use super::sequence;
use crate::contract::{Finding, Severity, code};
use crate::worker::error::Error;

/// Foreign keys and uniques that the source has and the target has not, or not in force.
pub fn missing_constraints(scope: &Scope, source: &Catalog, target: &Catalog) -> Vec<Finding> {
    let mut findings = Vec::new();
    let inside = |key: &&ForeignKey| scope.contains(&key.table) && scope.contains(&key.referenced);
    for key in source.foreign_keys.iter().filter(inside) {
        let same = target.foreign_keys.iter().find(|other| {
            (&other.table, &other.columns) == (&key.table, &key.columns)
                && (&other.referenced, &other.referenced_columns) == (&key.referenced, &key.referenced_columns)
        });
        let problem = match same {
            None => Some("ConstraintMissing"),
            Some(other) if key.validated && !other.validated => Some("ConstraintNotValidated"),
            Some(_) => None,
        };
        findings.extend(problem.map(|code| constraint_finding(code, &key.table, &key.name)));
    }
    for table in scope.tables() {
        let Some(other) = target.tables.get(&table.name) else {
            findings.push(finding("TableMissing", &table.name, "The target has no such table."));
            continue;
        };
        if other.primary_key != table.primary_key {
            findings.push(constraint_finding("ConstraintMissing", &table.name, "primary key"));
        }
        for unique in &table.uniques {
            let found = other.uniques.iter().any(|it| it.columns == unique.columns);
            if !found {
                findings.push(constraint_finding("ConstraintMissing", &table.name, &unique.name));
            }
        }
    }
    findings
}

/// Constraints, triggers and indexes of the scope that are there but not in force. A check that the source never validated either
/// is as it was.
pub async fn out_of_force(
    transaction: &Transaction<'_>,
    (scope, source): (&Scope, &Catalog),
) -> Result<Vec<Finding>, Error> {
    // A trigger that enforces a foreign key is internal; one that a user switched off is the user's business.
    let sql = "select n.nspname::text, c.relname::text, k.conname::text, 'ConstraintNotValidated' \
         from pg_catalog.pg_constraint k join pg_catalog.pg_class c on c.oid = k.conrelid \
         join pg_catalog.pg_namespace n on n.oid = c.relnamespace where not k.convalidated and k.contype = 'c' \
       union all \
       select distinct n.nspname::text, c.relname::text, k.conname::text, 'TriggerDisabled' \
         from pg_catalog.pg_trigger t join pg_catalog.pg_class c on c.oid = t.tgrelid \
         join pg_catalog.pg_namespace n on n.oid = c.relnamespace join pg_catalog.pg_constraint k on k.oid = t.tgconstraint \
         where t.tgisinternal and t.tgenabled = 'D' \
       union all \
       select n.nspname::text, c.relname::text, i.relname::text, 'IndexInvalid' \
         from pg_catalog.pg_index x join pg_catalog.pg_class c on c.oid = x.indrelid \
         join pg_catalog.pg_namespace n on n.oid = c.relnamespace join pg_catalog.pg_class i on i.oid = x.indexrelid \
         where not x.indisvalid or not x.indisready";
    let rows = transaction.query(sql, &[]).await.map_err(Error::database("look for constraints out of force"))?;
    let findings = rows.iter().filter_map(|row| {
        let table = TableName::new(row.get::<_, String>(0), row.get::<_, String>(1));
        let (name, code): (&str, &str) = (row.get(2), row.get(3));
        let as_on_source = code == "ConstraintNotValidated"
            && source
                .tables
                .get(&table)
                .is_some_and(|table| table.checks.iter().any(|check| check.name == name && !check.validated));
        (scope.contains(&table) && !as_on_source).then(|| constraint_finding(code, &table, name))
    });
    Ok(findings.collect())
}

/// Tables whose fence does not refuse writes: its triggers are gone or switched off. Partitions made since Prepare have the
/// triggers of rows by inheritance, and those are what guards rows.
pub async fn fence_down(
    client: &impl GenericClient,
    (scope, catalog): (&Scope, &Catalog),
    side: &str,
) -> Result<Vec<Finding>, Error> {
    let in_force = fence::fenced_tables(client).await?;
    let guarded = |table: &TableName, trigger: &str| in_force.iter().any(|(at, name)| at == table && name == trigger);
    let mut findings = Vec::new();
    for table in scope.tables() {
        let partitions = catalog.tables.get(&table.name).map_or(&[][..], |table| &table.partitions);
        let whole = TRIGGERS.iter().all(|trigger| guarded(&table.name, trigger));
        let rows = |partition| [ROW_TRIGGER, INSERT_TRIGGER].iter().all(|trigger| guarded(partition, trigger));
        if !whole || !partitions.iter().all(rows) {
            findings.push(finding(
                code::FENCE_DOWN,
                &table.name,
                &format!(
                    "The fence of the {side}'s table does not stand, so both sides could write; enable its triggers again with \
                     ALTER TABLE … ENABLE ALWAYS TRIGGER, for {}, and look for what was written meanwhile.",
                    TRIGGERS.join(", ")
                ),
            ));
        }
    }
    Ok(findings)
}

/// Sequences whose next value, or a later one, is a key that exists. Where keys are made of a sequence's values in another form
/// (a text with a prefix), the two sides' sequences are compared instead.
pub async fn sequences_behind(
    transaction: &Transaction<'_>,
    (scope, catalog): (&Scope, &Catalog),
    source: &Catalog,
) -> Result<Vec<Finding>, Error> {
    let mut findings = Vec::new();
    for sequence in scope.sequences(catalog) {
        for (table, column) in sequence.columns.iter().filter(|(table, _)| scope.contains(table)) {
            let known = catalog.tables.get(table).and_then(|table| table.column(column));
            let behind = if known.is_some_and(|column| column.number) {
                collides(transaction, sequence, (table, column)).await?
            } else {
                is_behind_source(transaction, sequence, source).await?
            };
            if behind {
                let message = format!(
                    "The sequence {} of column {column} would draw keys that exist; set it above the largest key.",
                    sequence.name
                );
                findings.push(finding("SequenceBehind", table, &message));
            }
        }
    }
    Ok(findings)
}

/// The source's state is that of its catalogue, read when the step began; what it drew since is far below the gap.
async fn is_behind_source(transaction: &Transaction<'_>, sequence: &Sequence, source: &Catalog) -> Result<bool, Error> {
    let Some(of_source) = source.sequences.iter().find(|other| other.name == sequence.name) else {
        return Ok(false);
    };
    let increment = of_source.increment;
    let next = of_source.last_value.map_or(of_source.start, |last| last.saturating_add(increment));
    let ours = sequence::read(transaction, &sequence.name).await?.next();
    // Split by parity, the two never draw the same.
    let apart = increment.abs() > 1 && ours.wrapping_sub(next) % increment != 0;
    let behind = if increment > 0 { ours < next } else { ours > next };
    Ok(behind && !apart)
}

/// Only keys that the sequence can still draw count: with odd and even split, the other side's never meet it.
async fn collides(
    transaction: &Transaction<'_>,
    sequence: &Sequence,
    (table, column): (&TableName, &str),
) -> Result<bool, Error> {
    let (column, increment) = (quote_identifier(column), sequence.increment);
    let order = if increment > 0 { ">=" } else { "<=" };
    let sql = format!(
        "select exists (select from {} as t, (select case when is_called then last_value::numeric + {increment} else last_value end as value \
           from {}) as next where t.{column} {order} next.value and pg_catalog.mod(t.{column}::numeric - next.value, {increment}) = 0)",
        table.sql(),
        sequence.name.sql()
    );
    transaction
        .query_one(&sql, &[])
        .await
        .and_then(|row| row.try_get(0))
        .map_err(Error::database(format!("compare the sequence {}", sequence.name)))
}

fn constraint_finding(code: &str, table: &TableName, name: &str) -> Finding {
    let message = match code {
        "ConstraintMissing" => format!("The target has no constraint like {name}; create it."),
        "ConstraintNotValidated" => {
            format!("The constraint {name} is not validated on the target; validate it.")
        }
        "TriggerDisabled" => format!("The triggers that enforce {name} are disabled; enable them."),
        _ => format!("The index {name} is not valid; rebuild it."),
    };
    finding(code, table, &message)
}

fn finding(code: &str, table: &TableName, message: &str) -> Finding {
    Finding {
        severity: Severity::Blocker,
        code: code.to_owned(),
        object: table.to_string(),
        message: message.to_owned(),
    }
}
