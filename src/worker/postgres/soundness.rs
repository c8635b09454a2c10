//! What no comparison of rows can see: constraints that are absent or not in force, indexes that are broken, sequences behind.
//! Called by Validate on the target, and by Cutover for the sequences.
//! Must read the catalogue as it is now; reads no row but the largest key of a column that draws from a sequence.

use tokio_postgres::Transaction;

use super::identifier::{TableName, quote_identifier};
use super::model::{Catalog, ForeignKey, Scope, Sequence};
use crate::contract::{Finding, Severity};
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

/// Constraints, triggers and indexes of the scope that are there but not in force.
pub async fn out_of_force(transaction: &Transaction<'_>, scope: &Scope) -> Result<Vec<Finding>, Error> {
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
        scope.contains(&table).then(|| constraint_finding(row.get(3), &table, row.get(2)))
    });
    Ok(findings.collect())
}

/// Sequences whose next value, or a later one, is a key that exists.
pub async fn sequences_behind(
    transaction: &Transaction<'_>,
    (scope, catalog): (&Scope, &Catalog),
) -> Result<Vec<Finding>, Error> {
    let mut findings = Vec::new();
    for sequence in scope.sequences(catalog) {
        let Some((table, column)) = &sequence.column else {
            continue;
        };
        if collides(transaction, sequence, (table, column)).await? {
            let message = format!(
                "The sequence {} of column {column} would draw keys that exist; set it above the largest key.",
                sequence.name
            );
            findings.push(finding("SequenceBehind", table, &message));
        }
    }
    Ok(findings)
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
