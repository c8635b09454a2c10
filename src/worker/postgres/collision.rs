//! Keys that both sides have already: rows that could not land.
//! Used by Assess (a finding) and Prepare (a refusal). Reads keys of the target's rows, which are few or none in a new system.
//! Must not show a key: only how many there are.

use futures::TryStreamExt;
use tokio_postgres::types::ToSql;

use super::identifier::quote_identifier;
use super::model::{Operator, Table};
use super::session::Session;
use crate::worker::error::Error;

/// Keys asked about at once.
const BATCH: usize = 5_000;

/// How many rows of the target's table have values in `columns` (its key, or a unique index) that a row of the source has too.
pub async fn count(source: &Session, target: &Session, (table, columns): (&Table, &[String])) -> Result<i64, Error> {
    let failed = || Error::database(format!("look for keys of {} on both sides", table.name));
    let keys: Vec<String> = columns.iter().map(|key| quote_identifier(key)).collect();
    let texts: Vec<String> = keys.iter().map(|key| format!("{key}::pg_catalog.text")).collect();
    let select = format!("select {} from {} where ({}) is not null", texts.join(", "), table.name.sql(), row_of(&keys));
    let rows = target.query_raw(&select, std::iter::empty::<&str>()).await.map_err(failed())?;
    let mut rows = std::pin::pin!(rows);
    let mut batch: Vec<Vec<String>> = vec![Vec::new(); columns.len()];
    let mut found = 0;
    while let Some(row) = rows.try_next().await.map_err(failed())? {
        for (at, keys) in batch.iter_mut().enumerate() {
            keys.push(row.get(at));
        }
        if batch.first().is_some_and(|keys| keys.len() >= BATCH) {
            found += count_batch(source, (table, columns), &batch).await?;
            batch.iter_mut().for_each(Vec::clear);
        }
    }
    Ok(found + count_batch(source, (table, columns), &batch).await?)
}

/// A row value `is not null` when every part of it is: a unique index ignores the others.
fn row_of(keys: &[String]) -> String {
    format!("row({})", keys.join(", "))
}

async fn count_batch(
    source: &Session,
    (table, columns): (&Table, &[String]),
    batch: &[Vec<String>],
) -> Result<i64, Error> {
    if batch.first().is_none_or(Vec::is_empty) {
        return Ok(0);
    }
    let arrays: Vec<String> = (1..=batch.len()).map(|number| format!("${number}::pg_catalog.text[]")).collect();
    let names: Vec<String> = (1..=batch.len()).map(|number| format!("k{number}")).collect();
    let conditions: Vec<String> = columns
        .iter()
        .zip(&names)
        .map(|(column, key)| {
            let known = table.column(column);
            let kind = known.map_or("text", |column| column.type_name.as_str());
            let equality = known.and_then(|column| column.equality.as_ref());
            let equals = equality.map_or_else(|| "=".to_owned(), Operator::sql);
            format!("t.{} {equals} u.{key}::{kind}", quote_identifier(column))
        })
        .collect();
    // Not qualified: with several arrays `unnest` is syntax, and only known by its bare name.
    let sql = format!(
        "select count(*) from unnest({}) as u({}) join {} as t on {}",
        arrays.join(", "),
        names.join(", "),
        table.name.sql(),
        conditions.join(" and ")
    );
    let parameters: Vec<&(dyn ToSql + Sync)> = batch.iter().map(|keys| keys as &(dyn ToSql + Sync)).collect();
    source
        .query_one(&sql, &parameters)
        .await
        .map(|row| row.get(0))
        .map_err(Error::database(format!("look for keys of {} on both sides", table.name)))
}
