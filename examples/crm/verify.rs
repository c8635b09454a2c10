//! Looks for every confirmed write on the side that owns its customer, and prints what it found as one line of JSON.
//! Run as a Job when the traffic has ended. Must only read, and must print counts and keys, never rows.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;

use anyhow::Context;
use clap::Args;
use godwit::contract::{Owner, Side};
use serde::{Deserialize, Serialize};
use tokio_postgres::Client;

use crate::database::{self, Databases};
use crate::history::{self, Classes, Content, Event, Expected, Kind, Operation, RowKey};
use crate::record::Record;
use crate::routes::{self, RouteOptions, RouteTable, UNASSIGNED};
use crate::set_aside::{self, SetAsideOptions};

/// Most losses named; all are counted.
const MAX_NAMED: usize = 20;

#[derive(Args)]
pub struct Options {
    #[command(flatten)]
    databases: Databases,
    #[command(flatten)]
    routes: RouteOptions,
    #[command(flatten)]
    set_aside: SetAsideOptions,
}

/// What was found. The demo reads it from the Job's log.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Findings {
    pub confirmed: u64,
    pub found: u64,
    pub lost: u64,
    /// Confirmed writes on rows whose customer had a write with a lost answer, and that are not as recorded.
    pub in_doubt: u64,
    /// Confirmed writes on the new CRM that a cohort's way back set aside.
    pub set_aside_writes: u64,
    /// Rows behind them, per cohort and table.
    pub set_aside: BTreeMap<String, BTreeMap<String, Classes>>,
    /// Rows that Godwit exported when cohorts went back, per table, and the files they are in.
    pub exported: BTreeMap<String, Classes>,
    pub exported_files: u64,
    pub exported_bytes: u64,
    /// The first lost ones, as `cohort table key`.
    pub lost_rows: Vec<String>,
    pub cohorts: BTreeMap<String, CohortFindings>,
    pub mails: BTreeMap<String, Mails>,
    /// Requests of users: reads, writes, errors, missing.
    pub requests: BTreeMap<String, i64>,
}

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CohortFindings {
    pub confirmed: u64,
    pub found: u64,
    /// Longest time that its users could not write before they could on the new CRM.
    pub pause_millis: Option<i64>,
    /// The same, before they could on the old one: the way back.
    pub way_back_millis: Option<i64>,
}

/// Welcome mails in a CRM's outbox, and contacts that users created there: a copied contact gets no mail.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Mails {
    pub queued: i64,
    pub expected: i64,
}

/// The owner of each customer in the record.
struct Owners {
    cohorts: BTreeMap<i32, String>,
    table: RouteTable,
}

impl Owners {
    fn of(&self, account: i32) -> Side {
        let cohort = self.cohorts.get(&account).map_or(UNASSIGNED, String::as_str);
        match self.table.owner_of(cohort) {
            Owner::Target => Side::Target,
            // A cohort that is switching has lost nothing yet on the side it comes from.
            Owner::Source | Owner::None => Side::Source,
        }
    }
}

pub async fn run(options: &Options) -> anyhow::Result<()> {
    let source = database::connect(&options.databases.source_uri).await?;
    let target = database::connect(&options.databases.target_uri).await?;
    let record = Record::new(database::connect(&options.databases.record_uri).await?);
    let events = record.events().await?;
    let accounts: BTreeSet<i32> = events.iter().filter_map(|event| event.account).collect();
    let accounts: Vec<i32> = accounts.into_iter().collect();
    let owners =
        Owners { cohorts: routes::cohorts_of(&source, &accounts).await?, table: routes::read(&options.routes).await? };
    let replay = history::replay(&events, |account| owners.of(account));
    let mut findings = Findings {
        confirmed: replay.confirmed,
        set_aside_writes: replay.writes_set_aside,
        requests: record.tallies().await?.into_iter().collect(),
        ..Findings::default()
    };
    for (side, client) in [(Side::Source, &source), (Side::Target, &target)] {
        let expected: BTreeMap<&RowKey, &Expected> =
            replay.rows.iter().filter(|(_, expected)| owners.of(expected.account) == side).collect();
        let hashes = read_hashes(client, expected.keys().copied()).await?;
        for (key, expected) in expected {
            let in_doubt = replay.in_doubt.contains(&expected.account);
            findings.compare(key, expected, hashes.get(key), in_doubt);
        }
        let mails = count_mails(client, side, &events).await?;
        findings.mails.insert(crate::record::side_name(side).to_owned(), mails);
    }
    findings.set_aside = replay.set_aside;
    let exported = set_aside::read(&options.set_aside).await?;
    findings.exported = exported.tables;
    (findings.exported_files, findings.exported_bytes) = (exported.files, exported.bytes);
    for (cohort, side, longest) in record.pauses().await? {
        let cohort = findings.cohorts.entry(cohort).or_default();
        match side {
            Side::Source => cohort.way_back_millis = Some(longest),
            Side::Target => cohort.pause_millis = Some(longest),
        }
    }
    writeln!(std::io::stdout(), "{}", serde_json::to_string(&findings)?).context("failed to print the findings")
}

