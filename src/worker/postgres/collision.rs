//! Keys that both sides have already: rows that could not land.
//! Used by Assess (a finding) and Prepare (a refusal). Reads keys of the target's rows, which are few or none in a new system.
//! Must not show a key: only how many there are.

use futures::TryStreamExt;
use tokio_postgres::types::ToSql;

use super::identifier::quote_identifier;
use super::model::Table;
use super::session::Session;
use crate::worker::error::Error;

/// Keys asked about at once.
const BATCH: usize = 5_000;

/// How many rows of the target's table have a key that a row of the source has too.
pub async fn count(source: &Session, target: &Session, table: &Table) -> Result<i64, Error> {
    let failed = || Error::database(format!("look for keys of {} on both sides", table.name));
    let keys = table.primary_key.iter().map(|key| quote_identifier(key));
    let select = format!(
        "select {} from {}",
        keys.map(|key| format!("{key}::pg_catalog.text")).collect::<Vec<_>>().join(", "),
        table.name.sql()
    );
    let rows = target.query_raw(&select, std::iter::empty::<&str>()).await.map_err(failed())?;
    let mut rows = std::pin::pin!(rows);
    let mut batch: Vec<Vec<String>> = vec![Vec::new(); table.primary_key.len()];
    let mut found = 0;
    while let Some(row) = rows.try_next().await.map_err(failed())? {
        for (at, keys) in batch.iter_mut().enumerate() {
            keys.push(row.get(at));
        }
        if batch.first().is_some_and(|keys| keys.len() >= BATCH) {
            found += count_batch(source, table, &batch).await?;
            batch.iter_mut().for_each(Vec::clear);
        }
    }
    Ok(found + count_batch(source, table, &batch).await?)
}

async fn count_batch(source: &Session, table: &Table, batch: &[Vec<String>]) -> Result<i64, Error> {
    if batch.first().is_none_or(Vec::is_empty) {
        return Ok(0);
    }
    let arrays: Vec<String> = (1..=batch.len()).map(|number| format!("${number}::pg_catalog.text[]")).collect();
    let names: Vec<String> = (1..=batch.len()).map(|number| format!("k{number}")).collect();
    let conditions: Vec<String> = table
        .primary_key
        .iter()
        .zip(&names)
        .map(|(column, key)| {
            let kind = table.column(column).map_or("text", |column| column.type_name.as_str());
            format!("t.{} = u.{key}::{kind}", quote_identifier(column))
        })
        .collect();
    let sql = format!(
        "select count(*) from pg_catalog.unnest({}) as u({}) join {} as t on {}",
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
