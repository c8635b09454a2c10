//! The injected fault: a broken integration that removes links between deals and contacts on the new CRM.
//! Run as a Job in `demo-rollback`. Must act as any program of the CRM would: through the application's role, and on record.

use std::time::Duration;

use anyhow::Context;
use clap::Args;
use godwit::contract::Side;
use tokio::time::{Instant, sleep};

use crate::database::{self, Databases, Meaning};
use crate::history::{Operation, RowKey};
use crate::record::{Intent, Record, Written};

#[derive(Args)]
pub struct Options {
    #[command(flatten)]
    databases: Databases,
    /// The cohort whose customers lose links.
    #[arg(long)]
    cohort: String,
    /// Customers that lose the links of one deal each.
    #[arg(long, default_value_t = 25)]
    customers: i64,
    /// Waits until users have written this often for the cohort on the new CRM, so that there is something to set aside.
    #[arg(long, default_value_t = 50)]
    after_writes: i64,
    /// How long it waits for that.
    #[arg(long, default_value_t = 300)]
    limit_seconds: u64,
}

pub async fn run(options: &Options) -> anyhow::Result<()> {
    let record = Record::new(database::connect(&options.databases.record_uri).await?);
    wait_for_writes(options, &record).await?;
    let mut target = database::connect(&options.databases.target_uri).await?;
    // One transaction a customer, as the integration would handle them.
    for account in customers(options, &target).await? {
        let intent = Intent { side: Side::Target, account: Some(account), cohort: options.cohort.clone() };
        let number = record.intend(&intent).await?;
        match unlink(&mut target, account).await {
            Ok(written) => record.confirm(number, &intent, &written).await?,
            Err(error) if matches!(database::meaning(&error), Meaning::Moving | Meaning::Elsewhere) => {
                // The cohort went back already: it did not take that many broken links.
                record.refuse(number, &intent).await?;
                break;
            }
            Err(error) => return Err(error).context("failed to remove links"),
        }
    }
    Ok(())
}

async fn wait_for_writes(options: &Options, record: &Record) -> anyhow::Result<()> {
    let deadline = Instant::now() + Duration::from_secs(options.limit_seconds);
    while record.confirmed_writes(Side::Target, &options.cohort).await? < options.after_writes {
        anyhow::ensure!(
            Instant::now() < deadline,
            "users did not write for cohort {} on the new CRM in time",
            options.cohort
        );
        // The record is a table: there is no event to wait for.
        sleep(Duration::from_millis(500)).await;
    }
    Ok(())
}

async fn customers(options: &Options, target: &tokio_postgres::Client) -> anyhow::Result<Vec<i32>> {
    let rows = target
        .query(
            "select m.customer from godwit.member m join godwit.ownership o on o.entry = m.entry \
             where o.name = $1 order by m.customer limit $2",
            &[&options.cohort, &options.customers],
        )
        .await
        .context("failed to list the cohort's customers")?;
    anyhow::ensure!(!rows.is_empty(), "cohort {} has no customers", options.cohort);
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// All links of a customer's first deal, so that the deal stands without a contact.
async fn unlink(target: &mut tokio_postgres::Client, account: i32) -> Result<Vec<Written>, tokio_postgres::Error> {
    let transaction = target.transaction().await?;
    let rows = transaction
        .query(
            "delete from public.deal_contact t where t.deal_id = (select min(id) from public.deal where account_id = $1) \
             returning t.deal_id || ':' || t.contact_id",
            &[&account],
        )
        .await?;
    transaction.commit().await?;
    let written = rows.iter().map(|row| Written {
        operation: Operation::Delete,
        row: RowKey { table: "deal_contact".to_owned(), key: row.get(0) },
        account,
        hash: None,
    });
    Ok(written.collect())
}