impl Findings {
    fn compare(&mut self, key: &RowKey, expected: &Expected, hash: Option<&String>, in_doubt: bool) {
        let as_expected = match (&expected.content, hash) {
            (Content::There, Some(_)) | (Content::Gone, None) => true,
            (Content::Row(expected), Some(hash)) => expected == hash,
            (Content::There | Content::Row(_), None) | (Content::Gone, Some(_)) => false,
        };
        let cohort = self.cohorts.entry(expected.cohort.clone()).or_default();
        cohort.confirmed += expected.writes;
        if as_expected {
            cohort.found += expected.writes;
            self.found += expected.writes;
        } else if in_doubt {
            self.in_doubt += expected.writes;
        } else {
            // A row that the way back left wrong stands for no confirmed write any more; it is a loss all the same.
            self.lost += expected.writes.max(1);
            if self.lost_rows.len() < MAX_NAMED {
                let RowKey { table, key } = key;
                self.lost_rows.push(format!("{} {table} {key}", expected.cohort));
            }
        }
    }
}

/// The hash of each of these rows that is there, one query a table.
async fn read_hashes<'a>(
    client: &Client,
    keys: impl Iterator<Item = &'a RowKey>,
) -> anyhow::Result<BTreeMap<RowKey, String>> {
    let mut tables: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for key in keys {
        tables.entry(&key.table).or_default().push(&key.key);
    }
    let mut hashes = BTreeMap::new();
    for (table, keys) in tables {
        let statement = statement_for(table)?;
        let rows = client.query(&statement, &[&keys]).await.with_context(|| format!("failed to read {table}"))?;
        for row in rows {
            let key = RowKey { table: table.to_owned(), key: row.get(0) };
            hashes.insert(key, row.get(1));
        }
    }
    Ok(hashes)
}

fn statement_for(table: &str) -> anyhow::Result<String> {
    let known = ["account", "contact", "deal", "activity", "note", "campaign_send"];
    if table == "deal_contact" {
        return Ok("select t.deal_id || ':' || t.contact_id, md5(t::text) from unnest($1::text[]) as k (key) \
             join public.deal_contact t on t.deal_id = split_part(k.key, ':', 1)::bigint \
               and t.contact_id = split_part(k.key, ':', 2)::bigint"
            .to_owned());
    }
    anyhow::ensure!(known.contains(&table), "the record names a table {table:?} that the CRM does not have");
    Ok(format!(
        "select t.id::text, md5(t::text) from unnest($1::text[]) as k (key) join public.{table} t on t.id = k.key::bigint"
    ))
}

async fn count_mails(client: &Client, side: Side, events: &[Event]) -> anyhow::Result<Mails> {
    let row =
        client.query_one("select count(*) from public.mail_outbox", &[]).await.context("failed to count the mails")?;
    let expected = events.iter().filter(|event| {
        let Kind::Confirmed { operation, row, .. } = &event.kind else {
            return false;
        };
        event.side == side && *operation == Operation::Insert && row.table == "contact"
    });
    Ok(Mails { queued: row.get(0), expected: i64::try_from(expected.count())? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expect(content: Content, hash: Option<&str>, in_doubt: bool) -> Findings {
        let mut findings = Findings::default();
        let key = RowKey { table: "note".to_owned(), key: "12".to_owned() };
        let cohort = "rest".to_owned();
        let expected = Expected { account: 3, cohort, content, writes: 2 };
        findings.compare(&key, &expected, hash.map(str::to_owned).as_ref(), in_doubt);
        findings
    }

    #[test]
    fn a_write_is_found_again_only_when_the_row_is_as_the_database_confirmed_it() {
        assert_eq!(expect(Content::Row("a".to_owned()), Some("a"), false).found, 2);
        for hash in [Some("b"), None] {
            let findings = expect(Content::Row("a".to_owned()), hash, false);
            assert_eq!((findings.found, findings.lost), (0, 2));
            assert_eq!(findings.lost_rows, ["rest note 12"]);
        }
    }

    #[test]
    fn a_row_that_must_be_gone_is_a_loss_when_it_is_there() {
        assert_eq!(expect(Content::Gone, None, false).found, 2);
        assert_eq!(expect(Content::Gone, Some("a"), false).lost, 2);
    }

    #[test]
    fn a_difference_after_a_lost_answer_is_in_doubt_and_not_a_loss() {
        let findings = expect(Content::Row("a".to_owned()), None, true);
        assert_eq!((findings.found, findings.lost, findings.in_doubt), (0, 0, 2));
    }
}
