//! The record of writes: an intent before each one, and what the database answered.
//! Written by `traffic/` and `break_links.rs`, read by `verify.rs`. Must only ever grow.

use anyhow::Context;
use godwit::contract::Side;
use tokio_postgres::Client;

use crate::history::{Event, Kind, Operation, RowKey};

/// A row as the database returned it after it was written.
#[derive(Clone, Debug)]
pub struct Written {
    pub operation: Operation,
    pub row: RowKey,
    pub account: i32,
    /// Hash of the whole row; none when it was deleted.
    pub hash: Option<String>,
}

/// What is about to be written, and to whom it belongs.
#[derive(Clone, Debug)]
pub struct Intent {
    pub side: Side,
    /// None for a customer that is only being created.
    pub account: Option<i32>,
    pub cohort: String,
}

/// An open record.
pub struct Record {
    client: Client,
}

impl Record {
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    pub fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// Durable before the write begins, so that a write whose answer got lost is known to be in doubt.
    pub async fn intend(&self, intent: &Intent) -> anyhow::Result<i64> {
        let row = self
            .client
            .query_one(
                "insert into traffic.record (event, side, account, cohort) values ('intent', $1, $2, $3) returning seq",
                &[&side_name(intent.side), &intent.account, &intent.cohort],
            )
            .await
            .context("failed to record an intent")?;
        Ok(row.get(0))
    }

    pub async fn confirm(&self, number: i64, intent: &Intent, written: &[Written]) -> anyhow::Result<()> {
        let operations: Vec<&str> = written.iter().map(|w| w.operation.name()).collect();
        let tables: Vec<&str> = written.iter().map(|w| w.row.table.as_str()).collect();
        let keys: Vec<&str> = written.iter().map(|w| w.row.key.as_str()).collect();
        let accounts: Vec<i32> = written.iter().map(|w| w.account).collect();
        let hashes: Vec<Option<&str>> = written.iter().map(|w| w.hash.as_deref()).collect();
        self.client
            .execute(
                "insert into traffic.record (intent, event, side, cohort, operation, table_name, key, account, hash) \
                 select $1, 'confirmed', $2, $3, w.operation, w.table_name, w.key, w.account, w.hash \
                 from unnest($4::text[], $5::text[], $6::text[], $7::integer[], $8::text[]) \
                   as w (operation, table_name, key, account, hash)",
                &[&number, &side_name(intent.side), &intent.cohort, &operations, &tables, &keys, &accounts, &hashes],
            )
            .await
            .context("failed to record a confirmed write")?;
        Ok(())
    }

    /// The database said no before anything was committed.
    pub async fn refuse(&self, number: i64, intent: &Intent) -> anyhow::Result<()> {
        self.client
            .execute(
                "insert into traffic.record (intent, event, side, account, cohort) values ($1, 'refused', $2, $3, $4)",
                &[&number, &side_name(intent.side), &intent.account, &intent.cohort],
            )
            .await
            .context("failed to record a refusal")?;
        Ok(())
    }

    /// How long users of a cohort could not write, before they could on this side.
    pub async fn pause(&self, intent: &Intent, millis: i64, attempts: i64) -> anyhow::Result<()> {
        self.client
            .execute(
                "insert into traffic.pause (cohort, side, began_at, millis, attempts) \
                 values ($1, $2, clock_timestamp() - $3::bigint * interval '1 millisecond', $3, $4)",
                &[&intent.cohort, &side_name(intent.side), &millis, &attempts],
            )
            .await
            .context("failed to record a pause")?;
        Ok(())
    }

    /// Adds to a running total.
    pub async fn tally(&self, name: &str, more: i64) -> anyhow::Result<()> {
        self.client
            .execute(
                "insert into traffic.tally as t (name, value) values ($1, $2) \
                 on conflict (name) do update set value = t.value + excluded.value",
                &[&name, &more],
            )
            .await
            .context("failed to record a tally")?;
        Ok(())
    }

    /// Confirmed writes on one side for one cohort, so far.
    pub async fn confirmed_writes(&self, side: Side, cohort: &str) -> anyhow::Result<i64> {
        let row = self
            .client
            .query_one(
                "select count(*) from traffic.record where event = 'confirmed' and side = $1 and cohort = $2",
                &[&side_name(side), &cohort],
            )
            .await
            .context("failed to count confirmed writes")?;
        Ok(row.get(0))
    }

    /// Everything, oldest first.
    pub async fn events(&self) -> anyhow::Result<Vec<Event>> {
        self.client
            .query(
                "select seq, intent, event, side, operation, table_name, key, account, cohort, hash \
                 from traffic.record order by seq",
                &[],
            )
            .await
            .context("failed to read the record")?
            .iter()
            .map(event_of)
            .collect()
    }

    /// Per cohort and the side on which it could go on: the longest pause, in milliseconds.
    pub async fn pauses(&self) -> anyhow::Result<Vec<(String, Side, i64)>> {
        let rows = self
            .client
            .query(
                "select cohort, side, max(millis) from traffic.pause group by cohort, side order by cohort, side",
                &[],
            )
            .await
            .context("failed to read the pauses")?;
        rows.iter().map(|row| Ok((row.get(0), side_named(row.get(1))?, row.get(2)))).collect()
    }

    pub async fn tallies(&self) -> anyhow::Result<Vec<(String, i64)>> {
        let rows = self
            .client
            .query("select name, value from traffic.tally order by name", &[])
            .await
            .context("failed to read the tallies")?;
        Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
    }
}

fn event_of(row: &tokio_postgres::Row) -> anyhow::Result<Event> {
    let kind = match row.get::<_, &str>("event") {
        "intent" => Kind::Intent,
        "refused" => Kind::Refused,
        _ => Kind::Confirmed {
            operation: Operation::named(row.get("operation"))?,
            row: RowKey { table: row.get("table_name"), key: row.get("key") },
            hash: row.get("hash"),
        },
    };
    Ok(Event {
        number: row.get("seq"),
        intent: row.get("intent"),
        side: side_named(row.get("side"))?,
        account: row.get("account"),
        cohort: row.get("cohort"),
        kind,
    })
}

pub fn side_name(side: Side) -> &'static str {
    match side {
        Side::Source => "Source",
        Side::Target => "Target",
    }
}

pub fn side_named(name: &str) -> anyhow::Result<Side> {
    match name {
        "Source" => Ok(Side::Source),
        "Target" => Ok(Side::Target),
        other => anyhow::bail!("{other:?} is no side"),
    }
}
